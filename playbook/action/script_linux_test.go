package action

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"riposte/stream"
	"riposte/test/need"
)

// script writes a shell script and returns a run of it, about an alert.
func script(t *testing.T, text string, alert *stream.Alert) *RunScript {
	t.Helper()
	need.Binary(t, "sh")
	path := filepath.Join(t.TempDir(), "script")
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"+text), 0o700); err != nil {
		t.Fatal(err)
	}
	return (&ScriptSpec{Argv: []string{path, "$(id)", "a b"}}).Resolve(alert, Seen{}).(*RunScript)
}

func scriptEnv(locks ...*os.File) Env {
	return Env{Key: "h1/containment/a-1/book/step", AlertID: "a-1", Locks: locks}
}

func TestScriptRuns(t *testing.T) {
	t.Setenv("SECRET", "hunter2")
	t.Setenv("LD_PRELOAD", "/nonexistent.so")
	dir := t.TempDir()
	lock, err := os.Create(filepath.Join(dir, "lock"))
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	pid := int64(4711)
	s := script(t, `cd "$OUT" && cat >stdin && env >env && readlink /proc/self/fd/3 >lock-of && ps -o pgid= -p $$ >pgid; echo $$ >pid
printf '%s|' "$@" >argv; echo fine; echo warned >&2`, &stream.Alert{
		Title: "偵測\nLD_PRELOAD=/tmp/x.so\x00end", Level: strings.Repeat("x", 1<<20), ActionablePID: &pid, SourceIP: "$(touch /tmp/no)",
		Process: &stream.Process{PID: pid, StartTicks: 9, Exe: "/tmp/a b"},
	})
	s.Env = map[string]string{"OUT": dir}
	if r, inPlace, err := s.Probe(t.Context(), scriptEnv(lock)); err != nil || inPlace || r != (Receipt{}) {
		t.Error(r, inPlace, err)
	}
	r, err := s.Apply(t.Context(), scriptEnv(lock))
	if err != nil || r.Outcome != Ran || !strings.HasPrefix(r.Reason, "exit 0 after ") || !strings.HasSuffix(r.Reason, `; its output: "fine\nwarned"`) {
		t.Fatal(r, err)
	}
	read := func(name string) string {
		raw, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		return string(raw)
	}
	if got := read("argv"); got != "$(id)|a b|" {
		t.Errorf("argv %q", got)
	}
	if got := strings.TrimSpace(read("lock-of")); got != lock.Name() {
		t.Errorf("descriptor 3 is %s", got)
	}
	if group, own := strings.TrimSpace(read("pgid")), strings.TrimSpace(read("pid")); group != own {
		t.Errorf("PID %s in process group %s", own, group)
	}
	if _, err := os.Stat("/proc/" + strings.TrimSpace(read("pid"))); err == nil {
		t.Error("a zombie is left")
	}
	env := "\n" + read("env")
	for _, want := range []string{
		"\nLC_ALL=C\n", "\nPATH=" + os.Getenv("PATH") + "\n", "\nOUT=" + dir + "\n",
		"\nRIPOSTE_STEP_KEY=h1/containment/a-1/book/step\n", "\nRIPOSTE_ALERT_ID=a-1\n", "\nRIPOSTE_ALERT_HOST=h1\n", "\nRIPOSTE_ALERT_PID=4711\n",
		"\nRIPOSTE_ALERT_TITLE=偵測" + `\u000aLD_PRELOAD=/tmp/x.so\u0000end` + "\n", "\nRIPOSTE_ALERT_SOURCE_IP=$(touch /tmp/no)\n", "\nRIPOSTE_ALERT_EXE=/tmp/a b\n",
		"\nRIPOSTE_ALERT_LEVEL=" + strings.Repeat("x", maxField) + "...\n",
	} {
		if !strings.Contains(env, want) {
			t.Errorf("no %q in %s", want, env)
		}
	}
	if strings.Contains(env, "hunter2") || strings.Contains(env, "\nLD_PRELOAD") {
		t.Error(env)
	}
	var about map[string]any
	if err := json.Unmarshal([]byte(read("stdin")), &about); err != nil || about["title"] != "偵測\nLD_PRELOAD=/tmp/x.so\x00end" ||
		about["key"] != "h1/containment/a-1/book/step" || about["id"] != "a-1" || about["host"] != "h1" || about["process"].(map[string]any)["start_ticks"] != 9.0 {
		t.Errorf("%v: %s", err, read("stdin"))
	}
}

