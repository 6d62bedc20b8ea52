package sensor

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
	"unicode"

	"riposte/stream"
)

const (
	// maxFindings is how many (process, rule) pairs are remembered, so that each is
	// published once. What is forgotten and seen again has the same ID.
	maxFindings = 16384

	// Bounds of an alert's fields, in bytes.
	maxNameField    = 256
	maxExeField     = 1024
	maxCmdlineField = 4 << 10
)

// detector looks at processes and turns those that match a rule into alerts. It is used
// by one goroutine; its counters may be read by others.
type detector struct {
	host   stream.Host
	bootID string
	pidNS  uint64
	rules  []*matcher
	emit   func(*stream.Alert)

	lives    lineage
	findings *bounded[finding, struct{}]

	events, matched, vanished atomic.Uint64
}

// finding is one rule matched by one process.
type finding struct {
	pid   int
	start uint64
	rule  *matcher
}

func newDetector(host stream.Host, rules []Rule, emit func(*stream.Alert)) (*detector, error) {
	d := &detector{
		host: host, emit: emit,
		lives: lineage{}, findings: newBounded[finding, struct{}](maxFindings),
	}
	where := map[string]bool{}
	for _, r := range rules {
		m := new(matcher)
		if p := r.compile(m); p != nil {
			return nil, fmt.Errorf("rule %q: %w", r.ID, p)
		}
		if where[r.ID] {
			return nil, fmt.Errorf("rule id %q is there twice", r.ID)
		}
		where[r.ID] = true
		d.rules = append(d.rules, m)
	}
	var err error
	d.bootID, d.pidNS, err = machine()
	return d, err
}

// handle takes what a source saw, in the order in which it happened.
func (d *detector) handle(ev event) {
	switch ev.kind {
	case forked:
		d.lives.forked(ev.pid, ev.parent, ev.at)
	case execed:
		d.lives.execed(ev.pid)
		d.look(ev)
	case found:
		d.look(ev)
	case exited:
		delete(d.lives, ev.pid)
	case lost: // a PID may be another's by now
		clear(d.lives)
	}
}

// look asks the rules about a process. Names come first, because for almost every process
// they say that no rule can match; the rest is read only where one may.
func (d *detector) look(ev event) {
	d.events.Add(1)
	for range 3 {
		child, err := identify(ev.pid)
		if err != nil {
			break
		}
		if child.kernel {
			return
		}
		child.readNames()
		l := d.lives.of(&child)
		if was := d.lives.program(child.pid); was != nil && was.comm == child.comm && was.exe == child.exe {
			child.seen = was.seen
		}
		l.program = &child
		parent := d.parentOf(&child, l)
		candidates := d.candidates(&child, parent)
		if len(candidates) == 0 {
			if child.exited {
				break // it might have matched by what could not be read
			}
			return
		}
		child.readRest()
		// What was read piece by piece must be of one program: between two reads the process
		// may have exec'ed another, and a mixture of the two must not have it killed.
		now, err := identify(ev.pid)
		child.exited = child.exited || err != nil || now.exited
		if err == nil && (now.start != child.start || now.comm != child.comm) {
			continue
		}
		if d.report(ev, &child, parent, l.sure, candidates) || !child.exited {
			return
		}
		break
	}
	if !ev.at.IsZero() { // a scan's processes come and go in peace
		d.vanished.Add(1)
	}
}

// candidates are the rules that may match as far as names go.
func (d *detector) candidates(child, parent *snapshot) []*matcher {
	var found []*matcher
	for _, m := range d.rules {
		if m.byName(child, parent) {
			found = append(found, m)
		}
	}
	return found
}

