package main

import (
	"context"
	"fmt"
	"math"
	"os/exec"

	"riposte/ledger"
	"riposte/stream"
)

// riposteQueue is ours: the binary, with its ledger, gate and receipts, and the default lease.
type riposteQueue struct{ *lab }

func (q riposteQueue) load(ctx context.Context, n int) error {
	pub, err := q.publisher()
	if err != nil {
		return err
	}
	for n > 0 {
		batch := make([]*stream.Alert, min(n, 100))
		for i := range batch {
			batch[i] = q.alert()
		}
		if err := pub.Publish(ctx, batch...); err != nil {
			return err
		}
		n -= len(batch)
	}
	return nil
}

// publisher is new for each use: it believes for a second what it knew of a stream.
func (l *lab) publisher() (*stream.Publisher, error) {
	return stream.NewPublisher(l.rdb, stream.PublisherConfig{Host: host, HighWater: math.MaxInt64})
}

func (q riposteQueue) worker() *exec.Cmd { return q.responder("noop") }

func (q riposteQueue) left(ctx context.Context) (int64, error) {
	return unacked(ctx, q.rdb, host.AlertsKey(), string(group))
}

// check counts what the journal says was recorded.
func (q riposteQueue) check(ctx context.Context, n int) error {
	outcomes, err := q.recorded(ctx)
	if err == nil && (outcomes["logged"] != n || len(outcomes) != 1) {
		err = fmt.Errorf("of %d alerts the journal has %v", n, outcomes)
	}
	if err == nil && q.short {
		err = q.audit()
	}
	return err
}

// markJournal begins a measurement: recorded counts what comes after.
func (l *lab) markJournal(ctx context.Context) (err error) {
	_, l.mark, err = l.ledger.Tail(ctx, 1)
	return err
}

// recorded counts the records in the journal since the mark, by outcome.
func (l *lab) recorded(ctx context.Context) (map[string]int, error) {
	outcomes := map[string]int{}
	_, end, err := l.ledger.Tail(ctx, 1)
	for after := l.mark; err == nil && after != end; {
		var events []ledger.Event
		events, after, err = l.ledger.Next(ctx, after)
		for _, e := range events {
			if e.Event == "record" {
				outcomes[e.Outcome]++
			}
		}
	}
	return outcomes, err
}

// audit asks the fsck.
func (l *lab) audit() error {
	if out, err := l.ours("ledger", "audit").CombinedOutput(); err != nil {
		return fmt.Errorf("riposte ledger audit: %w\n%s", err, out)
	}
	return nil
}