// TestScriptVerdicts holds each way to end to its outcome: an error becomes unknown.
func TestScriptVerdicts(t *testing.T) {
	dir := t.TempDir()
	for name, content := range map[string]string{"not-executable": "#!/bin/sh\n", "no-interpreter": "#!/nonexistent\n", "no-format": "\x00\x01"} {
		mode := os.FileMode(0o700)
		if name == "not-executable" {
			mode = 0o600
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), mode); err != nil {
			t.Fatal(err)
		}
	}
	huge := `i=0; while [ $i -lt 2000 ]; do echo "line $i of much output"; i=$((i+1)); done`
	for name, c := range map[string]struct {
		script *RunScript
		want   Outcome // empty: an error
		reason string
	}{
		"exit 3":         {script(t, `printf '\033[2Jno\n' >&2; exit 3`, &stream.Alert{}), Failed, `its output: "\x1b[2Jno"`},
		"silent":         {script(t, ``, &stream.Alert{}), Ran, "exit 0 after "},
		"much output":    {script(t, huge, &stream.Alert{}), Ran, `line 1999 of much output"`},
		"hostile output": {script(t, `head -c 100000 /dev/zero`, &stream.Alert{}), Ran, `\x00"`},
		"kills itself":   {script(t, `echo before; kill -SEGV $$`, &stream.Alert{}), "", `segmentation fault`},
		"absent":         {&RunScript{Argv: []string{dir + "/absent"}}, Failed, "not started: "},
		"not executable": {&RunScript{Argv: []string{dir + "/not-executable"}}, Failed, "not started: "},
		"no interpreter": {&RunScript{Argv: []string{dir + "/no-interpreter"}}, Failed, "not started: "},
		"no format":      {&RunScript{Argv: []string{dir + "/no-format"}}, Failed, "exec format error"},
		"a folder":       {&RunScript{Argv: []string{dir}}, Failed, "not started: "},
		"relative":       {&RunScript{Argv: []string{"true"}}, "", "refused: argv"},
		"nothing":        {&RunScript{}, "", "refused: argv"},
	} {
		r, err := c.script.Apply(t.Context(), scriptEnv())
		said := r.Reason
		if err != nil {
			said = err.Error()
		}
		if r.Outcome != c.want || (err != nil) != (c.want == "") || !strings.Contains(said, c.reason) || len(said) > 1900 {
			t.Errorf("%s: %v, %v; %d bytes", name, r, err, len(said))
		}
	}
	for _, absent := range []string{"absent", "not-executable"} {
		if _, _, err := (&RunScript{Argv: []string{filepath.Join(dir, absent)}}).Probe(t.Context(), scriptEnv()); err == nil && os.Geteuid() != 0 || absent == "absent" && err == nil {
			t.Errorf("the probe finds %s", absent)
		}
	}
	if _, _, err := (&RunScript{Argv: []string{"true"}}).Probe(t.Context(), scriptEnv()); err == nil {
		t.Error("not refused")
	} else if _, refused := Reason(err); !refused {
		t.Error(err)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if r, err := script(t, "", &stream.Alert{}).Apply(ended, scriptEnv()); err == nil || r != (Receipt{}) {
		t.Error(r, err)
	}
}

// family is a script that starts a child, tells both PIDs through a FIFO, and waits.
const family = `sleep 1000 & echo $$ $! >"$1"; wait`

// awaitFamily reads the PIDs of a family, and takes hold of both by pidfd.
func awaitFamily(t *testing.T, fifo string) (pidfds [2]int) {
	t.Helper()
	f, err := os.Open(fifo) // returns when the script has opened it too
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	line, err := bufio.NewReader(f).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	for i, field := range strings.Fields(line) {
		pid, err := strconv.Atoi(field)
		if err != nil {
			t.Fatal(err)
		}
		if pidfds[i], err = unix.PidfdOpen(pid, 0); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			_ = unix.PidfdSendSignal(pidfds[i], unix.SIGKILL, nil, 0)
			unix.Close(pidfds[i])
		})
	}
	return pidfds
}

// awaitEnd waits until a process has ended.
func awaitEnd(t *testing.T, who string, fd int) {
	t.Helper()
	if ended, err := pidfd(fd).exited(10 * time.Second); err != nil || !ended {
		t.Errorf("%s lives on (%v)", who, err)
	}
}

func newFifo(t *testing.T) string {
	t.Helper()
	fifo := filepath.Join(t.TempDir(), "fifo")
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	return fifo
}