// parentOf finds what the process that forked the child ran at that time. The process may
// have exited since, and what it runs now may be another program.
func (d *detector) parentOf(child *snapshot, l *life) *snapshot {
	if l.by == 0 {
		l.by = child.ppid
	}
	child.ppid = l.by
	switch {
	case l.forker == nil:
		if l.forker = d.lookUp(child); l.forker != nil {
			started, err := child.startedAt()
			l.sure = err == nil && l.forker.seen.Before(started)
		}
	case l.forker.pid != l.by:
		// A copy of the forker, such as a worker, which never ran a program of its own. Once
		// it is gone, as after a daemon's double fork, the forker stands in its place.
		worker, err := identify(l.by)
		if err != nil || worker.exited || worker.start > child.start {
			break
		}
		if worker.readNames(); worker.exe != l.forker.exe {
			break
		}
		worker.seen = l.forker.seen
		if p := d.lives[l.by]; p != nil && p.program == l.forker {
			p.program = &worker
		}
		l.forker = &worker
	}
	return l.forker
}

// lookUp finds the parent of a process whose fork was not seen.
func (d *detector) lookUp(child *snapshot) *snapshot {
	known := d.lives.program(child.ppid)
	now, err := identify(child.ppid)
	switch {
	case err != nil || now.start > child.start: // gone, its PID perhaps another's by now
		if known != nil && known.start <= child.start {
			return known
		}
		return nil
	case known != nil && known.start == now.start && known.comm == now.comm:
		return known
	}
	now.readNames()
	if !now.exited {
		d.lives.of(&now).program = &now
	}
	return &now
}

// report emits an alert for each rule that matches, once per process, and says whether
// there was one.
func (d *detector) report(ev event, child, parent *snapshot, sure bool, candidates []*matcher) (any bool) {
	for _, m := range candidates {
		if !m.byRest(child) {
			continue
		}
		any = true
		f := finding{child.pid, child.start, m}
		if _, done := d.findings.get(f); done {
			continue
		}
		d.findings.put(f, struct{}{})
		d.matched.Add(1)
		d.emit(d.alert(ev, m, child, parent, sure))
	}
	return any
}

// alert carries the full identity of the process, so that a responder can make sure that
// it acts on this one and no other.
func (d *detector) alert(ev event, m *matcher, child, parent *snapshot, sure bool) *stream.Alert {
	pid := int64(child.pid)
	p := &stream.Process{
		PID: pid, StartTicks: child.startTicks(), BootID: d.bootID, PIDNS: d.pidNS,
		Name: clip(child.name, maxNameField), Exe: clip(child.exe, maxExeField),
		Cmdline: clip(child.cmdline, maxCmdlineField),
	}
	if child.uid >= 0 {
		p.UID = &child.uid
	}
	by := "an unknown process"
	if parent != nil {
		p.Parent = &stream.Parent{
			PID: int64(parent.pid), StartTicks: parent.startTicks(),
			Name: clip(parent.name, maxNameField), Exe: clip(parent.exe, maxExeField),
		}
		by = fmt.Sprintf("%s (PID %d)", printable(p.Parent.Name), parent.pid)
	}
	at := ev.at
	if at.IsZero() {
		var err error
		if at, err = child.startedAt(); err != nil {
			at = time.Now()
		}
	}
	level, why := m.Level, m.Description
	if !sure && m.onParentAlone(child) && slices.Index(levels, level) > slices.Index(levels, doubtful) {
		level = doubtful
		why = strings.TrimSpace(why + " Not " + m.Level + ", because the parent may have been another program when it forked.")
	}
	return &stream.Alert{
		ID: stream.DeriveID("sensor", string(d.host), d.bootID,
			strconv.Itoa(child.pid), strconv.FormatUint(child.start, 10), m.ID),
		Host: string(d.host), Source: "riposte-sensor",
		Level: level, Title: m.Name,
		Description:   strings.TrimSpace(fmt.Sprintf("%s started %s (PID %d). %s", by, printable(p.Name), pid, why)),
		Timestamp:     at.Format("2006-01-02T15:04:05.000000Z07:00"),
		ActionablePID: &pid,
		Rule:          stream.Rule{ID: m.ID, Name: m.Name, Author: m.Author, Tags: m.Tags},
		Process:       p,
	}
}

// clip bounds a text that a stranger chose.
func clip(s string, max int) string {
	return strings.ToValidUTF8(s[:min(len(s), max)], "\uFFFD")
}

// printable keeps a name from moving the cursor of whoever reads it.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}, s)
}
