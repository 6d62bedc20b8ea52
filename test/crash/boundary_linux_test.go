package crash

import (
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"riposte/playbook/action"
	"riposte/test/build"
	"riposte/test/redistest"
	"riposte/test/table"
)

// fault is what happens to a replica that has frozen at a boundary.
type fault string

const (
	killed fault = "killed"
	late   fault = "frozen, thawed after takeover"
	early  fault = "frozen past its lease, thawed before takeover"
)

var faults = []fault{killed, late, early}

// lastRecord is the boundary "recorded" once more, where that record was the last.
const (
	recorded   = "recorded"
	lastRecord = "recorded, the last"
)

// place is what to expect of a boundary.
type place struct {
	granted bool // there is a grant, whose lease runs out
	inside  bool // of the gate, which a successor waits for
	begun   bool // the receipt says so, and not what came of it
	applied bool // it has happened, beside
	through bool // nothing is left to be done
}

var places = map[string]place{
	"read":           {},
	"claim":          {},
	"granted":        {granted: true},
	"before-gate":    {granted: true},
	"inside-gate":    {granted: true, inside: true},
	"probed":         {granted: true, inside: true},
	"begun":          {granted: true, inside: true, begun: true},
	"applied":        {granted: true, inside: true, begun: true, applied: true},
	"closed":         {granted: true},
	"before-record":  {granted: true},
	recorded:         {granted: true},
	"attempt-failed": {granted: true},
	lastRecord:       {granted: true, through: true},
}

// boundaries are those of package playbook, in order.
func boundaries(t testing.TB) []string {
	t.Helper()
	source, err := os.ReadFile("../../playbook/boundary.go")
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, m := range regexp.MustCompile(`(?m)^\tat\w+ +boundary = "([a-z-]+)"`).FindAllStringSubmatch(string(source), -1) {
		names = append(names, m[1])
	}
	if n := strings.Count(string(source), " boundary = "); n == 0 || n != len(names) {
		t.Fatalf("%d boundaries in the source, %d understood: %v", n, len(names), names)
	}
	names = append(names, lastRecord)
	for _, name := range names {
		if _, known := places[name]; !known {
			t.Errorf("nothing is known of the boundary %q: add it to places", name)
		}
	}
	return names
}

// allowed are the outcomes that a case may have.
func (p place) allowed(c class, f fault) []string {
	switch {
	case f == early && p.begun && !p.applied: // it goes on, or finds that its lease is over
		return append(slices.Clone(c.outcome), c.unsure)
	case f == early, !p.begun:
		return c.outcome
	case p.applied:
		return []string{c.inPlace}
	}
	return []string{c.unsure}
}

// effects is how often the effect happens, at least and at most.
func (p place) effects(c class, f fault) (least, most int) {
	switch {
	case c.class == action.AtMostOnce && p.begun && !p.applied && f == early:
		return 0, 1
	case c.class == action.AtMostOnce && p.begun && !p.applied:
		return 0, 0
	case c.class == action.Idempotent && p.applied && f != early:
		return 2, 2
	}
	return 1, 1
}

const (
	longLease  = 10 * time.Second // takeover is by the proof of death, or not at all
	shortLease = 600 * time.Millisecond
)

// result is one cell of the matrix.
type result struct {
	boundary string
	class    class
	fault    fault
	verdict
	takeover time.Duration // from the death, or the end of the lease, to the next Begin; 0: none
}

func (r result) String() string {
	if r.outcome == "" {
		return "-"
	}
	text := r.outcome
	if r.takeover > 0 {
		text += " " + r.takeover.Round(time.Millisecond).String()
	}
	return text
}

// crash plays one case.
func (st staging) crash(t *testing.T, host, boundary string, c class, f fault) result {
	p, lease, timeout := places[boundary], longLease, unhurried
	switch f {
	case late:
		lease, timeout = shortLease, time.Second // a successor waits for the end of it
	case early:
		lease = shortLease
	}
	s := st.scene(t, host, c, lease, timeout)
	steps := []string{s.steps(), s.after()}
	if p.through {
		steps = steps[:1]
	}
	s.book(steps...)
	var more []string
	failing := boundary == "attempt-failed"
	if failing && c.class == action.Verifiable {
		s.trickle = newTrickle(t)
		more = []string{"--trace", s.trickle.path()}
	}
	if !failing && c.class != action.Verifiable {
		s.possible(t)
	}
	at := boundary
	if p.through {
		at = recorded
	}
	victim := s.start(at+":stop", more...)
	if s.trickle != nil {
		s.trickle.shut()
	}
	s.publish()
	victim.awaitFrozen(t)
	if failing {
		s.possible(t)
	}
	var since time.Time // when somebody else may take over
	if e, found := s.entry(); found && p.granted && !p.through {
		since = e.Header.Lease
	} else if p.granted && !p.through {
		t.Error("there is a grant, and no entry")
	}
	var peer *replica
	switch f {
	case killed:
		peer = s.start("")
		since = victim.kill(t)
	case late:
		peer = s.start("")
		if s.settle(); p.inside {
			await(t, "the frozen replica to be ended", victim.dead)
			if !victim.wasKilled() {
				t.Errorf("the victim was not ended: %v\n%s", victim.err, victim.words())
			}
		} else {
			victim.thaw(t)
		}
	case early:
		over := time.NewTimer(time.Until(since.Add(lease / 4)))
		if since.IsZero() {
			over.Reset(lease * 5 / 4)
		}
		<-over.C
		victim.thaw(t)
		peer = s.start("")
	}
	s.settle()
	r := result{boundary: boundary, class: c, fault: f}
	if at, ok := s.begun(peer); ok && !since.IsZero() && !p.through {
		r.takeover = max(at.Sub(since), time.Millisecond) // the journal's resolution
	}
	s.stop()
	r.verdict = s.judge()
	s.check(r)
	s.audit()
	return r
}