func TestScriptTimeoutKillsGroup(t *testing.T) {
	fifo := newFifo(t)
	s := script(t, "echo begun\n"+family, &stream.Alert{})
	s.Argv = []string{s.Argv[0], fifo}
	ctx, cancel := context.WithCancelCause(t.Context())
	type result struct {
		r   Receipt
		err error
	}
	done := make(chan result)
	go func() { r, err := s.Apply(ctx, scriptEnv()); done <- result{r, err} }()
	pidfds := awaitFamily(t, fifo)
	cancel(context.DeadlineExceeded)
	got := <-done
	if !errors.Is(got.err, context.DeadlineExceeded) || !strings.HasSuffix(got.err.Error(), `; its output: "begun"`) || got.r != (Receipt{}) {
		t.Errorf("%v, %v", got.r, got.err)
	}
	awaitEnd(t, "the script", pidfds[0])
	awaitEnd(t, "its child", pidfds[1])
}

// TestScriptLeavesNothing ends a script whose child would go on.
func TestScriptLeavesNothing(t *testing.T) {
	fifo := newFifo(t)
	s := script(t, `sleep 1000 & echo $$ $! >"$1"; read wait <"$1"; exit 0`, &stream.Alert{})
	s.Argv = []string{s.Argv[0], fifo}
	done := make(chan error)
	go func() {
		r, err := s.Apply(t.Context(), scriptEnv())
		if err == nil && r.Outcome != Ran {
			err = fmt.Errorf("%v", r)
		}
		done <- err
	}()
	pidfds := awaitFamily(t, fifo)
	if err := os.WriteFile(fifo, []byte("go\n"), 0); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
	awaitEnd(t, "its child", pidfds[1])
}

// TestScriptDiesWithRiposte kills a process that waits for a script. The script dies with
// it; what the script started does not, and keeps the lock until it has ended.
func TestScriptDiesWithRiposte(t *testing.T) {
	const role = "RIPOSTE_TEST_SCRIPT"
	if argv := strings.Fields(os.Getenv(role)); len(argv) > 0 {
		lock, err := os.OpenFile(argv[2], os.O_RDWR, 0)
		if err == nil {
			err = unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		}
		if err != nil {
			t.Fatal(err)
		}
		_, err = (&RunScript{Argv: argv[:2]}).Apply(t.Context(), scriptEnv(lock))
		t.Fatal("the script ended first: ", err)
	}
	fifo := newFifo(t)
	lock, err := os.Create(filepath.Join(t.TempDir(), "lock"))
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	s := script(t, family, &stream.Alert{})
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestScriptDiesWithRiposte$")
	cmd.Env = append(os.Environ(), role+"="+s.Argv[0]+" "+fifo+" "+lock.Name())
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	pidfds := awaitFamily(t, fifo)
	cmd.Process.Kill()
	cmd.Wait()
	awaitEnd(t, "the script", pidfds[0])
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != unix.EWOULDBLOCK {
		t.Errorf("the lock did not stand while the child ran: %v", err)
	}
	if err := unix.PidfdSendSignal(pidfds[1], unix.SIGKILL, nil, 0); err != nil {
		t.Fatal(err)
	}
	awaitEnd(t, "its child", pidfds[1])
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		t.Errorf("the lock stands with nobody left: %v", err)
	}
}

func TestTail(t *testing.T) {
	for _, c := range []struct {
		writes []string
		want   string
	}{
		{nil, ""},
		{[]string{" \n"}, ""},
		{[]string{"a", "b\n"}, `; its output: "ab"`},
		{[]string{strings.Repeat("x", 5000) + "end"}, `xend"`},
		{[]string{strings.Repeat("x", 4000), strings.Repeat("y", 200) + "end"}, `yend"`},
		{[]string{strings.Repeat("x", 2000) + "end"}, `xend"`},
	} {
		var out tail
		for _, w := range c.writes {
			if n, err := io.WriteString(&out, w); n != len(w) || err != nil {
				t.Error(n, err)
			}
		}
		if got := out.said(); !strings.HasSuffix(got, c.want) || len(got) > maxSaid+30 || len(out.kept) > maxOutput ||
			strings.Contains(got, "ends in") != (len(strings.Join(c.writes, "")) > maxSaid) {
			t.Errorf("%d bytes: got %.80s... %d", len(strings.Join(c.writes, "")), got, len(got))
		}
	}
}
