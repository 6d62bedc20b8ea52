package playbook

import (
	"context"
	"fmt"

	"riposte/ledger"
	"riposte/playbook/action"
	"riposte/playbook/gate"
	"riposte/stream"
)

// needsApproval says that step i is to be carried out once a person has said yes, and that
// nobody has been asked yet, or has not answered yet.
func (r *Responder) needsApproval(g *ledger.Grant, i int) bool {
	step := &g.Body.Steps[i]
	if r.mode(step) != Approve || step.Verdict != "" || step.Undoes != "" || step.Action == noAction || g.Body.Refuse != "" {
		return false
	}
	return g.Body.Approval == nil || g.Body.Approval.Answer == ""
}

// park sets an alert aside until a person has decided, or the time for that is over. It
// returns false where there is nothing to decide any more, because step i has ended.
//
// It passes the gate first, after which nobody begins the step under an older token: what has
// not begun by then has not begun when the person answers either, days later and perhaps
// after a reboot, whose gate is another.
func (r *Responder) park(ctx context.Context, g *ledger.Grant, i int, raw []byte) (parked bool, err error) {
	a, step := g.Body.Approval, g.Body.Steps[i]
	effect, class := decode(&step)
	pass, err := r.enter(ctx, gate.Step{
		Key: stream.StepKey(r.cfg.Host, r.cfg.Group, g.ID, step.Playbook, step.Step), Durable: class == action.AtMostOnce, Within: gateMargin,
	}, g.Token)
	if err != nil {
		return false, err
	}
	_, _, closed := pass.Closed()
	unbegun := pass.Begun() == 0 && r.sameGate(g)
	pass.Leave()
	if closed {
		return false, nil
	}
	if a == nil { // planned to be enforced, by a replica of another mode
		a = &ledger.Approval{Within: defaultApproval}
		g.Body.Approval = a
	}
	if a.Until.IsZero() {
		err := r.insist(ctx, func(ctx context.Context) error {
			now, err := r.rdb.Time(ctx).Result() // by it the ledger tells when it is due
			if err == nil {
				a.Until = now.Add(a.Within).UTC()
			}
			return err
		})
		if err != nil {
			return false, err
		}
	}
	reason := clip(fmt.Sprintf("approval: %s/%s would %s", step.Playbook, step.Step, effect.Describe()), 500)
	if err := r.insist(ctx, func(ctx context.Context) error { return r.ledger.Park(ctx, g, raw, a.Until, reason, unbegun) }); err != nil {
		return false, err
	}
	r.log.Warn("alert waits for approval", "alert", g.ID, "until", a.Until, "reason", reason,
		"to decide", fmt.Sprintf("riposte approve %s --host %s, or riposte deny", g.ID, r.cfg.Host))
	return true, nil
}

// Intent is what a step that has no outcome yet is to do, as far as it is decided already.
func Intent(s *ledger.Step) string {
	switch {
	case s.Outcome != "" || s.Verdict != "" || s.Action == noAction:
		return ""
	case s.Spec != nil:
		return "would depend on outcomes of earlier steps"
	}
	effect, _ := decode(s)
	intent := clip("would "+effect.Describe(), 500)
	if s.If != "" {
		intent += ", if " + clip(s.If, 200)
	}
	return intent
}

func approved(a *ledger.Approval) bool { return a != nil && a.Answer == ledger.Yes }

func whyDenied(a *ledger.Approval) string {
	if a == nil || a.Answer != ledger.No {
		return "nobody approved it in time"
	}
	return fmt.Sprintf("denied by %s: %s", a.By, a.Reason)
}
