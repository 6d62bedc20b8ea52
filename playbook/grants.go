package playbook

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"riposte/ledger"
)

// grants are the alerts this replica may act on at the moment. Each has a context that
// ends when its lease is lost.
type grants struct {
	ledger *ledger.Ledger
	log    *slog.Logger

	mu   sync.Mutex
	live map[*ledger.Grant]*lease
	held map[string]bool // stream IDs of the live ones
}

type lease struct {
	until  ledger.Deadline
	cancel context.CancelCauseFunc
}

func newGrants(l *ledger.Ledger, log *slog.Logger) *grants {
	return &grants{ledger: l, log: log, live: map[*ledger.Grant]*lease{}, held: map[string]bool{}}
}

// add starts the renewal of a grant and returns the context to work under. done ends it.
func (g *grants) add(ctx context.Context, grant *ledger.Grant) (_ context.Context, done func()) {
	work, cancel := context.WithCancelCause(ctx)
	g.mu.Lock()
	defer g.mu.Unlock()
	g.live[grant] = &lease{grant.Deadline, cancel}
	g.held[grant.StreamID] = true
	return work, func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		delete(g.live, grant)
		delete(g.held, grant.StreamID)
		cancel(nil)
	}
}

// holds says whether a stream entry is being worked on here.
func (g *grants) holds(streamID string) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.held[streamID]
}

const renewAtOnce = 256

// renew keeps the leases of all live grants until ctx ends: every third of a lease, so
// that one lost request costs nothing.
func (g *grants) renew(ctx context.Context) {
	tick := time.NewTicker(g.ledger.Lease() / 3)
	defer tick.Stop()
	var asking sync.WaitGroup // a slow answer must not hold up the next request
	defer asking.Wait()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		g.mu.Lock()
		var batch []*ledger.Grant
		for grant := range g.live {
			batch = append(batch, grant)
		}
		g.mu.Unlock()
		for len(batch) > 0 {
			n := min(len(batch), renewAtOnce)
			part := batch[:n]
			asking.Go(func() { g.renewBatch(ctx, part) })
			batch = batch[n:]
		}
		g.expire()
	}
}

func (g *grants) renewBatch(ctx context.Context, batch []*ledger.Grant) {
	ctx, cancel := context.WithTimeout(ctx, g.ledger.Lease())
	defer cancel()
	renewed, lost, until, err := g.ledger.Renew(ctx, batch)
	if err != nil {
		g.log.Warn("leases not renewed; work stops when they run out", "err", err)
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, grant := range renewed {
		if l, ok := g.live[grant]; ok && until.Left() > l.until.Left() { // answers may overtake each other
			l.until = until
		}
	}
	for _, grant := range lost {
		if l, ok := g.live[grant]; ok {
			l.cancel(fmt.Errorf("%w: not renewed", ledger.ErrLost))
		}
	}
}

// expire cancels the work whose lease has run out: somebody else may hold it by now.
func (g *grants) expire() {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, l := range g.live {
		if l.until.Left() <= 0 {
			l.cancel(errRanOut)
		}
	}
}

var errRanOut = fmt.Errorf("%w: the lease ran out", ledger.ErrLost)

// check is an error where the lease of a grant has run out. A replica that was frozen, or
// whose host was suspended, asks before it begins an effect: its timers are late, too.
func (g *grants) check(grant *ledger.Grant) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if l, ok := g.live[grant]; ok && l.until.Left() <= 0 {
		l.cancel(errRanOut)
		return errRanOut
	}
	return nil
}
