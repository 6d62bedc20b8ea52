package sensor

// lineage remembers who forked whom, from what the kernel said at the time: a child that
// is looked at a moment later may have been handed to init.
type lineage struct {
	forks *bounded[int, fork]
}

type fork struct {
	parent         int
	execed, exited bool
}

// maxForks is as many as there can be processes by default.
const maxForks = 32768

func newLineage() *lineage { return &lineage{newBounded[int, fork](maxForks)} }

func (l *lineage) forked(child, parent int) { l.forks.put(child, fork{parent: parent}) }

// exec returns whose child a process is that runs a new program, 0 where that is not
// known. A parent that exited without running a program of its own was a copy of the
// process that forked it, which then stands in its place.
func (l *lineage) exec(pid int) (parent int) {
	f, ok := l.forks.get(pid)
	if !ok {
		return 0
	}
	f.execed = true
	l.forks.put(pid, f)
	parent = f.parent
	for range 16 { // a reused PID could close a loop
		up, ok := l.forks.get(parent)
		if !ok || up.execed || !up.exited {
			break
		}
		parent = up.parent
	}
	return parent
}

func (l *lineage) exit(pid int) {
	if f, ok := l.forks.get(pid); ok {
		f.exited = true
		l.forks.put(pid, f)
	}
}

// forget is for when events were lost: a PID may have been reused since.
func (l *lineage) forget() { l.forks.clear() }
