package main

import (
	"context"
	"fmt"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"time"
)

// takeoverCap is how long a peer may take to run a dead worker's task elsewhere.
const takeoverCap = 120 * time.Second

// takeover is how long it takes from kill -9 of the worker that holds an alert until another
// one holds it. Of ours that is the journal's word; of the peers, that the handler was entered.
func takeover(ctx context.Context, l *lab) ([]Row, error) {
	if err := l.reset(ctx); err != nil {
		return nil, err
	}
	var took []float64
	for range l.size(50, 3) {
		ms, err := l.takenOver(ctx)
		if err != nil {
			return nil, err
		}
		took = append(took, ms)
	}
	if l.short {
		if err := l.audit(); err != nil {
			return nil, err
		}
	}
	rows := []Row{{Measurement: "takeover after kill -9", Setting: "p50", Unit: "ms"}, {Measurement: "takeover after kill -9", Setting: "p99", Unit: "ms"}}
	rows[0].add(Riposte, percentile(took, 0.5))
	rows[1].add(Riposte, percentile(took, 0.99))
	rows[1].goals(rows[1].atMost(50))
	l.say("takeover: p50 %.1f ms, p99 %.1f ms; now the peers, up to %s", rows[0].Medians[Riposte], rows[1].Medians[Riposte], takeoverCap)
	if l.short {
		return rows, nil
	}
	l.stopAll()
	return rows, l.peersTakeOver(ctx, rows)
}

// takenOver kills one of two replicas in the grace period of a decoy that ignores SIGTERM.
func (l *lab) takenOver(ctx context.Context) (float64, error) {
	replicas := map[string]*process{}
	for _, p := range l.procs {
		replicas[fmt.Sprint(p.pid())] = p
	}
	for len(replicas) < 2 {
		p, err := l.start(ctx, l.responder("hold"), false)
		if err != nil {
			return 0, err
		}
		replicas[fmt.Sprint(p.pid())] = p
	}
	decoy, err := l.stubborn(ctx)
	if err != nil {
		return 0, err
	}
	defer l.put(decoy)
	a, err := l.about(decoy)
	if err != nil {
		return 0, err
	}
	_, last, err := l.ledger.Tail(ctx, 1)
	if err != nil {
		return 0, err
	}
	pub, err := l.publisher()
	if err != nil {
		return 0, err
	}
	if err := pub.Publish(ctx, a); err != nil {
		return 0, err
	}
	owner, last, err := l.granted(ctx, "run", last)
	if err != nil {
		return 0, err
	}
	// The owner's name is HOST-PID-RANDOM.
	parts := strings.Split(owner, "-")
	holder := replicas[parts[len(parts)-2]]
	if holder == nil {
		return 0, fmt.Errorf("%s holds the alert and is none of ours", owner)
	}
	died := time.Now()
	if err := holder.cmd.Process.Signal(syscall.SIGKILL); err != nil {
		return 0, err
	}
	heir, _, err := l.granted(ctx, "resume", last)
	held := time.Now()
	if err != nil {
		return 0, err
	}
	if heir == owner {
		return 0, fmt.Errorf("%s took over from itself", owner)
	}
	l.forget(holder)
	_ = syscall.Kill(decoy, syscall.SIGKILL) // so that the heir's grace ends
	if _, err := l.deaths([]int{decoy}, patience); err != nil {
		return 0, err
	}
	return milliseconds(held.Sub(died)), l.settled(ctx, 0)
}

// granted waits until the journal has an event after a line.
func (l *lab) granted(ctx context.Context, event, after string) (owner, last string, err error) {
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); {
		events, next, err := l.ledger.Next(ctx, after)
		if err != nil {
			return "", "", err
		}
		after = next
		for _, e := range events {
			if e.Event == event {
				return e.Owner, after, nil
			}
		}
	}
	return "", "", fmt.Errorf("nothing in the journal says %s", event)
}

// stubborn starts a decoy that ignores SIGTERM, which programs inherit.
func (l *lab) stubborn(ctx context.Context) (pid int, err error) {
	attr := &syscall.ProcAttr{Env: []string{}, Files: []uintptr{0, 1, 2}, Sys: &leash}
	err = l.thread.do(func() (err error) {
		pid, err = syscall.ForkExec(l.busybox, []string{"sh", "-c", `trap "" TERM; exec "$0" sleep 600`, l.busybox}, attr)
		l.alive[pid] = err == nil
		return err
	})
	if err != nil {
		return 0, err
	}
	return pid, until(ctx, func() (bool, error) { return strings.Contains(cmdline(pid), "\x00600"), nil })
}

// peersTakeOver kills one of two workers of each peer at the same time; they only wait.
func (l *lab) peersTakeOver(ctx context.Context, rows []Row) error {
	peers := map[string]queue{Asynq: asynqQueue{lab: l}, Watermill: watermillQueue{l}}
	took, errs := map[string]time.Duration{}, map[string]error{}
	var mu sync.Mutex
	var waiting sync.WaitGroup
	for name, q := range peers {
		workers, err := l.pair(ctx, q)
		if err != nil {
			return err
		}
		if err := q.load(ctx, 1); err != nil {
			return err
		}
		waiting.Go(func() {
			d, err := handedOver(workers)
			mu.Lock()
			defer mu.Unlock()
			took[name], errs[name] = d, err
		})
	}
	waiting.Wait()
	for name := range peers {
		if errs[name] != nil {
			return fmt.Errorf("%s: %w", name, errs[name])
		}
		for i := range rows {
			rows[i].add(name, milliseconds(took[name]))
			rows[i].capped(name, took[name] >= takeoverCap)
			rows[i].note(name, "killed once")
			rows[i].compare(Asynq, Watermill)
		}
		l.say("takeover: %s %s", name, took[name])
	}
	return nil
}

func (l *lab) pair(ctx context.Context, q queue) (workers []*process, err error) {
	for range 2 {
		cmd := q.worker()
		p, err := l.start(ctx, exec.Command(cmd.Path, append(cmd.Args[1:], "hold")...), true)
		if err != nil {
			return nil, err
		}
		workers = append(workers, p)
	}
	return workers, nil
}

// handedOver kills whichever of two workers holds the task and waits for the other.
func handedOver(workers []*process) (time.Duration, error) {
	holder, heir := workers[0], workers[1]
	select {
	case <-holder.said:
	case <-heir.said:
		holder, heir = heir, holder
	case <-time.After(patience):
		return 0, fmt.Errorf("no worker has the task")
	}
	died := time.Now()
	_ = holder.cmd.Process.Kill()
	if _, err := heir.heard(takeoverCap); err != nil && time.Since(died) < takeoverCap {
		return 0, err
	}
	return min(time.Since(died), takeoverCap), nil
}
