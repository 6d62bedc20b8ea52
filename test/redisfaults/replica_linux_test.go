package redisfaults

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"
)

// replica is one responder process.
type replica struct {
	log  string // file with its output
	cmd  *exec.Cmd
	done chan struct{} // closed once it is reaped; then:
	err  error
	exit time.Time
}

// startReplica starts a process that the kernel kills when the test dies.
func startReplica(t testing.TB, dir, binary string, args ...string) *replica {
	t.Helper()
	output, err := os.CreateTemp(dir, "replica-*.log")
	if err != nil {
		t.Fatal(err)
	}
	defer output.Close()
	r := &replica{log: output.Name(), cmd: exec.Command(binary, args...), done: make(chan struct{})}
	r.cmd.Env = []string{"PATH=" + os.Getenv("PATH")} // no RIPOSTE_ variable of whoever runs the test
	r.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	r.cmd.Stdout, r.cmd.Stderr = output, output

	started := make(chan error)
	go func() {
		defer close(r.done)
		// The kernel ties a child's life to the thread that started it, not to the process.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := r.cmd.Start()
		started <- err
		if err == nil {
			r.err = r.cmd.Wait()
			r.exit = time.Now()
		}
	}()
	if err := <-started; err != nil {
		t.Fatalf("start a replica: %v", err)
	}
	t.Cleanup(func() {
		_ = r.cmd.Process.Kill()
		<-r.done
	})
	return r
}

func (r *replica) dead() bool {
	select {
	case <-r.done:
		return true
	default:
		return false
	}
}

// said is how many lines of the replica's log contain some words.
func (r *replica) said(words string) (n int) {
	raw, _ := os.ReadFile(r.log)
	for line := range bytes.Lines(raw) {
		if bytes.Contains(line, []byte(words)) {
			n++
		}
	}
	return n
}

// name is its consumer name, HOST-PID-RANDOM, which it logs before it does anything.
func (r *replica) name() string {
	raw, _ := os.ReadFile(r.log)
	_, after, _ := strings.Cut(string(raw), " replica=")
	name, _, _ := strings.Cut(after, " ")
	return name
}

// words are the last lines of its log.
func (r *replica) words() string {
	raw, err := os.ReadFile(r.log)
	if err != nil {
		return err.Error()
	}
	lines := strings.Split(strings.TrimSpace(string(raw)), "\n")
	return fmt.Sprintf("%s:\n%s", filepath.Base(r.log), strings.Join(lines[max(0, len(lines)-15):], "\n"))
}
