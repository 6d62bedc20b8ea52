package chaos

import (
	"context"
	"strconv"
	"time"
)

// fault is one way to break Redis. None loses what Redis has acknowledged: it syncs its
// append-only file before it replies.
type fault struct {
	name    string
	longest time.Duration // that it lasts; zero: it is over at once
	begin   func(context.Context) error
	end     func(context.Context) error // nil: it ends by itself
}

// recovery is how long after a fault replicas may still be busy with it: their connections
// are broken, and they back off.
const recovery = lease

// faults breaks Redis again and again, in one way at a time.
type faults struct {
	run    *run
	kinds  []fault
	due    []int // kinds that are to come before any comes again
	on     *fault
	until  time.Time // when it is to end
	next   time.Time // when the next one is to begin
	length float64   // of the next one
	spells []spell
	seen   map[string]int
}

// spell is a time in which Redis was not well.
type spell struct{ from, to time.Time }

func newFaults(r *run) *faults {
	f := &faults{run: r, seen: map[string]int{}}
	plain := func(args ...any) func(context.Context) error {
		return func(ctx context.Context) error { return r.rdb.Do(ctx, args...).Err() }
	}
	always := func(do func()) func(context.Context) error {
		return func(context.Context) error { do(); return nil }
	}
	f.kinds = []fault{
		{"killed", lease, always(r.redis.Kill), always(r.redis.Restart)},
		{"frozen", 2 * lease, always(r.redis.Pause), always(r.redis.Resume)},
		{"paused", lease * 3 / 2, func(ctx context.Context) error {
			pause := time.Until(f.until).Milliseconds()
			return plain("CLIENT", "PAUSE", strconv.FormatInt(pause, 10), "ALL")(ctx)
		}, nil},
		{"full", lease, plain("CONFIG", "SET", "maxmemory", "1"), plain("CONFIG", "SET", "maxmemory", "0")},
		{"scripts flushed", 0, plain("SCRIPT", "FLUSH"), nil},
		{"connections dropped", 0, plain("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"), nil},
	}
	f.rest()
	return f
}

// rest leaves Redis alone for a while.
func (f *faults) rest() {
	var rest float64
	rest, f.length = f.run.choices.fault()
	f.next = time.Now().Add(time.Duration(rest * float64(f.run.plan.faults)))
	if len(f.due) == 0 {
		f.due = f.run.choices.faults(len(f.kinds))
	}
}

// turn begins a fault, or ends one, where it is time for that. What does not succeed, on
// a connection that the last fault broke, is tried again at the next turn.
func (f *faults) turn(ctx context.Context) {
	ctx, cancel := f.patient(ctx)
	defer cancel()
	now := time.Now()
	switch {
	case f.run.plan.faults == 0:
	case f.on != nil && now.After(f.until):
		f.end(ctx)
	case f.on == nil && now.After(f.next):
		f.begin(ctx)
	}
}

func (f *faults) begin(ctx context.Context) {
	next := &f.kinds[f.due[0]]
	from := time.Now()
	f.until = from.Add(time.Duration(f.length * float64(next.longest)))
	if next.begin(ctx) != nil {
		return
	}
	f.on, f.due = next, f.due[1:]
	f.spells = append(f.spells, spell{from: from})
	f.seen[next.name]++
	if next.longest == 0 {
		f.end(ctx)
	}
}

func (f *faults) end(ctx context.Context) {
	if f.on.end != nil && f.on.end(ctx) != nil {
		return
	}
	f.on = nil
	f.spells[len(f.spells)-1].to = time.Now()
	f.rest()
}

// stop ends what is going on.
func (f *faults) stop(ctx context.Context) {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for f.on != nil && ctx.Err() == nil {
		<-tick.C
		if time.Now().After(f.until) {
			f.end(ctx)
		}
	}
}

// well says whether Redis was well all the time.
func (f *faults) well(from, to time.Time) bool {
	for _, s := range f.spells {
		if s.from.Before(to) && (s.to.IsZero() || from.Before(s.to.Add(recovery))) {
			return false
		}
	}
	return true
}

// patient bounds how long the test itself waits for an answer of a Redis that may be away.
func (f *faults) patient(ctx context.Context) (context.Context, context.CancelFunc) {
	if f.run.plan.faults == 0 {
		return ctx, func() {}
	}
	if now := time.Now(); f.well(now, now) {
		return context.WithTimeout(ctx, patience)
	}
	return context.WithTimeout(ctx, 100*time.Millisecond)
}

// excuse lets an error of the test's own requests pass where Redis is being broken: all of
// them are made again.
func (f *faults) excuse(what string, err error) {
	f.run.t.Helper()
	if err != nil && f.run.plan.faults == 0 {
		f.run.t.Errorf("%s: %v", what, err)
	}
}
