package sensor

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"riposte/test/need"
)

// gate is a FIFO on which a shell waits until it is opened.
func gate(t *testing.T, path string) (open func()) {
	t.Helper()
	if err := unix.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0) // so that the shell waits in read, not in open
	if err != nil {
		t.Fatal(err)
	}
	opened := false
	open = func() {
		if !opened {
			opened = true
			_, _ = f.WriteString("\n")
		}
	}
	t.Cleanup(func() { open(); f.Close() })
	return open
}

// shells is a folder with copies of sh as winword.exe and powershell.exe.
func shells(t *testing.T) string {
	t.Helper()
	sh, err := filepath.EvalSymlinks(need.Binary(t, "sh"))
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	copyProgram(t, sh, filepath.Join(dir, "winword.exe"))
	copyProgram(t, sh, filepath.Join(dir, "powershell.exe"))
	return dir
}

// waiting is a shell script that waits at the gate "go", becomes powershell.exe and waits
// at the gate "end". It writes its PID first.
const waiting = `read pid rest </proc/self/stat; echo $pid >pid; read _ <go; exec ./powershell.exe -c 'read _ <end'`

// A parent that is gone when its child is looked at is still known, even behind a double fork.
func TestProcKnowsAParentThatHasExited(t *testing.T) {
	needInitialNamespace(t)
	for name, script := range map[string]string{
		"fork":        "(" + waiting + ") & true",
		"double fork": "( (" + waiting + ") & true); true",
	} {
		t.Run(name, func(t *testing.T) {
			dir, got := shells(t), newCollector()
			watch(t, Config{Source: SourceProc, Rules: []Rule{
				{ID: "parent", Name: "parent", Level: "LOW", Child: []string{"winword.exe"}},
				{ID: "child", Name: "child", Level: "LOW", Parent: []string{"winword.exe"}, Child: []string{"powershell.exe"}},
			}}, got)
			release := gate(t, filepath.Join(dir, "go"))
			gate(t, filepath.Join(dir, "end"))
			pid, parent := orphan(t, dir, script, func(parent int) { got.about(t, parent, "parent") })
			release()
			a := got.about(t, pid, "child")
			if p := a.Process.Parent; p == nil || p.PID != int64(parent) || p.Name != "winword.exe" {
				t.Errorf("parent %+v, want winword.exe, PID %d", p, parent)
			}
		})
	}
}

// orphan runs winword.exe with a script, once seen has returned, and returns when
// winword.exe has exited. The script writes the PID of what it leaves behind.
func orphan(t *testing.T, dir, script string, seen func(parent int)) (pid, parent int) {
	t.Helper()
	gate(t, filepath.Join(dir, "pid"))
	begin := gate(t, filepath.Join(dir, "begin"))
	pids, err := os.OpenFile(filepath.Join(dir, "pid"), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer pids.Close()
	cmd := exec.Command("./winword.exe", "-c", "read _ <begin; "+script)
	cmd.Dir = dir
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	seen(cmd.Process.Pid)
	begin()
	if err := cmd.Wait(); err != nil {
		t.Fatal(err)
	}
	if _, err := fmt.Fscan(pids, &pid); err != nil {
		t.Fatal(err)
	}
	pidfd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		defer unix.Close(pidfd)
		_ = unix.PidfdSendSignal(pidfd, unix.SIGKILL, nil, 0)
		for { // a pidfd is readable once the process has exited
			n, err := unix.Poll([]unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLIN}}, 20_000)
			if err == unix.EINTR {
				continue
			}
			if n != 1 {
				t.Errorf("process %d outlives its test: %v", pid, err)
			}
			return
		}
	})
	return pid, cmd.Process.Pid
}

// A process that was seen before it became what it is must be looked at again, however
// long ago that was.
func TestPollSeesExecInAnOldProcess(t *testing.T) {
	dir := shells(t)
	release := gate(t, filepath.Join(dir, "go"))
	gate(t, filepath.Join(dir, "end"))
	pid, _ := orphan(t, dir, "("+waiting+") & true", func(int) {})
	p := newPoll(time.Second, slogTo(t))
	look := func() (changed bool) {
		if err := p.look(t.Context(), func(id int) { changed = changed || id == pid }); err != nil {
			t.Fatal(err)
		}
		return changed
	}
	if !look() {
		t.Fatal("not seen at all")
	}
	mark := p.marks[pid]
	mark.since = mark.since.Add(-2 * young)
	p.marks[pid] = mark
	if look() {
		t.Error("nothing changed, and yet it is looked at again")
	}
	release()
	ctx, cancel := testContext(t)
	defer cancel()
	for !look() {
		if ctx.Err() != nil {
			t.Fatal("its exec was not seen")
		}
	}
}

// While a process is young, one that runs another program of the same name is seen too.
func TestPollSeesExecOfTheSameName(t *testing.T) {
	dir, got := shells(t), newCollector()
	watch(t, Config{Source: SourcePoll, PollInterval: 10 * time.Millisecond, Rules: []Rule{
		{ID: "first", Name: "first", Level: "LOW", Child: []string{"powershell.exe"}, Cmdline: []string{"-c read _ <go"}},
		{ID: "second", Name: "second", Level: "LOW", Child: []string{"powershell.exe"}, Cmdline: []string{"-c read _ <end"}},
	}}, got)
	release := gate(t, filepath.Join(dir, "go"))
	end := gate(t, filepath.Join(dir, "end"))
	cmd := exec.Command("./powershell.exe", "-c", `read _ <go; exec ./powershell.exe -c 'read _ <end; true'`)
	cmd.Dir = dir
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		release()
		end()
		if err := cmd.Wait(); err != nil {
			t.Errorf("powershell.exe: %v", err)
		}
	})
	first := got.about(t, cmd.Process.Pid, "first")
	release()
	second := got.about(t, cmd.Process.Pid, "second")
	if first.Process.StartTicks != second.Process.StartTicks || first.ID == second.ID {
		t.Errorf("one process, two rules: %+v, %+v", first, second)
	}
}

// When events were lost, what is there is looked at, and the loss is counted.
func TestProcLooksAtAllProcessesAfterAnOverrun(t *testing.T) {
	needInitialNamespace(t)
	src, err := subscribe(slogTo(t))
	if err != nil {
		t.Fatal(err)
	}
	c := src.(*connector)
	if err := unix.SetsockoptInt(c.socket, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 1); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := testContext(t)
	defer cancel()
	ready, busy, resume := make(chan struct{}), make(chan struct{}), make(chan struct{})
	found := map[int]bool{} // by a scan after ready
	stalled := false
	ended := make(chan error, 1)
	wanted := make(chan int, 1)
	go func() {
		ended <- c.run(ctx, func() { close(ready) }, func(ev event) {
			select {
			case <-ready:
			default:
				return
			}
			if !stalled {
				stalled = true
				close(busy)
				<-resume
			}
			if ev.at.IsZero() {
				found[ev.pid] = true
			}
			select {
			case pid := <-wanted:
				wanted <- pid
				if found[pid] {
					cancel()
				}
			default:
			}
		})
	}()
	<-ready
	runTrue(t)
	<-busy
	for range 50 {
		runTrue(t)
	}
	_, pid := attack(t, decoys(t))
	wanted <- pid
	close(resume)
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	if !found[pid] || c.overruns() == 0 {
		t.Errorf("found after the overrun: %v; overruns: %d", found[pid], c.overruns())
	}
}

func runTrue(t *testing.T) {
	t.Helper()
	if err := exec.Command("true").Run(); err != nil {
		t.Fatal(err)
	}
}
