package playbook

import (
	"encoding/json"
	"fmt"
	"strconv"
	"time"

	"github.com/expr-lang/expr"

	"riposte/ledger"
	"riposte/playbook/action"
	"riposte/stream"
)

// makeOut decides what the outcomes of earlier steps leave of step i: whether it is skipped,
// and what its parameters are. It depends on nothing else, so a successor makes out the same.
func makeOut(body *ledger.Body, i int) {
	step := &body.Steps[i]
	verdict := func(o action.Outcome, format string, args ...any) {
		step.Verdict, step.Reason = string(o), clip(fmt.Sprintf(format, args...), 500)
	}
	if step.Verdict != "" || step.Undoes != "" {
		return
	}
	for _, s := range body.Steps[:i] {
		if s.Playbook == step.Playbook && s.OnError != "" && OnError(s.OnError) != Continue && wrong(s) {
			verdict(action.Skipped, "step %s ended as %s, and its on_error is %s", s.Step, s.Outcome, s.OnError)
			return
		}
	}
	if step.If == "" && (step.Spec == nil || step.With != nil) {
		return
	}
	if body.Late == nil {
		verdict(action.Failed, "the alert that it depends on is not in the ledger")
		return
	}
	alert, err := stream.Decode(body.Late.Alert, "")
	if err != nil {
		verdict(action.Failed, "the alert that it depends on: %v", err)
		return
	}
	env := lateEnv{envOf(alert).Alert, stepsBefore(body.Steps, i)}
	if step.If != "" {
		e, err := compileLate(step.If, checked, expr.AsBool())
		yes := false
		if err == nil {
			yes, err = isTrue(e.program, env)
		}
		if err != nil {
			verdict(action.Failed, "its condition could not be evaluated: %v", err)
			return
		}
		if !yes {
			verdict(action.Skipped, "its condition does not hold: %s", step.If)
			return
		}
	}
	if step.Spec == nil {
		return
	}
	kind, known := action.Lookup(step.Action)
	if !known {
		return // as any step of another version, see decode
	}
	spec := kind.Spec()
	if err := json.Unmarshal(step.Spec, spec); err != nil {
		verdict(action.Failed, "parameters: %v", err)
		return
	}
	if spec, err = rendered(spec, step.Timeout, checked, env); err != nil {
		verdict(action.Refused, "parameters: %v", err)
		return
	}
	effect := spec.Resolve(alert, action.Seen{From: body.Seen, Until: body.Late.Until})
	if effect == nil {
		verdict(action.Skipped, "the alert names nothing for it to act on")
		return
	}
	if step.With, err = json.Marshal(effect); err != nil {
		verdict(action.Failed, "parameters: %v", err)
	}
}

// wrong says that a step did not come out as its playbook needs it.
func wrong(s ledger.Step) bool {
	switch action.Outcome(s.Outcome) {
	case action.Refused, action.Failed, action.Unknown:
		return true
	}
	return false
}

// undoSuffix is in no name that a playbook may give to a step. What could not be undone may be
// tried again, under a number.
const undoSuffix = "~undo"

// undoStep is the step that takes another one back, the nth time somebody tries, if it has
// done anything that can be.
func undoStep(s ledger.Step, nth int) (ledger.Step, bool) {
	switch action.Outcome(s.Outcome) {
	case action.Blocked, action.AlreadyBlocked, action.Suspended, action.Isolated, action.Quarantined:
	default:
		return ledger.Step{}, false
	}
	effect, _, err := action.Decode(s.Action, s.With)
	if err != nil {
		return ledger.Step{}, false
	}
	reversible, can := effect.(action.Reversible)
	if !can {
		return ledger.Step{}, false
	}
	name, undo := reversible.Undo()
	kind, known := action.Lookup(name)
	with, err := json.Marshal(undo)
	if err != nil || !known {
		return ledger.Step{}, false
	}
	suffix := undoSuffix
	if nth > 1 {
		suffix += strconv.Itoa(nth)
	}
	return ledger.Step{
		Playbook: s.Playbook, Step: s.Step + suffix, Action: name, Class: string(kind.Class), Mode: string(Enforce), Hash: s.Hash,
		With: with, Undoes: s.Step, Timeout: defaultTimeout, Retry: defaultRetry.plan(),
	}, true
}

// takeBack adds the steps that undo what a playbook has done, the last first, where its step
// i has just gone wrong and it says so.
func takeBack(body *ledger.Body, i int) {
	step := body.Steps[i]
	if OnError(step.OnError) != Undo || !wrong(step) {
		return
	}
	for j := i - 1; j >= 0; j-- {
		if s := body.Steps[j]; s.Playbook == step.Playbook && s.Undoes == "" {
			addUndo(body, s)
		}
	}
}

// addUndo adds the step that takes s back, unless one is under way or has succeeded.
func addUndo(body *ledger.Body, s ledger.Step) bool {
	nth := 1
	for _, t := range body.Steps {
		if t.Playbook != s.Playbook || t.Undoes != s.Step {
			continue
		}
		if t.Outcome == "" || ok(action.Outcome(t.Outcome)) && t.Outcome != string(action.Observed) {
			return false
		}
		nth++
	}
	undo, can := undoStep(s, nth)
	if can {
		body.Steps = append(body.Steps, undo)
	}
	return can
}

// deadline is when step i is too old to be begun; zero: never.
func deadline(body *ledger.Body, step *ledger.Step, maxAge time.Duration) time.Time {
	switch {
	case step.Undoes != "":
		return time.Time{} // what was done may have to be undone at any time
	case Mode(step.Mode) == Approve && body.Approval != nil && body.Approval.Answer == ledger.Yes:
		return body.Approval.At.Add(maxAge) // somebody has looked, then
	case !step.Expires.IsZero():
		return step.Expires
	}
	return body.Expires
}
