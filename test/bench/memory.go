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
	rows = append([]Row{row}, resident...)
	if resident, err = l.sensorMemory(ctx); err != nil {
		return rows, err
	}
	return append(rows, resident...), nil
}

// redisMemory is what a second backlog adds to used_memory, for the first one pays for what
// does not grow: connections, scripts, indexes. The stream of alerts is deleted each time: an entry that has been acked is a delivery, which is trimmed by age. What
// remains of an alert is its ledger entry and its lines in the journal. asynq keeps a task
// where it is, so of asynq everything counts.
func (l *lab) redisMemory(ctx context.Context) (Row, error) {
	row := Row{Measurement: "memory", Setting: "Redis, a settled alert", Unit: "B"}
	n := l.size(20_000, 500)
	ours, peer := riposteQueue{l}, asynqQueue{l, []asynq.Option{asynq.Retention(retention)}}
	for range l.slow() {
		for _, c := range []contender{{Riposte, ours, ours.check}, {Asynq, peer, peer.check}} {
			bytes, err := l.perSettled(ctx, c, n)
			if err != nil {
				return row, fmt.Errorf("%s: %w", c.name, err)
			}
			row.add(c.name, bytes)
		}
	}
	row.note(Riposte, "ledger and journal; the alert itself is a stream entry, trimmed by age, and not counted")
	row.note(Asynq, fmt.Sprintf("with Retention(%s); without it asynq keeps no record at all", retention))
	row.compare(Asynq)
	row.goals(row.atMost(350))
	l.say("memory: %v", row.Medians)
	return row, nil
}

// perSettled settles two backlogs of n, and says what the second has left behind.
func (l *lab) perSettled(ctx context.Context, c contender, n int) (float64, error) {
	if err := l.reset(ctx); err != nil {
		return 0, err
	}
	var used [2]float64
	for i := range used {
		if err := c.load(ctx, n); err != nil {
			return 0, err
		}
		if _, err := l.workOff(ctx, c, 2, n, 0); err != nil {
			return 0, err
		}
		if err := c.check(ctx, (i+1)*n); err != nil {
			return 0, err
		}
		l.stopAll()
		if err := l.rdb.Del(ctx, host.AlertsKey()).Err(); err != nil {
			return 0, err
		}
		var err error
		if used[i], err = l.usedMemory(ctx); err != nil {
			return 0, err
		}
	}
	return (used[1] - used[0]) / float64(n), nil
}

// usedMemory is what Redis has allocated for data, without the connections and scripts,
// which do not grow with it and would count for much among few alerts.
func (l *lab) usedMemory(ctx context.Context) (float64, error) {
	info, err := infoOf(ctx, l.rdb, "memory")
	if err != nil {
		return 0, err
	}
	used := 0.0
	for name, sign := range map[string]float64{
		"used_memory": 1, "mem_clients_normal": -1, "mem_aof_buffer": -1, "used_memory_scripts_eval": -1,
	} {
		bytes, err := strconv.ParseFloat(info[name], 64)
		if err != nil {
			return 0, fmt.Errorf("INFO memory: %s: %w", name, err)
		}
		used += sign * bytes
	}
	return used, nil
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
		l.say("memory: %s, %.1f MB", rows[len(rows)-1].Setting, rows[len(rows)-1].Medians[Riposte])
	}
	return rows, flat(rows)
}

// sensorMemory follows a sensor while programs are started as fast as this machine can.
func (l *lab) sensorMemory(ctx context.Context) ([]Row, error) {
	if err := l.reset(ctx); err != nil {
		return nil, err
	}
	sensor, err := l.sensor(ctx)
	if err != nil {
		return nil, err
	}
	crowd, err := l.start(ctx, l.act("spawn", l.busybox, "0"), true)
	if err != nil {
		return nil, err
	}
	var rows []Row
	done := 0
	for _, mark := range []int{l.size(100_000, 500), l.size(1_000_000, 1000)} {
		for ; done < mark; done += spawnLine {
			if _, err := crowd.heard(patience); err != nil {
				return rows, err
			}
		}
		rows = append(rows, resident("sensor", count(done, "exec"), sensor))
		l.say("memory: %s, %.1f MB", rows[len(rows)-1].Setting, rows[len(rows)-1].Medians[Riposte])
	}
	if err := flat(rows); err != nil {
		return rows, err
	}
	crowd.kill()
	lost, err := stopSensor(sensor)
	last := &rows[len(rows)-1]
	last.note(Riposte, fmt.Sprintf("%s; it looked at %d processes, with %d overruns", last.Notes[Riposte], lost.Processes, lost.Overruns))
	return rows, err
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
