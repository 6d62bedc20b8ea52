package sensor

import "testing"

func TestLineage(t *testing.T) {
	l := newLineage()
	if got := l.exec(7); got != 0 {
		t.Errorf("a process never forked here has parent %d", got)
	}
	l.forked(20, 10)
	if got := l.exec(20); got != 10 {
		t.Errorf("parent of a child: %d", got)
	}
	l.forked(21, 20)
	l.exit(20)
	if got := l.exec(21); got != 20 {
		t.Errorf("a parent that ran its own program and exited is the parent, not %d", got)
	}
	l.forked(31, 10)
	l.forked(32, 31)
	if got := l.exec(32); got != 31 {
		t.Errorf("a parent that lives is the parent, not %d", got)
	}
	l.forked(33, 31)
	l.exit(31)
	if got := l.exec(33); got != 10 {
		t.Errorf("double fork: %d, want the process whose copy the exited parent was", got)
	}
	l.forked(41, 42)
	l.forked(42, 41)
	l.forked(43, 41)
	l.exit(41)
	l.exit(42)
	l.exec(43) // a loop of reused PIDs ends
	l.forget()
	if got := l.exec(21); got != 0 {
		t.Errorf("forgotten, and yet %d", got)
	}
}
