package main

import (
	"context"
	"fmt"
	"syscall"
	"time"

	"riposte/stream"
)

// response is how long it takes from just before an alert is published until the process it
// names is seen dead, one alert at a time.
func response(ctx context.Context, l *lab) ([]Row, error) {
	if err := l.reset(ctx); err != nil {
		return nil, err
	}
	kill, err := l.killers(ctx)
	if err != nil {
		return nil, err
	}
	took := map[string][]float64{}
	n := l.size(500, 20)
	for i := range n + l.size(20, 2) {
		for _, name := range []string{Riposte, Python, Floor} {
			ms, err := l.contained(ctx, kill[name])
			if err != nil {
				return nil, fmt.Errorf("%s: %w", name, err)
			}
			if i >= l.size(20, 2) { // before that, connections and scripts are new
				took[name] = append(took[name], ms)
			}
		}
	}
	outcomes, err := l.recorded(ctx)
	if err == nil && outcomes["terminated"] != n+l.size(20, 2) {
		err = fmt.Errorf("of %d alerts the journal has %v", n+l.size(20, 2), outcomes)
	}
	if err == nil && l.short {
		err = l.audit()
	}
	var rows []Row
	for _, at := range []struct {
		name string
		p    float64
		goal want
	}{{"p50", 0.5, within(Python, 1.3)}, {"p99", 0.99, within(Python, 1.0)}} {
		row := Row{Measurement: "publish to dead", Setting: at.name, Unit: "ms"}
		for name, ms := range took {
			row.add(name, percentile(ms, at.p))
		}
		row.compare(Python, Floor)
		row.goals(at.goal)
		l.say("%s %s: %v", row.Measurement, row.Setting, row.Medians)
		rows = append(rows, row)
	}
	return rows, err
}

// killer has a process ended that an alert names.
type killer struct {
	publish func(ctx context.Context, a *stream.Alert) error
	settle  func(ctx context.Context) error // waits until it is ready for the next
}

// killers starts one worker of each contender and says how it is told.
func (l *lab) killers(ctx context.Context) (map[string]killer, error) {
	if _, err := l.start(ctx, l.responder("terminate"), false); err != nil {
		return nil, err
	}
	script, err := l.yardstick(ctx)
	if err != nil {
		return nil, err
	}
	ours, err := l.publishing(ctx)
	if err != nil {
		return nil, err
	}
	return map[string]killer{
		Riposte: ours,
		Python: {
			func(ctx context.Context, a *stream.Alert) error { return l.tell(ctx, a) },
			func(ctx context.Context) error { _, err := script.heard(patience); return err },
		},
		Floor: {
			func(_ context.Context, a *stream.Alert) error {
				return syscall.Kill(int(*a.ActionablePID), syscall.SIGTERM)
			},
			func(context.Context) error { return nil },
		},
	}, nil
}

// publishing tells responders that are running already.
func (l *lab) publishing(ctx context.Context) (killer, error) {
	pub, err := l.publisher()
	return killer{
		func(ctx context.Context, a *stream.Alert) error { return pub.Publish(ctx, a) },
		func(ctx context.Context) error { return l.settled(ctx, 0) },
	}, err
}

// settled waits until no more than what others hold is open.
func (l *lab) settled(ctx context.Context, others int64) error {
	return until(ctx, func() (bool, error) {
		left, err := riposteQueue{l}.left(ctx)
		return left <= others, err
	})
}

// contained is one alert about one decoy, in milliseconds.
func (l *lab) contained(ctx context.Context, k killer) (float64, error) {
	pids, err := l.decoys(1)
	if err != nil {
		return 0, err
	}
	a, err := l.about(pids[0])
	if err != nil {
		return 0, err
	}
	published := time.Now()
	if err := k.publish(ctx, a); err != nil {
		return 0, err
	}
	died, err := l.deaths(pids, patience)
	if err != nil {
		return 0, err
	}
	if len(died) == 0 {
		return 0, fmt.Errorf("the alert about PID %d was not acted upon", pids[0])
	}
	return milliseconds(died[pids[0]].Sub(published)), k.settle(ctx)
}
