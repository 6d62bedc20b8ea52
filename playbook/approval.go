package playbook

import (
	"context"
	"fmt"
	"time"

	"riposte/ledger"
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

// park sets an alert aside until a person has decided, or the time for that is over. What
// is asked for was not begun: whoever could have begun it would have had the answer.
func (r *Responder) park(ctx context.Context, g *ledger.Grant, i int, raw []byte) error {
	if g.Body.Approval == nil { // planned to be enforced, by a replica of another mode
		g.Body.Approval = &ledger.Approval{Within: defaultApproval}
	}
	a, step := g.Body.Approval, g.Body.Steps[i]
	if a.Until.IsZero() {
		a.Until = time.Now().Add(a.Within).UTC()
	}
	effect, _ := decode(&step)
	reason := clip(fmt.Sprintf("approval: %s/%s would %s", step.Playbook, step.Step, effect.Describe()), 500)
	if err := r.insist(ctx, func(ctx context.Context) error { return r.ledger.Park(ctx, g, raw, a.Until, reason) }); err != nil {
		return err
	}
	r.log.Warn("alert waits for approval", "alert", g.ID, "until", a.Until, "reason", reason,
		"to decide", fmt.Sprintf("riposte approve %s --host %s, or riposte deny", g.ID, r.cfg.Host))
	return nil
}

func approved(a *ledger.Approval) bool { return a != nil && a.Answer == ledger.Yes }

func whyDenied(a *ledger.Approval) string {
	if a == nil || a.Answer != ledger.No {
		return "nobody approved it in time"
	}
	return fmt.Sprintf("denied by %s: %s", a.By, a.Reason)
}
