package redisfaults

import (
	"bufio"
	"fmt"
	"os"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"riposte/test/need"
)

// nursery starts decoys and sees them die. A decoy is a shell that waits for input which
// never comes. When the test ends, however it ends, the input does, and so do the decoys.
type nursery struct {
	t      testing.TB
	shell  string
	input  *os.File // what decoys wait for
	hold   *os.File // its other end
	mother *decoy   // leads the process group; no alert names it
	decoys map[int]*decoy
	reaped chan struct{}
}

// decoy is a process for the replicas to end.
type decoy struct {
	pid  int
	name string        // unlike the PID it is never used again
	gone chan struct{} // closed once it is reaped; then:
	exit time.Time     // when that was seen
}

// newNursery starts all decoys of a test. Every third one ignores SIGTERM, so that to end
// it takes the whole grace.
func newNursery(t testing.TB, decoys int) []*decoy {
	n := &nursery{t: t, shell: need.Binary(t, "sh"), decoys: map[int]*decoy{}, reaped: make(chan struct{})}
	var err error
	if n.input, n.hold, err = os.Pipe(); err != nil {
		t.Fatal(err)
	}
	n.mother = n.start(false)
	all := make([]*decoy, decoys)
	for i := range all {
		all[i] = n.start(i%3 == 0)
	}
	go n.reap() // knows them all
	t.Cleanup(func() {
		n.hold.Close()
		<-n.reaped
		n.input.Close()
	})
	return all
}

// start returns when the decoy has made its mind up about SIGTERM.
func (n *nursery) start(stubborn bool) *decoy {
	n.t.Helper()
	ready, say, err := os.Pipe()
	if err != nil {
		n.t.Fatal(err)
	}
	defer ready.Close()
	script := "echo ready; read x"
	if stubborn {
		script = `trap "" TERM; ` + script
	}
	group := 0 // a new one
	if n.mother != nil {
		group = n.mother.pid
	}
	pid, err := syscall.ForkExec(n.shell, []string{"decoy", "-c", script}, &syscall.ProcAttr{
		Files: []uintptr{n.input.Fd(), say.Fd()},
		Sys:   &syscall.SysProcAttr{Setpgid: true, Pgid: group},
	})
	say.Close()
	if err != nil {
		n.t.Fatalf("start a decoy: %v", err)
	}
	if _, err := bufio.NewReader(ready).ReadString('\n'); err != nil {
		n.t.Fatalf("a decoy does not get ready: %v", err)
	}
	d := &decoy{pid: pid, name: fmt.Sprintf("decoy %d", len(n.decoys)), gone: make(chan struct{})}
	n.decoys[pid] = d
	return d
}

// reap sees every decoy exit, at once: one thread waits for the whole process group.
func (n *nursery) reap() {
	defer close(n.reaped)
	for {
		pid, err := unix.Wait4(-n.mother.pid, nil, 0, nil)
		switch {
		case err == unix.EINTR:
		case err != nil: // ECHILD: that was the last
			return
		default:
			d := n.decoys[pid]
			d.exit = time.Now()
			close(d.gone)
		}
	}
}

// dead says whether a decoy is, and since when.
func (d *decoy) dead() (time.Time, bool) {
	select {
	case <-d.gone:
		return d.exit, true
	default:
		return time.Time{}, false
	}
}