// check compares a case with what is allowed.
func (s *scene) check(r result) {
	s.t.Helper()
	p := places[r.boundary]
	if allowed := p.allowed(r.class, r.fault); !slices.Contains(allowed, r.outcome) {
		s.t.Errorf("outcome %q, want one of %q", r.outcome, allowed)
	}
	if least, most := p.effects(r.class, r.fault); r.effects < least || r.effects > most {
		s.t.Errorf("the effect happened %d times, want %d to %d", r.effects, least, most)
	}
	if n := count(s.t, s.afterFile(), s.key("after")); !p.through && n != 1 {
		s.t.Errorf("the step after it happened %d times", n)
	}
	if d := s.decoy; d != nil && d.dead() && d.status.Signal() != unix.SIGTERM {
		s.t.Errorf("the decoy ended by wait status %#x", d.status)
	}
	if r.fault == killed && !p.through && (r.takeover == 0 || r.takeover > s.lease/2) {
		s.t.Errorf("taken over %v after the death (0: never), as if by the lease of %v", r.takeover, s.lease)
	}
	if r.lost+r.doubled > 0 {
		s.t.Errorf("lost %d, doubled %d", r.lost, r.doubled)
	}
}

// atOnce is how many cases run at a time: most of what they do is to wait.
const atOnce = 4

func TestBoundaries(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	st := staging{build.Riposte(t, "riposte_crashpoints"), server.URL, server.Client()}
	var mu sync.Mutex
	results := map[string]result{}
	names := boundaries(t)
	var cases []func()
	for _, f := range []fault{late, early, killed} { // the longest first
		for _, c := range classes {
			for _, boundary := range names {
				host := fmt.Sprintf("b%d", len(cases))
				cases = append(cases, func() {
					t.Run(fmt.Sprintf("%s/%s/%s", boundary, c.name, f), func(t *testing.T) {
						r := st.crash(t, host, boundary, c, f)
						mu.Lock()
						defer mu.Unlock()
						results[boundary+c.name+string(f)] = r
					})
				})
			}
		}
	}
	together(cases)

	for _, f := range faults {
		for _, c := range classes {
			row := table.Row{Group: "crash", Fault: string(f) + ", at each boundary", Class: c.name}
			for _, boundary := range names {
				if r := results[boundary+c.name+string(f)]; r.outcome != "" {
					row = r.into(row)
				}
			}
			if row.Accepted > 0 {
				table.Add(t, row)
			}
		}
	}
	var out strings.Builder
	out.WriteString("\n| boundary | class | " + strings.Join(words(faults), " | ") + " |\n|---|---|" + strings.Repeat("---|", len(faults)) + "\n")
	for _, boundary := range names {
		for _, c := range classes {
			fmt.Fprintf(&out, "| %s | %s |", boundary, c.name)
			for _, f := range faults {
				fmt.Fprintf(&out, " %v |", results[boundary+c.name+string(f)])
			}
			out.WriteString("\n")
		}
	}
	t.Log(out.String())
}

// into adds a case to a row of the table.
func (r result) into(row table.Row) table.Row {
	row.Accepted++
	switch {
	case r.settled:
		row.Settled++
	case r.dead:
		row.Dead++
	default:
		row.Pending++
	}
	row.Unknown += r.unknown
	row.Lost += r.lost
	row.Doubled += r.doubled
	if r.takeover > 0 {
		row.Takeovers = append(row.Takeovers, r.takeover)
	}
	return row
}

func words[T ~string](of []T) (out []string) {
	for _, w := range of {
		out = append(out, string(w))
	}
	return out
}

// together runs cases side by side, a few at a time.
func together(cases []func()) {
	next := make(chan func())
	var workers sync.WaitGroup
	for range atOnce {
		workers.Go(func() {
			for run := range next {
				run()
			}
		})
	}
	for _, c := range cases {
		next <- c
	}
	close(next)
	workers.Wait()
}
