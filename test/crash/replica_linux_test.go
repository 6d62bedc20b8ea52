package crash

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

// patience is for what takes a moment, on a machine that has much else to do.
const patience = 30 * time.Second

// replica is a responder as a process of its own.
type replica struct {
	pid, pidfd int
	log        string        // file
	done       chan struct{} // closed when it has been reaped; then:
	err        error

	mu        sync.Mutex
	killed    bool // by this test
	still     bool // frozen, and not thawed by this test
	lastAlive time.Time
}

// launch starts a process that the kernel kills when the test dies.
func launch(t testing.TB, dir, crash, binary string, args ...string) *replica {
	t.Helper()
	r := &replica{done: make(chan struct{}), lastAlive: time.Now()}
	cmd := exec.Command(binary, args...)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH")} // no RIPOSTE_ variable of whoever runs the test
	if crash != "" {
		cmd.Env = append(cmd.Env, "RIPOSTE_CRASH="+crash)
	}
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
			for r.look() {
				awaitExit(r.pidfd, 10)
			}
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
		_ = unix.Close(r.pidfd)
	})
	return r
}

// look sees whether the replica is there, and notes when it was alive. One that was sent
// SIGKILL is there for a moment, and does nothing any more.
func (r *replica) look() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := time.Now()
	if r.killed || awaitExit(r.pidfd, 0) {
		return false
	}
	if !r.still || r.frozen() {
		r.lastAlive = now
	}
	return true
}

func awaitExit(pidfd, ms int) bool {
	fds := []unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLIN}}
	n, err := unix.Poll(fds, ms)
	return err == nil && n > 0
}

func (r *replica) signal(sig unix.Signal) error { return unix.PidfdSendSignal(r.pidfd, sig, nil, 0) }

// kill kills the replica and returns when that was.
func (r *replica) kill(t testing.TB) time.Time {
	t.Helper()
	r.mu.Lock()
	now := time.Now()
	if r.killed = r.signal(unix.SIGKILL) == nil; r.killed {
		r.lastAlive = now
	}
	r.mu.Unlock()
	await(t, "a killed replica to be gone", r.dead)
	if !r.killed || !r.wasKilled() {
		t.Errorf("the victim was not killed: %v\n%s", r.err, r.words())
	}
	return now
}

// wasKilled says of a dead replica that it died of SIGKILL.
func (r *replica) wasKilled() bool {
	var exit *exec.ExitError
	if e, ok := r.err.(*exec.ExitError); ok {
		exit = e
	}
	return exit != nil && exit.Sys().(syscall.WaitStatus).Signal() == syscall.SIGKILL
}

func (r *replica) dead() bool {
	select {
	case <-r.done:
		return true
	default:
		return false
	}
}

func (r *replica) frozen() bool {
	st, err := proc.ReadStat(r.pid)
	return err == nil && st.State == 'T'
}

// awaitFrozen waits until the replica has frozen itself at a boundary.
func (r *replica) awaitFrozen(t testing.TB) {
	t.Helper()
	await(t, "the victim to freeze", func() bool { return r.frozen() || r.dead() })
	if r.dead() {
		t.Fatalf("the victim died instead of freezing: %v\n%s", r.err, r.words())
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.still = true
}

// thaw wakes the replica, which must have been frozen all the time.
func (r *replica) thaw(t testing.TB) {
	t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.frozen() {
		t.Errorf("the victim is not frozen any more\n%s", r.words())
	}
	r.still = r.signal(unix.SIGCONT) != nil
}

// stop ends the replica in good order.
func (r *replica) stop(t testing.TB) {
	t.Helper()
	_ = r.signal(unix.SIGTERM)
	await(t, "a replica to stop", r.dead)
	if r.err != nil {
		t.Errorf("a replica did not stop in good order: %v\n%s", r.err, r.words())
	}
}

// name is its consumer name, which it logs before it does anything; empty until then.
func (r *replica) name() string {
	_, after, _ := strings.Cut(r.said(), " replica=")
	name, _, whole := strings.Cut(after, " ")
	if !whole {
		return ""
	}
	return name
}

func (r *replica) ready() bool { return strings.Contains(r.said(), `"responder is ready"`) }

func (r *replica) said() string {
	raw, err := os.ReadFile(r.log)
	if err != nil {
		return err.Error()
	}
	return string(raw)
}

// words are the last lines of its log.
func (r *replica) words() string {
	lines := strings.Split(r.said(), "\n")
	return filepath.Base(r.log) + ":\n" + strings.Join(lines[max(0, len(lines)-20):], "\n")
}

// await waits until something is true.
func await(t testing.TB, what string, is func() bool) {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(patience); !is(); <-tick.C {
		if time.Now().After(deadline) {
			t.Fatalf("waited %v for %s", patience, what)
		}
	}
}
