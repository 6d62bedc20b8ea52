package sensor

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"riposte/stream"
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

// shells is a folder with copies of sh as winword.exe, powershell.exe, nginx and helper.
func shells(t *testing.T) string {
	t.Helper()
	sh, err := filepath.EvalSymlinks(need.Binary(t, "sh"))
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for _, name := range []string{"winword.exe", "powershell.exe", "nginx", "helper"} {
		copyProgram(t, sh, filepath.Join(dir, name))
	}
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
	endWithTest(t, pid)
	return pid, cmd.Process.Pid
}

// endWithTest kills a process that is no child of this one when the test ends.
func endWithTest(t *testing.T, pid int) {
	t.Helper()
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
}

// A script that leaves a helper behind and then becomes a server is not a server that
// started the helper, not even when the helper runs its program last.
func TestProcKnowsWhatTheParentWas(t *testing.T) {
	needInitialNamespace(t)
	dir, got := shells(t), newCollector()
	watch(t, Config{Source: SourceProc, Rules: []Rule{
		{ID: "script", Name: "script", Level: "LOW", Child: []string{"winword.exe"}},
		{ID: "server", Name: "server", Level: "LOW", Child: []string{"nginx"}},
		{ID: "attack", Name: "attack", Level: "HIGH", Parent: []string{"nginx"}},
		{ID: "peace", Name: "peace", Level: "HIGH", Parent: []string{"winword.exe"}, Child: []string{"powershell.exe"}},
	}}, got)
	begin := gate(t, filepath.Join(dir, "begin"))
	release := gate(t, filepath.Join(dir, "go"))
	gate(t, filepath.Join(dir, "end"))
	stop := gate(t, filepath.Join(dir, "stop"))
	cmd := exec.Command("./winword.exe", "-c", "read _ <begin; ("+strings.ReplaceAll(waiting, ">pid", "")+") & exec ./nginx -c 'read _ <stop'")
	cmd.Dir = dir
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		begin()
		stop()
		if err := cmd.Wait(); err != nil {
			t.Errorf("nginx: %v", err)
		}
	})
	got.about(t, cmd.Process.Pid, "script")
	begin()
	var helper int
	if _, err := fmt.Fscan(out, &helper); err != nil {
		t.Fatal(err)
	}
	endWithTest(t, helper)
	got.about(t, cmd.Process.Pid, "server")
	release()
	if a := got.about(t, helper, "peace"); a.Level != "HIGH" || a.Process.Parent.PID != int64(cmd.Process.Pid) {
		t.Errorf("%s, started by %+v", a.Level, a.Process.Parent)
	}
	for _, a := range got.all() {
		if a.Rule.ID == "attack" {
			t.Errorf("%s", a.Description)
		}
	}
}

// Where nobody saw the fork, what /proc says of the parent is no reason to kill, unless it
// said so before.
func TestParentKnownTooLateIsDoubtful(t *testing.T) {
	dir := shells(t)
	gate(t, filepath.Join(dir, "end"))
	for _, c := range []struct {
		child   string
		cmdline []string
		before  bool // the server was seen before it forked
		want    string
	}{
		{"helper", nil, false, "MEDIUM"},
		{"helper", nil, true, "HIGH"},
		{"helper", []string{"read"}, false, "HIGH"},
		{"powershell.exe", nil, false, "HIGH"},
	} {
		server := exec.Command("./nginx", "-c", "./"+c.child+" -c 'echo $$; read _ <end'; true")
		server.Dir = dir
		out, err := server.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := server.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = server.Wait() })
		var pid int
		if _, err := fmt.Fscan(out, &pid); err != nil {
			t.Fatal(err)
		}
		endWithTest(t, pid)

		var got []string
		d, err := newDetector("h1", []Rule{{ID: "x", Name: "x", Level: "HIGH", Parent: []string{"nginx"}, Child: []string{c.child}, Cmdline: c.cmdline}},
			func(a *stream.Alert) { got = append(got, a.Level) })
		if err != nil {
			t.Fatal(err)
		}
		d.handle(event{pid: server.Process.Pid})
		if c.before {
			was := d.lives.program(server.Process.Pid)
			was.seen = was.seen.Add(-time.Minute)
		}
		d.handle(event{pid: server.Process.Pid}) // seen again, it is no younger
		d.handle(event{pid: pid})
		if len(got) != 1 || got[0] != c.want {
			t.Errorf("%+v: alerts %q", c, got)
		}
	}
}

// What poll has seen go is forgotten.
func TestPollSaysWhatIsGone(t *testing.T) {
	cmd := exec.Command(need.Binary(t, "cat"))
	hold, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	d, p := quiet(t, nil), newPoll(time.Second, slogTo(t))
	look := func() (known bool) {
		if err := p.look(t.Context(), time.Now(), d.handle); err != nil {
			t.Fatal(err)
		}
		return d.lives[cmd.Process.Pid] != nil
	}
	if !look() {
		t.Error("not seen at all")
	}
	_ = hold.Close()
	if err := cmd.Wait(); err != nil {
		t.Fatal(err)
	}
	if look() {
		t.Error("it is gone and not forgotten")
	}
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
		if err := p.look(t.Context(), time.Now(), func(ev event) { changed = changed || ev.pid == pid }); err != nil {
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
	scanned := map[int]bool{} // by a scan after ready
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
			if ev.kind == found && ev.at.IsZero() {
				scanned[ev.pid] = true
			}
			select {
			case pid := <-wanted:
				wanted <- pid
				if scanned[pid] {
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
	if !scanned[pid] || c.overruns() == 0 {
		t.Errorf("found after the overrun: %v; overruns: %d", scanned[pid], c.overruns())
	}
}

func runTrue(t *testing.T) {
	t.Helper()
	if err := exec.Command("true").Run(); err != nil {
		t.Fatal(err)
	}
}
