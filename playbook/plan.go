package playbook

import (
	"encoding/json"
	"fmt"
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
		body.Steps = append(body.Steps, p.resolve(book, a, seen)...)
	}
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
			Hash: book.Hash, Timeout: s.Timeout, Retry: s.Retry.plan(),
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
	var steps []ledger.Step
	wanted, found := false, false
	for _, s := range book.Steps {
		wanted = wanted || s.kind.Targeted
		effect := s.spec.Resolve(a, seen)
		if effect == nil {
			continue
		}
		found = found || s.kind.Targeted
		planned := step(s)
		if planned.With, err = json.Marshal(effect); err != nil {
			planned.Action, planned.Reason = noAction, clip("parameters: "+err.Error(), 500)
		}
		steps = append(steps, planned)
	}
	if wanted && !found {
		return nil // it is about a target, and the alert has none
	}
	return steps
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
