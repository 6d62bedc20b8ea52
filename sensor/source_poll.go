package sensor

import (
	"context"
	"hash/maphash"
	"log/slog"
	"time"
)

// young is how long after it was first seen a process is looked at more closely: most
// exec within milliseconds after their fork.
const young = 2 * time.Second

// poll looks at all processes again and again and compares.
//
// A process that runs another program shows it by another name, which costs nothing extra
// to see. One that runs another program of the same name (sh -c "exec sh x") shows it by
// its arguments only; those are compared while the process is young and not later, because
// reading the arguments of every process takes each one's memory lock, ten times a second.
type poll struct {
	interval time.Duration
	log      *slog.Logger
	seed     maphash.Seed
	marks    map[int]mark // of the processes seen last time
	spare    map[int]mark
}

// mark is what was seen of a process.
type mark struct {
	start   uint64
	comm    string
	since   time.Time // when it was first seen
	cmdline uint64    // hash, while the process is young
}

func newPoll(interval time.Duration, log *slog.Logger) *poll {
	return &poll{interval: interval, log: log, seed: maphash.MakeSeed(), marks: map[int]mark{}, spare: map[int]mark{}}
}

// overruns: what lived and died between two looks leaves nothing that could be counted.
func (p *poll) overruns() uint64 { return 0 }

func (p *poll) run(ctx context.Context, ready func(), handle func(event)) error {
	if err := p.look(ctx, time.Time{}, handle); err != nil && ctx.Err() == nil {
		return err // it cannot be expected to work later
	}
	ready()
	ticker := time.NewTicker(p.interval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
		if err := p.look(ctx, time.Now(), handle); err != nil && ctx.Err() == nil {
			p.log.Warn("cannot look at the processes; trying again", "err", err)
		}
	}
}

// look hands over each process that is new, runs another program than last time or is gone.
func (p *poll) look(ctx context.Context, at time.Time, handle func(event)) error {
	all, err := pids(ctx)
	if err != nil {
		return err
	}
	now := time.Now()
	clear(p.spare)
	for _, id := range all {
		pid := int(id)
		s, err := identify(pid)
		if err != nil {
			continue // gone, or not ours to see
		}
		was, known := p.marks[pid]
		known = known && was.start == s.start
		is := mark{start: s.start, comm: s.comm, since: now}
		if known {
			is.since = was.since
		}
		if now.Sub(is.since) < young && !s.kernel && !s.exited {
			s.readCmdline()
			is.cmdline = maphash.String(p.seed, s.cmdline)
		} else {
			is.cmdline = was.cmdline
		}
		p.spare[pid] = is
		if !known || is.comm != was.comm || is.cmdline != was.cmdline {
			handle(event{kind: found, pid: pid, at: at})
		}
	}
	for pid := range p.marks {
		if _, ok := p.spare[pid]; !ok {
			handle(event{kind: exited, pid: pid})
		}
	}
	p.marks, p.spare = p.spare, p.marks
	return nil
}
