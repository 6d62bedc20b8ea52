package action

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Probe implements Effect. Whether a script has run cannot be seen; whether there is one
// can, so that an operator who observes learns of it in time.
func (s *RunScript) Probe(ctx context.Context, env Env) (Receipt, bool, error) {
	if err := s.check(); err != nil {
		return Receipt{}, false, err
	}
	_, err := exec.LookPath(s.program())
	return Receipt{}, false, err
}

// run starts the script in a process group of its own and waits for its end or ctx's.
// Either way the whole group is then killed: what is left running of an effect that has an
// outcome would be running unseen. The kernel kills the script, too, if this process dies;
// it does so when the *thread* that started it exits, so the goroutine keeps its thread.
func (s *RunScript) run(ctx context.Context, input []byte, environ []string, locks []*os.File) (Receipt, error) {
	if err := ctx.Err(); err != nil {
		return Receipt{}, fmt.Errorf("%s: not started: %w", s.Describe(), context.Cause(ctx))
	}
	var output tail
	cmd := exec.Command(s.Argv[0], s.Argv[1:]...)
	cmd.Dir, cmd.Env = "/", environ
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(input), &output, &output
	cmd.WaitDelay = time.Second // for whoever left the group and keeps the output open
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	cmd.ExtraFiles = locks
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	begun := time.Now()
	if err := cmd.Start(); err != nil { // also reports that the child could not exec
		return Receipt{Failed, fmt.Sprintf("not started: %v", err)}, nil
	}
	ended := make(chan struct{})
	go func() {
		awaitExit(cmd.Process.Pid)
		close(ended)
	}()
	cut := false
	select {
	case <-ended:
	case <-ctx.Done():
		cut = true
	}
	// It is not reaped yet: the number is still its own, and its group's.
	killed := unix.Kill(-cmd.Process.Pid, unix.SIGKILL)
	<-ended
	err := cmd.Wait()
	took := time.Since(begun).Round(time.Millisecond)
	state := cmd.ProcessState
	switch {
	case (state == nil || !state.Exited()) && cut:
		return Receipt{}, fmt.Errorf("%s: killed with its process group after %s: %w%s", s.Describe(), took, errors.Join(context.Cause(ctx), killed), output.said())
	case state == nil || !state.Exited():
		return Receipt{}, fmt.Errorf("%s: ended by somebody else after %s: %w%s", s.Describe(), took, err, output.said())
	case state.ExitCode() != 0:
		return Receipt{Failed, fmt.Sprintf("exit %d after %s%s", state.ExitCode(), took, output.said())}, nil
	}
	return Receipt{Ran, fmt.Sprintf("exit 0 after %s%s", took, output.said())}, nil
}

// awaitExit returns when a child has ended, and leaves it to be reaped.
func awaitExit(pid int) {
	for unix.Waitid(unix.P_PID, pid, nil, unix.WEXITED|unix.WNOWAIT, nil) == unix.EINTR {
	}
}

const (
	maxOutput = 4096 // bytes kept of what a script writes
	maxSaid   = 1500 // bytes of an outcome's reason that they may take, quoted
)

// tail keeps the end of what is written to it.
type tail struct {
	kept []byte
	cut  bool
}

// Write implements io.Writer. It takes everything, so that the writer never waits.
func (t *tail) Write(p []byte) (int, error) {
	t.kept = append(t.kept, p[max(0, len(p)-maxOutput):]...)
	if over := len(t.kept) - maxOutput; over > 0 || len(p) > maxOutput {
		t.kept, t.cut = append(t.kept[:0], t.kept[max(0, over):]...), true
	}
	return len(p), nil
}

// said is the output as part of a reason: quoted, so that it is one printable line.
func (t *tail) said() string {
	text, cut := bytes.TrimSpace(t.kept), t.cut
	for len(strconv.Quote(string(text))) > maxSaid {
		text, cut = text[len(text)/8+1:], true
	}
	switch {
	case len(text) == 0:
		return ""
	case cut:
		return "; its output ends in " + strconv.Quote(string(text))
	}
	return "; its output: " + strconv.Quote(string(text))
}
