package sensor

import (
	"testing"
	"time"
)

func TestLineage(t *testing.T) {
	now := time.Now()
	shell := &snapshot{pid: 10, start: 1, comm: "sh", seen: now}
	server := &snapshot{pid: 10, start: 1, comm: "nginx", seen: now.Add(time.Second)}
	g := lineage{}
	g.of(shell).program = shell

	g.forked(11, 10, now.Add(time.Millisecond))
	g.execed(10)
	g.of(server).program = server
	if l := g[11]; l.by != 10 || l.forker != shell || !l.sure || l.program != shell {
		t.Errorf("forked by a shell that became a server: %+v", l)
	}
	g.forked(12, 11, now.Add(2*time.Second))
	if l := g[12]; l.by != 11 || l.forker != shell || !l.sure {
		t.Errorf("forked by a copy of that shell: %+v", l)
	}

	// The kernel says late that 10 forked: what it runs was read after that.
	g.forked(13, 10, now)
	if l := g[13]; l.forker != server || l.sure || l.program != nil {
		t.Errorf("what was read after the fork passes for certain: %+v", l)
	}
	g.forked(14, 13, now.Add(time.Hour))
	if l := g[14]; l.forker != nil || l.sure {
		t.Errorf("and an hour later all the more: %+v", l)
	}

	g.execed(10)
	g.forked(15, 10, now.Add(time.Hour))
	if l := g[15]; l.by != 10 || l.forker != nil {
		t.Errorf("forked by a program that was gone before it was read: %+v", l)
	}
	if g.program(11) != nil {
		t.Error("a copy passes for a program of its own")
	}
	g.of(server).program = server
	if g.of(&snapshot{pid: 10, start: 2}).program != nil {
		t.Error("a reused PID inherits a life")
	}
}
