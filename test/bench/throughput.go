package main

import (
	"context"
	"fmt"
	"os/exec"
	"strings"
	"time"
)

// queue is a contender that works off a backlog.
type queue interface {
	load(ctx context.Context, n int) error
	worker() *exec.Cmd
	left(ctx context.Context) (int64, error)
}

type contender struct {
	name string
	queue
	check func(ctx context.Context, n int) error // that n were handled, and nothing else
}

func (l *lab) queues() []contender {
	ours, peer, mill, floor := riposteQueue{l}, asynqQueue{lab: l}, watermillQueue{l}, floorQueue{l}
	return []contender{
		{Riposte, ours, ours.check}, {Asynq, peer, peer.check}, {Watermill, mill, mill.check}, {Floor, floor, floor.check},
	}
}

// span is how long a backlog should last.
const span = 3 * time.Second

// throughput is how fast replicas work off a backlog.
func throughput(ctx context.Context, l *lab) (rows []Row, err error) {
	for _, fsync := range []string{"everysec", "always"} {
		for _, replicas := range []int{1, 2, 4} {
			if l.short && replicas != 2 {
				continue
			}
			row, err := l.throughputRow(ctx, fsync, replicas)
			if err != nil {
				return rows, fmt.Errorf("appendfsync %s, %d replicas: %w", fsync, replicas, err)
			}
			rows = append(rows, row)
		}
	}
	return rows, l.rdb.ConfigSet(ctx, "appendfsync", "everysec").Err()
}

func (l *lab) throughputRow(ctx context.Context, fsync string, replicas int) (Row, error) {
	row := Row{Measurement: "throughput", Setting: fmt.Sprintf("appendfsync %s, %s", fsync, count(replicas, "replica")), Unit: "alerts/s"}
	sizes := map[string]int{}
	for round := range l.slow() {
		for _, c := range l.queues() {
			if round == 0 {
				trial, err := l.drain(ctx, c, fsync, replicas, l.size(2000, 300))
				if err != nil {
					return row, fmt.Errorf("%s: %w", c.name, err)
				}
				sizes[c.name] = clamp(int(trial.rate*span.Seconds()), 2000, 600_000)
				if l.short {
					row.add(c.name, trial.rate)
					continue
				}
			}
			d, err := l.drain(ctx, c, fsync, replicas, sizes[c.name])
			if err != nil {
				return row, fmt.Errorf("%s: %w", c.name, err)
			}
			row.add(c.name, d.rate)
			row.note(c.name, d.String())
			l.say("%s, %s: %s %.0f/s, %s", row.Measurement, row.Setting, c.name, d.rate, d)
		}
	}
	if replicas == 2 {
		peers := 6.0
		if fsync == "always" {
			peers = 12
		}
		row.goals(times(Asynq, peers), times(Watermill, peers))
		if fsync == "everysec" {
			row.goals(times(Floor, 0.4))
		}
	}
	row.compare(Asynq, Watermill, Floor)
	return row, nil
}

// drained is how a backlog was worked off.
type drained struct {
	rate           float64            // alerts/s between 10 % and 90 %
	redis, workers float64            // CPU, microseconds an alert
	commands       map[string]float64 // of Redis, microseconds an alert
}

func (d drained) String() string {
	return fmt.Sprintf("Redis %.0f µs CPU an alert, workers %.0f µs", d.redis, d.workers) + dearest(d.commands, 2)
}

// sample is what was left at a moment, and what it had cost.
type sample struct {
	at             time.Time
	left           int64
	redis, workers float64
}

// drain loads a backlog, starts the workers, and follows what is left until nothing is.
func (l *lab) drain(ctx context.Context, c contender, fsync string, replicas, n int) (d drained, err error) {
	if err := l.reset(ctx); err != nil {
		return d, err
	}
	if err := l.rdb.ConfigSet(ctx, "appendfsync", "everysec").Err(); err != nil {
		return d, err // loading is not what is measured
	}
	if err := c.load(ctx, n); err != nil {
		return d, err
	}
	if err := l.rdb.ConfigSet(ctx, "appendfsync", fsync).Err(); err != nil {
		return d, err
	}
	if d, err = l.workOff(ctx, c, replicas, n, 0); err != nil {
		return d, err
	}
	return d, c.check(ctx, n)
}

// workOff has workers handle a backlog of n, beside which others hold some.
func (l *lab) workOff(ctx context.Context, c contender, replicas, n int, others int64) (d drained, err error) {
	before, err := commands(ctx, l.rdb)
	if err != nil {
		return d, err
	}
	samples := []sample{{at: time.Now(), left: int64(n)}}
	if samples[0].redis, err = redisCPU(ctx, l.rdb); err != nil {
		return d, err
	}
	var workers []*process
	for range replicas {
		p, err := l.start(ctx, c.worker(), false)
		if err != nil {
			return d, err
		}
		workers = append(workers, p)
	}
	seen, err := l.follow(ctx, c, workers, others)
	if err != nil {
		return d, err
	}
	samples = append(samples, seen...)
	after, err := commands(ctx, l.rdb)
	if err != nil {
		return d, err
	}
	d.commands = map[string]float64{}
	for name, usec := range after {
		if name == "info" || strings.HasPrefix(name, "xinfo") {
			continue // that is us, looking
		}
		if used := usec - before[name]; used > 0 {
			d.commands[name] = used / float64(n)
		}
	}
	from, to := middle(samples, int64(n))
	d.rate = rate(from, to)
	d.redis, d.workers = perAlert(from, to)
	return d, nil
}

// stuck is how long a backlog may stand still.
const stuck = 30 * time.Second

func (l *lab) follow(ctx context.Context, c contender, workers []*process, others int64) (samples []sample, err error) {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	moved := time.Now()
	for {
		s := sample{at: time.Now()}
		if s.left, err = c.left(ctx); err != nil {
			return nil, err
		}
		s.left -= others
		if s.redis, err = redisCPU(ctx, l.rdb); err != nil {
			return nil, err
		}
		for _, w := range workers {
			s.workers += cpu(w.pid())
		}
		if len(samples) == 0 || s.left < samples[len(samples)-1].left {
			moved = s.at
		}
		samples = append(samples, s)
		if s.left <= 0 {
			return samples, nil
		}
		if time.Since(moved) > stuck {
			return nil, fmt.Errorf("%d alerts are left and nothing moves", s.left)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}
