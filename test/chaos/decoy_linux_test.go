package chaos

import (
	"bufio"
	"fmt"
	"os"
	"strconv"
	"sync"
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
	ready  *os.File // where decoys say that they are ready
	mother *decoy   // leads the process group, and is harmless: nobody may touch it
	reaped chan struct{}

	mu     sync.Mutex
	all    []*decoy
	decoys map[int]*decoy // by PID; of one PID the newest
}

// decoy is a process for the replicas to end.
type decoy struct {
	pid      int
	name     string // unlike the PID it is never used again
	stubborn bool   // ignores SIGTERM
	ready    chan struct{}
	gone     chan struct{} // closed once it is reaped; then:
	exit     time.Time     // when that was seen
	status   unix.WaitStatus
}

func newNursery(t testing.TB) *nursery {
	n := &nursery{t: t, shell: need.Binary(t, "sh"), reaped: make(chan struct{}), decoys: map[int]*decoy{}}
	var announced *os.File
	var err error
	if n.input, n.hold, err = os.Pipe(); err != nil {
		t.Fatal(err)
	}
	if announced, n.ready, err = os.Pipe(); err != nil {
		t.Fatal(err)
	}
	go n.listen(announced)
	n.mother = n.start(false)
	go n.reap()
	t.Cleanup(n.close)
	return n
}

// start starts a decoy. Its channel ready is closed once it has made its mind up about
// SIGTERM.
func (n *nursery) start(stubborn bool) *decoy {
	n.t.Helper()
	d := &decoy{stubborn: stubborn, ready: make(chan struct{}), gone: make(chan struct{})}
	script := "echo $$; read x"
	if stubborn {
		script = `trap "" TERM; ` + script
	}
	group := 0 // a new one
	if n.mother != nil {
		group = n.mother.pid
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	pid, err := syscall.ForkExec(n.shell, []string{"decoy", "-c", script}, &syscall.ProcAttr{
		Files: []uintptr{n.input.Fd(), n.ready.Fd()},
		Sys:   &syscall.SysProcAttr{Setpgid: true, Pgid: group},
	})
	if err != nil {
		n.t.Fatalf("start a decoy: %v", err)
	}
	d.pid, d.name = pid, fmt.Sprintf("decoy %d", len(n.all))
	n.all = append(n.all, d)
	n.decoys[pid] = d
	return d
}

func (n *nursery) find(pid int) *decoy {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.decoys[pid]
}

// listen hears from decoys that they are ready.
func (n *nursery) listen(announced *os.File) {
	defer announced.Close()
	for lines := bufio.NewScanner(announced); lines.Scan(); {
		if pid, err := strconv.Atoi(lines.Text()); err == nil {
			close(n.find(pid).ready)
		}
	}
}

// reap sees every decoy exit, at once: one thread waits for the whole process group.
func (n *nursery) reap() {
	defer close(n.reaped)
	for {
		var status unix.WaitStatus
		pid, err := unix.Wait4(-n.mother.pid, &status, 0, nil)
		switch {
		case err == unix.EINTR:
			continue
		case err != nil: // ECHILD: that was the last
			return
		}
		d := n.find(pid)
		d.exit, d.status = time.Now(), status
		close(d.gone)
	}
}

func (n *nursery) close() {
	n.hold.Close()
	n.ready.Close()
	<-n.reaped
	n.input.Close()
}
