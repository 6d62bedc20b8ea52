package e2e_test

import (
	"bufio"
	"fmt"
	"os/exec"
	"syscall"
	"testing"
	"time"

	"riposte/stream/proc"
)

// victim is a process that the test started.
type victim struct {
	t    *testing.T
	cmd  *exec.Cmd
	gone <-chan struct{}
	pid  int
}

// sleeper is a process that SIGTERM ends.
func sleeper(t *testing.T) victim {
	t.Helper()
	cmd := exec.Command("sleep", "1000")
	gone := spawn(t, cmd)
	v := victim{t, cmd, gone, cmd.Process.Pid}
	until(t, func() string { return "runs sleep" }, func() bool { return v.stat().Comm == "sleep" })
	return v
}

// stubborn is a process that ignores SIGTERM.
func stubborn(t *testing.T) victim {
	t.Helper()
	cmd := exec.Command("sh", "-c", `trap "" TERM; echo ready; exec sleep 1000`)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	gone := spawn(t, cmd)
	if _, err := bufio.NewReader(out).ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	return victim{t, cmd, gone, cmd.Process.Pid}
}

func (v victim) stat() proc.Stat {
	v.t.Helper()
	st, err := proc.ReadStat(v.pid)
	if err != nil {
		v.t.Fatal(err)
	}
	return st
}

// endedBy waits for the end and says which signal brought it.
func (v victim) endedBy() syscall.Signal {
	v.t.Helper()
	select {
	case <-v.gone:
		return v.cmd.ProcessState.Sys().(syscall.WaitStatus).Signal()
	case <-time.After(patience):
		v.t.Fatalf("PID %d lives on", v.pid)
		return 0
	}
}

// untouched says that nobody has signalled the process: it still ends by the signal that
// it gets now.
func (v victim) untouched() {
	v.t.Helper()
	_ = v.cmd.Process.Signal(syscall.SIGUSR1)
	if sig := v.endedBy(); sig != syscall.SIGUSR1 {
		v.t.Errorf("PID %d was ended by %v", v.pid, sig)
	}
}

// isoformat writes a time as Python's datetime does that knows no zone.
func isoformat(at time.Time) string {
	if at.Nanosecond()/1000 == 0 {
		return at.Format("2006-01-02T15:04:05")
	}
	return at.Format("2006-01-02T15:04:05.000000")
}

// alert is what a simple detector writes about a process.
func (v victim) alert(title string) string {
	return fmt.Sprintf(`{"level":"HIGH","title":%q,"timestamp":%q,"actionable_pid":%d}`, title, isoformat(time.Now()), v.pid)
}
