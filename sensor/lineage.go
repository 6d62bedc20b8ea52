package sensor

import "time"

// lineage is what is remembered of the processes that live, by PID: what each runs, and
// what its parent ran when it forked it.
type lineage map[int]*life

// life is what is remembered of one process. Snapshots are replaced, never changed, so one
// that is kept here stays what it was.
type life struct {
	// program is what the process runs; before its first exec that is what its parent ran,
	// whose copy it is. nil: not known.
	program *snapshot
	// by is who forked it, 0 where that is not known yet, and forker is what that one ran.
	by     int
	forker *snapshot
	// sure says that forker was read before the fork. What is read later may be what the
	// parent became after it: a script leaves a helper behind and then becomes a server.
	sure bool
}

// of is the life of the process in a snapshot: a new one where the PID was another's.
func (g lineage) of(s *snapshot) *life {
	l := g[s.pid]
	if l == nil || l.program != nil && l.program.pid == s.pid && l.program.start != s.start {
		l = new(life)
		g[s.pid] = l
	}
	return l
}

// forked begins a life.
func (g lineage) forked(child, parent int, at time.Time) {
	l := &life{by: parent}
	if p := g[parent]; p != nil && p.program != nil {
		l.forker = p.program
		l.sure = l.forker.seen.Before(at)
	}
	if l.sure { // or what is doubtful once would seem certain to its children
		l.program = l.forker
	}
	g[child] = l
}

// execed is for a program whose snapshot is yet to be made, and may come to nothing.
func (g lineage) execed(pid int) {
	if l := g[pid]; l != nil {
		l.program = nil
	}
}

// program is what a process itself was seen to run, nil where it was not.
func (g lineage) program(pid int) *snapshot {
	if l := g[pid]; l != nil && l.program != nil && l.program.pid == pid {
		return l.program
	}
	return nil
}
