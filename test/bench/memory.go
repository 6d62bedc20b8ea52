package main

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/hibiken/asynq"
)

// retention is how long asynq is told to keep what it has done. It keeps nothing otherwise.
const retention = time.Hour

// memory is what Redis keeps of settled alerts, and what a responder needs itself.
func memory(ctx context.Context, l *lab) (rows []Row, err error) {
	row, err := l.redisMemory(ctx)
	if err != nil {
		return nil, err
	}
	resident, err := l.responderMemory(ctx)
	if err != nil {
		return []Row{row}, err
	}
	return append([]Row{row}, resident...), nil
}

// redisMemory is used_memory after minus before, all workers stopped. The stream of alerts is
// deleted first: an entry that has been acked is a delivery, which is trimmed by age. What
// remains of an alert is its ledger entry and its lines in the journal. asynq keeps a task
// where it is, so of asynq everything counts.
func (l *lab) redisMemory(ctx context.Context) (Row, error) {
	row := Row{Measurement: "memory", Setting: "Redis, a settled alert", Unit: "B"}
	n := l.size(20_000, 500)
	ours, peer := riposteQueue{l}, asynqQueue{l, []asynq.Option{asynq.Retention(retention)}}
	for range l.slow() {
		for _, c := range []contender{{Riposte, ours, ours.check}, {Asynq, peer, peer.check}} {
			if err := l.reset(ctx); err != nil {
				return row, err
			}
			before, err := l.usedMemory(ctx)
			if err != nil {
				return row, err
			}
			if err := c.load(ctx, n); err != nil {
				return row, err
			}
			if _, err := l.workOff(ctx, c, 2, n, 0); err != nil {
				return row, fmt.Errorf("%s: %w", c.name, err)
			}
			if err := c.check(ctx, n); err != nil {
				return row, err
			}
			l.stopAll()
			if err := l.rdb.Del(ctx, host.AlertsKey()).Err(); err != nil {
				return row, err
			}
			after, err := l.usedMemory(ctx)
			if err != nil {
				return row, err
			}
			row.add(c.name, (after-before)/float64(n))
		}
	}
	row.note(Riposte, "ledger and journal; the alert itself is a stream entry, trimmed by age, and not counted")
	row.note(Asynq, fmt.Sprintf("with Retention(%s); without it asynq keeps no record at all", retention))
	row.compare(Asynq)
	row.goals(row.atMost(350))
	l.say("memory: %v", row.Medians)
	return row, nil
}

// usedMemory is what Redis has allocated once the connections of killed workers are gone.
func (l *lab) usedMemory(ctx context.Context) (float64, error) {
	err := until(ctx, func() (bool, error) {
		info, err := infoOf(ctx, l.rdb, "clients")
		n, _ := strconv.Atoi(info["connected_clients"])
		return n <= l.rdb.Options().PoolSize, err
	})
	if err != nil {
		return 0, err
	}
	info, err := infoOf(ctx, l.rdb, "memory")
	if err != nil {
		return 0, err
	}
	return strconv.ParseFloat(info["used_memory"], 64)
}

// responderMemory follows one responder through many alerts.
func (l *lab) responderMemory(ctx context.Context) ([]Row, error) {
	if err := l.reset(ctx); err != nil {
		return nil, err
	}
	q := riposteQueue{l}
	if err := q.load(ctx, 1); err != nil {
		return nil, err
	}
	p, err := l.start(ctx, q.worker(), false)
	if err != nil {
		return nil, err
	}
	var rows []Row
	const chunk = 20_000
	done := 1
	for _, mark := range []int{l.size(100_000, 500), l.size(1_000_000, 1000)} {
		for done < mark {
			n := min(chunk, mark-done)
			if err := q.load(ctx, n); err != nil {
				return rows, err
			}
			if _, err := l.follow(ctx, contender{Riposte, q, q.check}, []*process{p}, 0); err != nil {
				return rows, err
			}
			done += n
			if err := os.Truncate(l.effects(), 0); err != nil { // nobody reads it
				return rows, err
			}
		}
		rows = append(rows, resident("responder", count(done, "alert"), p))
		l.say("memory: %v", rows[len(rows)-1])
	}
	return rows, flat(rows)
}

// resident is VmRSS of a process now; VmHWM, its highest so far, is in the note.
func resident(who, after string, p *process) Row {
	row := Row{Measurement: "memory", Setting: who + " after " + after, Unit: "MB"}
	row.add(Riposte, status(p.pid(), "VmRSS")/1e6)
	row.note(Riposte, fmt.Sprintf("at most %.1f MB (VmHWM)", status(p.pid(), "VmHWM")/1e6))
	row.goals(row.atMost(40))
	return row
}

// flat notes how much the last row is above the first.
func flat(rows []Row) error {
	first, last := &rows[0], &rows[len(rows)-1]
	a, b := first.Medians[Riposte], last.Medians[Riposte]
	if a == 0 || b == 0 {
		return fmt.Errorf("the process of %q is gone", last.Setting)
	}
	last.note(Riposte, fmt.Sprintf("%s; %+.0f %% from the row above", last.Notes[Riposte], 100*(b/a-1)))
	return nil
}

// status is a line of /proc/PID/status, in bytes.
func status(pid int, name string) float64 {
	words := strings.Fields(firstLine(fmt.Sprintf("/proc/%d/status", pid), name))
	kilobytes, _ := strconv.ParseFloat(words[0], 64)
	return kilobytes * 1024
}
