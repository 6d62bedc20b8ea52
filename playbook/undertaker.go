package playbook

import (
	"context"
	"errors"
	"fmt"
	"time"

	"riposte/ledger"
	"riposte/playbook/gate"
	"riposte/stream"
)

const (
	// abandonedAfter is how long nobody must have been seen of a group that is taken for
	// abandoned, and how old what is buried for it must be. It is no shorter than the greatest
	// Config.MaxAge: nothing that may still be acted upon is buried.
	abandonedAfter = 24 * time.Hour

	undertakeAtOnce = 32          // entries of up to 1 MiB in one reply
	undertakeFor    = time.Second // at a time
)

// undertake moves what abandoned groups have left to their dead letters, a part of it in
// each call: else what they will never read or ack would be kept for ever, and everything
// behind it. The group containment is never taken for abandoned: a host that contains
// nothing for a day has another problem, and its alerts are the evidence of it.
func (r *Responder) undertake(ctx context.Context) { undertaker{r, abandonedAfter}.round(ctx) }

// undertaker is a replica at work for groups that are not its own. It is bound by the
// protocol like every other: Begin gives the right to bury, the gate comes before the
// ledger. So any number of undertakers, and replicas of the group if it comes back to life,
// get in each other's way and do no harm.
type undertaker struct {
	*Responder
	after time.Duration
}

func (u undertaker) round(ctx context.Context) {
	groups, err := u.consumer.Groups(ctx)
	if err != nil {
		if ctx.Err() == nil {
			u.log.Debug("cannot look for abandoned groups", "err", err)
		}
		return
	}
	until := time.Now().Add(undertakeFor)
	for _, g := range groups {
		if stray := stream.StrayGroup(u.cfg.Host, g); stray != "" {
			u.sayStray(g, stray)
			continue
		}
		if g == u.cfg.Group || g == stream.DefaultGroup {
			continue
		}
		n, err := u.group(ctx, g, until)
		if n > 0 {
			u.log.Warn("buried what an abandoned group had left", "group", g, "alerts", n)
		}
		if err != nil && ctx.Err() == nil {
			u.log.Warn("what an abandoned group has left cannot be buried; trying again", "group", g, "err", err)
		}
	}
}

// sayStray says once of each group that nobody can serve or bury for what to do about it.
func (u undertaker) sayStray(g stream.Group, what string) {
	if !u.strays[g] {
		u.strays[g] = true
		u.log.Warn(what, "group", g)
	}
}

// group settles what a group has left, if it is abandoned, and says how much of it.
func (u undertaker) group(ctx context.Context, g stream.Group, until time.Time) (settled int, failure error) {
	r := u.replicaOf(g)
	for {
		estate, err := r.consumer.Abandoned(ctx, u.after, undertakeAtOnce)
		if err != nil {
			return settled, err
		}
		before := settled
		for _, d := range estate.Entries {
			if time.Now().After(until) {
				return settled, failure
			}
			switch ok, err := r.inter(ctx, d, epitaph(g, estate.Silence, d)); {
			case err != nil:
				failure = err // those behind it must not wait for it
			case ok:
				settled++
			}
		}
		if settled == before {
			return settled, failure
		}
	}
}

// undertakerName is the consumer that all undertakers are in a group not their own. Under a
// name of its own, one that is replaced in the middle would pass for a replica of the group
// that was seen a moment ago, and hold off the others. Begin tells them apart by its nonce.
const undertakerName = "undertaker"

// replicaOf is this replica, with its own gate, in another group and without playbooks. It is good for burials only.
func (u undertaker) replicaOf(g stream.Group) *Responder {
	cfg := u.cfg
	cfg.Group, cfg.Playbooks = g, nil
	r := &Responder{
		cfg: cfg, log: u.log.With("group", g), ledger: u.ledger.For(g, undertakerName), gate: u.gate,
		consumer: u.consumer.For(g, undertakerName), rdb: u.rdb, fleet: u.fleet, workers: newWorkers(1),
	}
	r.Reload(nil)
	return r
}

func epitaph(g stream.Group, silence time.Duration, d stream.Delivery) string {
	if silence < 0 {
		return fmt.Sprintf("group %s was abandoned: it has no replicas, and this has been waiting for %v", g, time.Since(d.When()).Round(time.Second))
	}
	return fmt.Sprintf("group %s was abandoned: none of its replicas has been seen for %v", g, silence.Round(time.Second))
}

// inter buries an entry, unless somebody is at work on it. It is settled then, perhaps
// because it had been before.
func (r *Responder) inter(ctx context.Context, d stream.Delivery, reason string) (settled bool, err error) {
	c := r.claim(intake{Delivery: d})
	c.Switches, c.Breakers, c.Hold = nil, nil, "" // nothing is begun
	if c.bury == "" {
		c.bury = reason
		if !c.Reopened {
			c.Body.Steps[0].Reason = reason // no replica of the group has planned for it
		}
	}
	for {
		answers, err := r.ledger.Begin(ctx, []ledger.Claim{c.Claim}, nil)
		if err != nil {
			return false, err
		}
		switch a := answers[0]; a.Verdict {
		case ledger.Busy:
			return false, nil
		case ledger.Settled:
			return true, nil
		case ledger.Conflict:
			c.ID, c.Nonce = c.ID.Conflicting(c.Digest), ledger.NewNonce()
			c.Body.Flags = append(c.Body.Flags, idConflict)
		default:
			err := r.interGranted(ctx, a.Grant, d.DeadLetter(c.bury))
			var stale *gate.StaleError
			if !errors.As(err, &stale) || stale.Newest <= c.Floor {
				return err == nil, err
			}
			c.Floor, c.Nonce = stale.Newest, ledger.NewNonce() // after a failover: begin anew above it
		}
	}
}

// interGranted buries under a grant, within its lease, which nobody renews.
func (r *Responder) interGranted(ctx context.Context, g *ledger.Grant, letter stream.DeadLetter) error {
	r.workers.hire(1)
	defer r.workers.fire(1)
	within, cancel := context.WithTimeout(ctx, g.Deadline.Left())
	defer cancel()
	err := r.bury(within, g, letter)
	if err != nil && !errors.Is(err, ledger.ErrLost) {
		r.handBack(ctx, g, err)
	}
	return err
}
