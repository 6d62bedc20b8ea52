package main

import (
	"context"
	"fmt"
	"os/exec"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"riposte/stream"
)

// situation is what a Redis holds beside what is measured.
type situation struct {
	name                    string
	pending, settled, hosts int
	like                    string // the situation it must be as fast as, within a tenth
}

// growth is throughput and response time of ours while there is more and more beside it.
// Pending entries are those of another consumer of the group, which holds them for good;
// the lease is longer than the measurement, so that nobody takes them over. Settled alerts
// and hosts are copies of 500 alerts that were settled before, with ledger, journal and
// stream.
func growth(ctx context.Context, l *lab) ([]Row, error) {
	situations := []situation{
		{name: "10 pending", pending: 10},
		{name: "1,000 pending", pending: 1000, like: "10 pending"},
		{name: "100,000 pending", pending: 100_000, like: "10 pending"},
		{name: "1 host"},
		{name: "200 hosts", hosts: 200, like: "1 host"},
		{name: "1,000,000 settled", settled: 1_000_000},
	}
	if l.short {
		situations = []situation{{name: "10 pending", pending: 10}, {name: "1 host"},
			{name: "3 hosts", hosts: 3, like: "1 host"}, {name: "2,000 settled", settled: 2000}}
	}
	rates, waits := make([]Row, len(situations)), make([]Row, len(situations))
	n := 300
	for round := range l.slow() {
		for i, s := range situations {
			rates[i].Measurement, rates[i].Setting, rates[i].Unit = "growth", "2 replicas, "+s.name, "alerts/s"
			waits[i].Measurement, waits[i].Setting, waits[i].Unit = "growth", "publish to dead p50, "+s.name, "ms"
			if err := l.arrange(ctx, s); err != nil {
				return nil, fmt.Errorf("%s: %w", s.name, err)
			}
			if round == 0 && i == 0 && !l.short {
				d, err := l.drainBeside(ctx, 2000, s)
				if err != nil {
					return nil, err
				}
				n = clamp(int(d.rate*span.Seconds()), 2000, 600_000)
			}
			d, err := l.drainBeside(ctx, n, s)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", s.name, err)
			}
			rates[i].add(Riposte, d.rate)
			rates[i].note(Riposte, d.String())
			ms, err := l.respondBeside(ctx, s)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", s.name, err)
			}
			waits[i].add(Riposte, ms)
			l.say("growth, %s: %.0f alerts/s, %.2f ms", s.name, d.rate, ms)
		}
	}
	for i, s := range situations {
		for j, like := range situations {
			if like.name == s.like {
				rates[i].goals(want{text: ">= 0.9x " + s.like, value: 0.9 * rates[j].Medians[Riposte]})
				waits[i].goals(want{text: "<= 1.1x " + s.like, value: 1.1 * waits[j].Medians[Riposte], most: true})
			}
		}
	}
	return append(rates, waits...), nil
}

const (
	seed     = 500
	longTerm = "--lease=10m"
)

// holding is ours with a lease that outlasts the measurement.
type holding struct{ riposteQueue }

func (q holding) worker() *exec.Cmd { return q.responder("noop", longTerm) }

func (l *lab) drainBeside(ctx context.Context, n int, s situation) (drained, error) {
	q := holding{riposteQueue{l}}
	if err := l.markJournal(ctx); err != nil {
		return drained{}, err
	}
	if err := q.load(ctx, n); err != nil {
		return drained{}, err
	}
	d, err := l.workOff(ctx, contender{Riposte, q, nil}, 2, n, int64(s.pending))
	if err != nil {
		return d, err
	}
	l.stopAll()
	outcomes, err := l.recorded(ctx)
	if err == nil && (outcomes["logged"] != n || len(outcomes) != 1) {
		err = fmt.Errorf("of %d alerts the journal has %v", n, outcomes)
	}
	return d, err
}

func (l *lab) respondBeside(ctx context.Context, s situation) (float64, error) {
	defer l.stopAll()
	if _, err := l.start(ctx, l.responder("terminate", longTerm), false); err != nil {
		return 0, err
	}
	k, err := l.publishing(ctx)
	if err != nil {
		return 0, err
	}
	k.settle = func(ctx context.Context) error { return l.settled(ctx, int64(s.pending)) }
	var took []float64
	for i := range l.size(110, 6) {
		ms, err := l.contained(ctx, k)
		if err != nil {
			return 0, err
		}
		if i >= l.size(10, 1) {
			took = append(took, ms)
		}
	}
	return percentile(took, 0.5), nil
}

// arrange brings a situation about.
func (l *lab) arrange(ctx context.Context, s situation) error {
	if err := l.reset(ctx); err != nil {
		return err
	}
	q := riposteQueue{l}
	if err := q.load(ctx, seed); err != nil {
		return err
	}
	if _, err := l.workOff(ctx, contender{Riposte, q, nil}, 2, seed, 0); err != nil {
		return err
	}
	l.stopAll()
	for i := range s.hosts - 1 {
		if err := l.copyHost(ctx, fmt.Sprintf("%s-%d", host, i)); err != nil {
			return err
		}
	}
	if err := l.copySettled(ctx, s.settled/seed); err != nil {
		return err
	}
	for held := 0; held < s.pending; {
		n := min(1000, s.pending-held)
		if err := q.load(ctx, n); err != nil {
			return err
		}
		if err := l.rdb.XReadGroup(ctx, &redis.XReadGroupArgs{Group: string(group), Consumer: string(host) + "-1-other",
			Streams: []string{host.AlertsKey(), ">"}, Count: int64(n), Block: -1}).Err(); err != nil {
			return err
		}
		held += n
	}
	return nil
}

// copyHost makes another host that has all that ours has.
func (l *lab) copyHost(ctx context.Context, name string) error {
	ours := "riposte:{" + string(host) + "}:"
	keys, err := l.rdb.Keys(ctx, ours+"*").Result()
	if err != nil {
		return err
	}
	pipe := l.rdb.Pipeline()
	for _, key := range keys {
		pipe.Copy(ctx, key, "riposte:{"+name+"}:"+strings.TrimPrefix(key, ours), 0, true)
	}
	pipe.ZAdd(ctx, stream.HostsKey, redis.Z{Score: float64(time.Now().UnixMilli()), Member: name})
	_, err = pipe.Exec(ctx)
	return err
}

// copySettled copies the ledger entries and the journal of the seed n times, under new IDs.
func (l *lab) copySettled(ctx context.Context, n int) error {
	keys, err := l.rdb.Keys(ctx, host.LedgerPrefix(group)+"*").Result()
	if err != nil {
		return err
	}
	journal, err := l.rdb.XRange(ctx, host.JournalKey(), "-", "+").Result()
	if err != nil {
		return err
	}
	for i := range n {
		pipe := l.rdb.Pipeline()
		for _, key := range keys {
			pipe.Copy(ctx, key, fmt.Sprintf("%s.%d", key, i), 0, true)
		}
		for _, m := range journal {
			pipe.XAdd(ctx, &redis.XAddArgs{Stream: host.JournalKey(), Values: m.Values})
		}
		if _, err := pipe.Exec(ctx); err != nil {
			return err
		}
	}
	return nil
}
