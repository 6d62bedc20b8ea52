package playbook

import (
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"riposte/ledger"
	"riposte/playbook/action"
	"riposte/stream"
)

// Names that no playbook can have: what is decided about an alert as a whole.
const (
	none      = "-"
	noAction  = "none"
	buryStep  = "bury"
	clockSkew = 30 * time.Second // how far ahead a detector's clock may run
)

// Planner turns an alert into the plan that Begin freezes.
type Planner struct {
	Host      stream.Host
	Playbooks []*Playbook
	Mode      Mode
	MaxAge    time.Duration
	Zone      *time.Location // of timestamps without a zone
	// Warm says whether a playbook that matches an alert still warms up, and only observes. Nil:
	// none does.
	Warm func(book *Playbook, id stream.AlertID) bool
}

// Plan resolves every step of every playbook that matches. It has no side effects; what
// an attacker wrote is carried along and refused, if need be, where it would be used. A
// plan is never empty: doing nothing is a step too, with an outcome to record.
func (p *Planner) Plan(a *stream.Alert, xadd, now time.Time) ledger.Body {
	xadd = writable(xadd)
	body := ledger.Body{Level: clip(a.Level, 40), Title: clip(a.Title, 200), Rule: clip(a.Rule.ID, 100)}
	seen := action.Seen{From: xadd, Until: xadd.Add(time.Millisecond)}
	if a.Timestamp != "" {
		var err error
		if seen.From, seen.Until, err = a.When(p.Zone); err != nil {
			body.Refuse = err.Error()
			seen = action.Seen{From: xadd, Until: xadd.Add(time.Millisecond)}
		}
		seen.From, seen.Until = writable(seen.From), writable(seen.Until)
	}
	body.Seen, body.Expires = seen.From, seen.Until.Add(p.MaxAge)
	// Whatever a fast clock says, nobody has seen what is to come: a process that takes the PID
	// from now on is another one.
	if now = writable(now); seen.Until.After(now) {
		seen.Until = now
	}
	switch {
	case body.Refuse != "":
	case a.Host != "" && a.Host != string(p.Host):
		body.Refuse = fmt.Sprintf("the alert is about host %q, this is %q", clip(a.Host, 100), p.Host)
	case seen.From.After(now.Add(clockSkew)):
		body.Refuse = fmt.Sprintf("timestamp %s is %v in the future; if it was written without a zone, set --timezone to the detector's",
			clip(a.Timestamp, 40), seen.From.Sub(now).Round(time.Second))
	}
	for _, book := range p.Playbooks {
		steps := p.resolve(book, a, seen)
		for i := range steps {
			if at := seen.Until.Add(book.Expires); book.Expires > 0 && at.Before(body.Expires) {
				steps[i].Expires = at
			}
		}
		body.Steps = append(body.Steps, steps...)
	}
	p.keepForLater(&body, a, seen)
	body.Approval = p.approval(body)
	if len(body.Steps) == 0 {
		body.Steps = []ledger.Step{{
			Playbook: none, Step: none, Action: noAction, Mode: string(p.Mode),
			Reason: "no playbook matches, or the alert names nothing to act on",
		}}
	}
	return body
}

// resolve returns the steps of one playbook for an alert, none if it does not apply.
func (p *Planner) resolve(book *Playbook, a *stream.Alert, seen action.Seen) []ledger.Step {
	step := func(s Step) ledger.Step {
		return ledger.Step{
			Playbook: book.Name, Step: s.Name, Action: s.Action, Class: string(s.kind.Class), Mode: string(weaker(p.Mode, book.Mode)),
			Hash: book.Hash, Timeout: s.Timeout, Retry: s.Retry.plan(), OnError: string(s.OnError),
		}
	}
	yes, err := matches(book.program, a)
	if err != nil { // a condition that cannot be decided is not a yes, and must not pass unseen
		message, _ := told(err)
		return []ledger.Step{{
			Playbook: book.Name, Step: none, Action: noAction, Mode: string(p.Mode), Hash: book.Hash,
			Reason: clip("match could not be evaluated: "+message, 500),
		}}
	}
	if !yes {
		return nil
	}
	mode := weaker(p.Mode, book.Mode)
	warm := mode.Acts() && book.Limits.WarmUp.wanted() && p.Warm != nil && p.Warm(book, a.ID)
	if warm {
		mode = Observe
	}
	var steps []ledger.Step
	wanted, found := false, false
	for _, s := range book.Steps {
		wanted = wanted || s.kind.Targeted
		planned := step(s)
		planned.Mode, planned.Warm = string(mode), warm
		resolved, applies := s.resolve(&planned, a, seen)
		found = found || resolved && s.kind.Targeted
		if applies {
			steps = append(steps, planned)
		}
	}
	if wanted && !found {
		return nil // it is about a target, and the alert has none
	}
	return steps
}

