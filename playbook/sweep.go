package playbook

import (
	"context"
	"slices"
	"time"

	"riposte/playbook/gate"
	"riposte/stream"
)

const (
	sweepAtOnce = 128
	// The kernel tells of a closed file a moment before it frees its lock (fs/file_table.c,
	// __fput), so a peer that looks at once looks again.
	deathPause = 20 * time.Millisecond
	// A read that was in flight when its consumer died can be served until then; before
	// that the consumer is not removed, or what it was served would be dropped.
	readSettled = stream.Block + 3*time.Second
)

// sweep finds what was delivered and not begun, or begun by somebody who is gone: at once
// when a peer of this host dies, and regularly. It sweeps consumers, not deaths, because
// what a dead replica's last read was served turns up after the death.
func (r *Responder) sweep(ctx context.Context) {
	died := make(chan struct{}, 1)
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		notify := func() {
			select {
			case died <- struct{}{}:
			default:
			}
		}
		if err := r.gate.Watch(ctx, notify); err != nil {
			r.log.Warn("deaths of peers are noticed by the regular sweep only", "err", err)
		}
	}()
	defer func() { <-watched }()

	period := min(time.Second, r.ledger.Lease()/2)
	tick := time.NewTicker(period)
	defer tick.Stop()
	soon := time.NewTicker(min(duplicatePause, period))
	defer soon.Stop()
	s := &sweeper{Responder: r}
	var again <-chan time.Time
	s.deaths(ctx) // whatever died before we were there
	s.idle(ctx)
	for {
		select {
		case <-ctx.Done():
			return
		case <-died:
			s.deaths(ctx)
			again = time.After(deathPause)
		case <-again:
			s.deaths(ctx)
		case <-s.suspects.next:
			s.deaths(ctx)
		case <-soon.C:
			s.due(ctx)
		case <-tick.C:
			s.deaths(ctx)
			s.idle(ctx)
			s.wake(ctx)
			s.free(ctx)
		}
	}
}

type sweeper struct {
	*Responder
	cursor string // carried, or stale entries behind many fresh ones would never be found
}

// wake sends parked alerts round again whose time has come.
func (s *sweeper) wake(ctx context.Context) {
	switch n, err := s.ledger.Wake(ctx, sweepAtOnce); {
	case err != nil && ctx.Err() == nil:
		s.log.Warn("cannot look for parked alerts", "err", err)
	case n > 0:
		s.log.Info("parked alerts are due", "alerts", n)
	}
}

// due begins what was put off.
func (s *sweeper) due(ctx context.Context) {
	if s.later.empty() {
		return
	}
	free, err := s.workers.free(ctx)
	if err != nil {
		return
	}
	s.dispatch(ctx, s.later.take(time.Now(), free))
}

// deaths takes over from every consumer of this host whose life file is unlocked.
func (s *sweeper) deaths(ctx context.Context) {
	members, err := s.gate.Members()
	if err != nil {
		s.log.Warn("cannot look for dead peers", "err", err)
		return
	}
	dead := slices.DeleteFunc(members, func(m gate.Member) bool {
		// Another group's dead are for its own replicas to take over from.
		return m.Alive || m.Role != "" && m.Role != string(s.cfg.Group)
	})
	if len(dead) == 0 {
		return
	}
	slices.SortFunc(dead, func(a, b gate.Member) int { return b.Died.Compare(a.Died) }) // the latest has the most
	names := make([]string, len(dead))
	for i, m := range dead {
		names[i] = m.Replica
	}
	s.dead.Store(&names)
	consumers, err := s.consumer.Consumers(ctx)
	if err != nil {
		s.log.Warn("cannot list consumers", "err", err)
		return
	}
	for _, m := range dead {
		settled := time.Since(m.Died) > readSettled
		gone := settled
		if slices.Contains(consumers, m.Replica) {
			gone = s.takeOver(ctx, m, settled)
		}
		if gone {
			if err := s.gate.Forget(m.Replica); err != nil {
				s.log.Warn("life file of a dead peer stays", "err", err)
			}
		}
	}
}

func (s *sweeper) takeOver(ctx context.Context, dead gate.Member, remove bool) (gone bool) {
	name := dead.Replica
	for {
		free, err := s.workers.free(ctx)
		if err != nil {
			return false
		}
		n := min(free, sweepAtOnce)
		take := stream.Takeover{Most: n, Died: !dead.Left, Remove: remove, Suspect: suspect}
		alone := s.suspects.enter()
		if alone {
			take.Suspects = 1
		}
		taken, gone, err := s.consumer.TakeOver(ctx, name, take)
		if alone { // dispatch asks anew, for the one it may get
			s.suspects.leave()
		}
		if err != nil {
			s.log.Warn("cannot take over", "from", name, "err", err)
			s.later.orphans.Store(true) // the reply may be what was lost
			return false
		}
		if len(taken) == 0 {
			return gone
		}
		s.log.Info("took over from a dead peer", "from", name, "alerts", len(taken))
		s.dispatch(ctx, fresh(taken))
		if len(taken) < n {
			return false
		}
	}
}

// withoutCovered drops entries that were deleted from the stream while a live replica of this
// host has them: it goes on, and its last record acks them. Nobody else could but bury them.
func (s *sweeper) withoutCovered(found []stream.Delivery) []stream.Delivery {
	if !slices.ContainsFunc(found, func(d stream.Delivery) bool { return d.Raw == nil }) {
		return found
	}
	members, err := s.gate.Members()
	if err != nil {
		s.log.Warn("cannot look for live peers", "err", err)
		return slices.DeleteFunc(found, func(d stream.Delivery) bool { return d.Raw == nil })
	}
	return slices.DeleteFunc(found, func(d stream.Delivery) bool {
		return d.Raw == nil && d.Holder != s.cfg.Name &&
			slices.ContainsFunc(members, func(m gate.Member) bool { return m.Alive && m.Replica == d.Holder })
	})
}

// idle begins whatever has been pending for a while, whoever has it: peers
// that are frozen, or that share no folder with us. Most of it is busy, and stays so.
func (s *sweeper) idle(ctx context.Context) {
	free, err := s.workers.free(ctx)
	if err != nil {
		return
	}
	// Well before a lease can be over: the answer then says when it is.
	idle := s.ledger.Lease() / 2
	found, next, err := s.consumer.Idle(ctx, idle, s.cursor, min(free, sweepAtOnce))
	if err != nil {
		s.log.Warn("cannot look for idle alerts", "err", err)
		return
	}
	s.cursor = next
	s.dispatch(ctx, s.later.without(fresh(s.withoutCovered(found))))
	if !s.later.orphans.Swap(false) {
		return
	}
	own, _, err := s.consumer.Orphans(ctx, "", sweepAtOnce)
	if err != nil {
		s.later.orphans.Store(true)
		return
	}
	s.dispatch(ctx, s.later.without(fresh(own)))
}
