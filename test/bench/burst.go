package main

import (
	"context"
	"fmt"
	"time"

	"riposte/stream"
)

// burst is how long it takes until the last of many processes is dead, all named by alerts
// that are published at once.
func burst(ctx context.Context, l *lab) ([]Row, error) {
	n := l.size(1000, 50)
	row := Row{Measurement: "burst", Setting: fmt.Sprintf("%d alerts on as many processes, riposte with 2 replicas", n), Unit: "ms"}
	for range l.slow() {
		for _, name := range []string{Riposte, Python} {
			if err := l.reset(ctx); err != nil {
				return nil, err
			}
			ms, missed, err := l.fire(ctx, name, n)
			if err == nil && missed > 0 {
				err = fmt.Errorf("%d of %d decoys outlived their alerts", missed, n)
			}
			if err == nil && name == Riposte {
				err = l.allRecorded(ctx, n)
			}
			if err != nil {
				return nil, fmt.Errorf("%s: %w", name, err)
			}
			row.add(name, ms)
			l.say("burst: %s %.0f ms, none missed", name, ms)
		}
	}
	row.compare(Python)
	row.note(Riposte, "none missed")
	row.goals(within(Python, 1.0/3))
	return []Row{row}, nil
}

// fire starts the workers of a contender and the decoys, and publishes.
func (l *lab) fire(ctx context.Context, name string, n int) (ms float64, missed int, err error) {
	publish := l.tell
	if name == Python {
		_, err = l.yardstick(ctx)
	} else {
		publish, err = l.squad(ctx, 2, "terminate")
	}
	if err != nil {
		return 0, 0, err
	}
	pids, err := l.decoys(n)
	if err != nil {
		return 0, 0, err
	}
	alerts := make([]*stream.Alert, n)
	for i, pid := range pids {
		if alerts[i], err = l.about(pid); err != nil {
			return 0, 0, err
		}
	}
	fired := time.Now()
	failed := make(chan error, 1)
	go func() { failed <- publish(ctx, alerts...) }() // the first die while the last are published
	died, err := l.deaths(pids, patience)
	if err != nil {
		return 0, 0, err
	}
	last := fired
	for _, at := range died {
		if at.After(last) {
			last = at
		}
	}
	return milliseconds(last.Sub(fired)), n - len(died), <-failed
}

// squad starts replicas, and returns what publishes to them.
func (l *lab) squad(ctx context.Context, replicas int, book string) (func(context.Context, ...*stream.Alert) error, error) {
	for range replicas {
		if _, err := l.start(ctx, l.responder(book), false); err != nil {
			return nil, err
		}
	}
	pub, err := l.publisher()
	if err != nil {
		return nil, err
	}
	return pub.Publish, nil
}

// allRecorded waits until all is settled and holds the journal against it.
func (l *lab) allRecorded(ctx context.Context, n int) error {
	if err := l.settled(ctx, 0); err != nil {
		return err
	}
	outcomes, err := l.recorded(ctx)
	if err == nil && (outcomes["terminated"] != n || len(outcomes) != 1) {
		err = fmt.Errorf("of %d alerts the journal has %v", n, outcomes)
	}
	if err == nil && l.short {
		err = l.audit()
	}
	return err
}
