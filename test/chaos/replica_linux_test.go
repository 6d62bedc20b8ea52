package chaos

import (
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"riposte/stream/proc"
)

// replica is a responder as a process of its own.
type replica struct {
	pid   int
	pidfd int
	log   string        // file
	known string        // name, once it was found there
	done  chan struct{} // closed when it has been reaped; then:
	err   error

	mu        sync.Mutex
	killed    bool // by this test
	frozen    bool
	until     time.Time // when it is to be thawed, or was
	lastAlive time.Time
}

// startReplica starts a process that the kernel kills when the test dies.
func startReplica(t testing.TB, dir, binary string, args ...string) *replica {
	t.Helper()
	r := &replica{done: make(chan struct{})}
	cmd := exec.Command(binary, args...)
	cmd.Env = []string{} // no RIPOSTE_ variable of whoever runs the test
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, PidFD: &r.pidfd}
	output, err := os.CreateTemp(dir, "replica-*.log")
	if err != nil {
		t.Fatal(err)
	}
	defer output.Close()
	cmd.Stdout, cmd.Stderr, r.log = output, output, output.Name()

	started := make(chan error)
	go func() {
		defer close(r.done)
		// The kernel ties a child's life to the thread that started it, not to the process.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			r.watch()
			r.err = cmd.Wait()
		}
	}()
	if err := <-started; err != nil {
		t.Fatalf("start a replica: %v", err)
	}
	r.pid = cmd.Process.Pid
	t.Cleanup(func() {
		_ = r.signal(unix.SIGKILL)
		<-r.done
		r.release()
	})
	return r
}

// release lets go of the process, which is dead: an hour has thousands of them.
func (r *replica) release() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.pidfd >= 0 {
		_ = unix.Close(r.pidfd)
		r.pidfd = -1
	}
}

// watch sees the replica alive every few milliseconds until it exits.
func (r *replica) watch() {
	const glance = 10 // ms
	for !exited(r.pidfd, glance) {
		r.mu.Lock()
		r.look()
		r.mu.Unlock()
	}
}

// look sees whether the replica is alive, which is more than that it has not exited yet:
// one that was sent SIGKILL does nothing any more, and has let go of its locks some time
// before its parent can see it dead.
func (r *replica) look() bool {
	now := time.Now()
	switch {
	case r.killed || exited(r.pidfd, 0):
		return false
	case r.frozen: // and perhaps ended by a peer
		if st, err := proc.ReadStat(r.pid); err != nil || st.State != 'T' {
			return false
		}
	}
	r.lastAlive = now
	return true
}

func exited(pidfd, ms int) bool {
	fds := []unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLIN}}
	n, err := unix.Poll(fds, ms)
	return err == nil && n > 0
}

func (r *replica) signal(sig unix.Signal) error { return unix.PidfdSendSignal(r.pidfd, sig, nil, 0) }

// kill kills the replica, unless it is dead.
func (r *replica) kill() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.killed = r.look() && r.signal(unix.SIGKILL) == nil
}

// freeze stops the replica for a while, unless it is dead.
func (r *replica) freeze(pause time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.frozen = r.look() && r.signal(unix.SIGSTOP) == nil
	r.until = time.Now().Add(pause)
}

func (r *replica) thaw() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.dead() { // one that died frozen stays so: that is how it died
		r.frozen = r.signal(unix.SIGCONT) != nil
		r.until = time.Now()
	}
}

// stuck says that the replica, which is dead, was frozen when it died or just before, so
// that a peer may have ended it which waited for it at the gate.
func (r *replica) stuck() bool { return r.frozen || r.lastAlive.Sub(r.until).Abs() < time.Second }

func (r *replica) dead() bool {
	select {
	case <-r.done:
		return true
	default:
		return false
	}
}

// name is its consumer name, HOST-PID-RANDOM, which it logs before it does anything;
// empty until then.
func (r *replica) name() string {
	if r.known == "" {
		raw, _ := os.ReadFile(r.log)
		_, after, _ := strings.Cut(string(raw), " replica=")
		if name, _, whole := strings.Cut(after, " "); whole {
			r.known = name
		}
	}
	return r.known
}

// ready says whether it has come so far as to work, for which it needs Redis.
func (r *replica) ready() bool {
	raw, _ := os.ReadFile(r.log)
	return strings.Contains(string(raw), "responder is ready")
}

// gaveUp says of a dead replica that it ended as a program does that cannot go on, and in
// no worse way.
func (r *replica) gaveUp() bool {
	raw, err := os.ReadFile(r.log)
	exit, ok := r.err.(*exec.ExitError)
	return err == nil && ok && exit.ExitCode() == 1 && !strings.Contains(string(raw), "panic:") && !strings.Contains(string(raw), "DATA RACE")
}

// words are the last lines of its log.
func (r *replica) words() string {
	raw, err := os.ReadFile(r.log)
	if err != nil {
		return err.Error()
	}
	lines := strings.Split(string(raw), "\n")
	return filepath.Base(r.log) + ":\n" + strings.Join(lines[max(0, len(lines)-20):], "\n")
}