// resolve fills in the parameters of a planned step. found says that the alert names
// something to act on, applies that the step belongs into the plan. What the alert makes of
// the parameters may be anything, so what is wrong with it is an outcome.
func (s *Step) resolve(planned *ledger.Step, a *stream.Alert, seen action.Seen) (found, applies bool) {
	verdict := func(o action.Outcome, format string, args ...any) (bool, bool) {
		planned.Verdict, planned.Reason = string(o), clip(fmt.Sprintf(format, args...), 500)
		return true, true
	}
	if s.when != nil && s.when.late {
		planned.If = s.If
	} else if s.when != nil {
		yes, err := isTrue(s.when.program, lateEnv{Alert: envOf(a).Alert})
		if err != nil {
			return verdict(action.Failed, "its condition could not be evaluated: %v", err)
		}
		if !yes {
			return verdict(action.Skipped, "its condition does not hold: %s", s.If)
		}
	}
	if s.late {
		raw, err := json.Marshal(s.spec)
		if err != nil {
			return verdict(action.Failed, "parameters: %v", err)
		}
		planned.Spec = raw
		return true, true
	}
	spec, err := s.spec, error(nil)
	if s.templated {
		if spec, err = rendered(spec, s.Timeout, nil, lateEnv{Alert: envOf(a).Alert}); err != nil {
			return verdict(action.Refused, "parameters: %v", err)
		}
	}
	effect := spec.Resolve(a, seen)
	if effect == nil {
		return false, false
	}
	if planned.With, err = json.Marshal(effect); err != nil {
		return verdict(action.Failed, "parameters: %v", err)
	}
	return true, true
}

// approval is what the steps of a plan that need a yes wait for: as long as the most
// impatient of their playbooks allows.
func (p *Planner) approval(body ledger.Body) (a *ledger.Approval) {
	for _, s := range body.Steps {
		if Mode(s.Mode) != Approve || s.Verdict != "" {
			continue
		}
		if book := p.book(s.Playbook); book != nil && (a == nil || book.Limits.Approval < a.Within) {
			a = &ledger.Approval{Within: book.Limits.Approval}
		}
	}
	return a
}

func (p *Planner) book(name string) *Playbook {
	for _, b := range p.Playbooks {
		if b.Name == name {
			return b
		}
	}
	return nil
}

// restraints are the switches that pause a plan, and the breakers that count it: those of
// this host, and those of the fleet. What is too old to be done is not counted: else those that
// waited for the end of a pause would trip the breaker for all that come after.
func (p *Planner) restraints(group stream.Group, body ledger.Body, now time.Time) (switches []string, host, fleet []ledger.Breaker) {
	switches = []string{string(ledger.HostSwitch), string(ledger.GroupSwitch(group))}
	acts := map[string]map[string]bool{} // by playbook and action
	for _, s := range body.Steps {
		if s.Playbook == none {
			continue
		}
		if acts[s.Playbook] == nil {
			acts[s.Playbook] = map[string]bool{}
			switches = append(switches, string(ledger.PlaybookSwitch(s.Playbook)))
		}
		// Not by the playbook's own Expires: what is stored may have been planned with another one.
		expired := Mode(s.Mode) != Approve && now.After(body.Expires) // of a yes, the age counts
		if Mode(s.Mode).Acts() && s.Verdict == "" && body.Refuse == "" && !expired {
			acts[s.Playbook][""], acts[s.Playbook][s.Action] = true, true
		}
	}
	for _, book := range p.Playbooks {
		for _, b := range book.Limits.Breakers {
			if !acts[book.Name][b.Action] {
				continue
			}
			if b.Per == PerFleet {
				fleet = append(fleet, counting(book, b))
			} else {
				host = append(host, counting(book, b))
			}
		}
	}
	return switches, host, fleet
}

// maxLate bounds the alert that is kept for steps that wait for earlier outcomes.
const maxLate = 128 << 10

// keepForLater puts the alert into a plan that cannot be made out whole yet.
func (p *Planner) keepForLater(body *ledger.Body, a *stream.Alert, seen action.Seen) {
	waits := func(s ledger.Step) bool { return s.Verdict == "" && (s.If != "" || s.Spec != nil) }
	if !slices.ContainsFunc(body.Steps, waits) {
		return
	}
	raw, err := json.Marshal(a)
	if err == nil && len(raw) > maxLate {
		err = fmt.Errorf("the alert has %d bytes; for conditions and templates over outcomes at most %d are kept", len(raw), maxLate)
	}
	if err == nil {
		body.Late = &ledger.Late{Alert: raw, Until: seen.Until}
		return
	}
	for i := range body.Steps {
		if s := &body.Steps[i]; waits(*s) {
			s.Verdict, s.Reason = string(action.Refused), err.Error()
		}
	}
}

// writable brings a time that somebody else wrote into the years that JSON can hold, and
// that leave room for an alert's age.
func writable(t time.Time) time.Time {
	earliest, latest := time.Unix(0, 0).UTC(), time.Date(9000, 1, 1, 0, 0, 0, 0, time.UTC)
	switch t = t.UTC(); {
	case t.Before(earliest):
		return earliest
	case t.After(latest):
		return latest
	}
	return t
}

// clip bounds text that somebody else wrote, at a rune.
func clip(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for n > 0 && s[n]&0xC0 == 0x80 {
		n--
	}
	return s[:n] + "..."
}
