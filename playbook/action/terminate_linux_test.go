package action_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"riposte/playbook/action"
	"riposte/playbook/guard"
	"riposte/stream"
	"riposte/stream/proc"
	"riposte/test/need"
)

const helperEnv = "RIPOSTE_TEST_HELPER"

func TestMain(m *testing.M) {
	switch os.Getenv(helperEnv) {
	case "leader-exit":
		exitFirstThread()
	case "vfork":
		waitInVfork()
	case "debugger":
		debug()
	case "threads":
		runThreads()
	case "apply":
		applyAndDie()
	}
	os.Exit(m.Run())
}

// exitFirstThread ends the first thread of this process and lets the others live on.
func exitFirstThread() {
	for {
		go func() {
			runtime.LockOSThread()
			if unix.Gettid() == os.Getpid() {
				os.Stdout.WriteString("ready\n")
				unix.RawSyscall(unix.SYS_EXIT, 0, 0, 0)
			}
			select {}
		}()
		runtime.Gosched()
	}
}

// victim is a process that a test started.
type victim struct {
	*exec.Cmd
	t *testing.T
}

// start starts a process; with `echo` in its script it has got as far as that.
func start(t *testing.T, cmd *exec.Cmd, script bool) victim {
	t.Helper()
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	if script {
		if _, err := io.ReadFull(out, make([]byte, 1)); err != nil {
			t.Fatalf("victim did not start: %v", err)
		}
	}
	return victim{cmd, t}
}

func sleeper(t *testing.T) victim { return start(t, exec.Command("sleep", "1000"), false) }

func stubborn(t *testing.T) victim {
	return start(t, exec.Command("sh", "-c", `trap "" TERM; echo ready; exec sleep 1000`), true)
}

// copyOf copies a program under another name.
func copyOf(t *testing.T, program, name string) string {
	t.Helper()
	body, err := os.ReadFile(need.Binary(t, program))
	path := filepath.Join(t.TempDir(), name)
	if err = errors.Join(err, os.WriteFile(path, body, 0o700)); err != nil {
		t.Fatal(err)
	}
	return path
}

// effect names the process as Riposte's own sensor does.
func (v victim) effect(grace time.Duration) *action.TerminateProcess {
	v.t.Helper()
	st, err := proc.ReadStat(v.Process.Pid)
	if err != nil {
		v.t.Fatal(err)
	}
	boot, err := proc.BootID()
	if err != nil {
		v.t.Fatal(err)
	}
	ns, err := proc.Namespace()
	if err != nil {
		v.t.Fatal(err)
	}
	pid := int64(v.Process.Pid)
	return &action.TerminateProcess{Process: action.Process{PID: pid, Described: pid, StartTicks: st.StartTicks, BootID: boot, PIDNS: ns}, Grace: action.Duration(grace)}
}

// foreign names the process as a detector does that knows only PIDs.
func (v victim) foreign(seen time.Time) *action.TerminateProcess {
	return &action.TerminateProcess{Process: action.Process{PID: int64(v.Process.Pid), SeenUntil: seen}, Grace: action.Duration(time.Second)}
}

// endedBy waits for the process and says which signal ended it.
func (v victim) endedBy() syscall.Signal {
	v.Wait()
	return v.ProcessState.Sys().(syscall.WaitStatus).Signal()
}

// untouched says that nobody has signalled the process yet.
func (v victim) untouched() {
	v.t.Helper()
	v.Process.Signal(syscall.SIGUSR1) // after a SIGTERM this would come second
	if sig := v.endedBy(); sig != syscall.SIGUSR1 {
		v.t.Errorf("the process was ended by %v", sig)
	}
}

func floor() action.Env { return action.Env{Guard: &shared} }

// shared is the floor of all tests; it holds descriptors until it is closed.
var shared guard.Floor

func apply(t *testing.T, e action.Effect, env action.Env) action.Receipt {
	t.Helper()
	r, err := e.Apply(t.Context(), env)
	if err != nil {
		t.Fatalf("%s: %v", e.Describe(), err)
	}
	return r
}

// refused expects both Probe and Apply to refuse, with a reason that says why.
func refused(t *testing.T, e action.Effect, env action.Env, why string) {
	t.Helper()
	_, inPlace, err := e.Probe(t.Context(), env)
	if reason, ok := action.Reason(err); !ok || !strings.Contains(reason, why) || inPlace {
		t.Errorf("probe of %s: got %t, %v; want a refusal with %q", e.Describe(), inPlace, err, why)
	}
	r, err := e.Apply(t.Context(), env)
	if reason, ok := action.Reason(err); !ok || !strings.Contains(reason, why) || r != (action.Receipt{}) {
		t.Errorf("%s: got %v, %v; want a refusal with %q", e.Describe(), r, err, why)
	}
}

func TestTerminate(t *testing.T) {
	if !inside(t) {
		return
	}
	shared.Close()
	before := descriptors(t)
	outcome := func(r action.Receipt, want action.Outcome) {
		t.Helper()
		if r.Outcome != want {
			t.Errorf("got %v, want %s", r, want)
		}
	}
	t.Run("ordinary", func(t *testing.T) {
		v := sleeper(t)
		e := v.effect(10 * time.Second)
		if r, inPlace, err := e.Probe(t.Context(), floor()); inPlace || err != nil {
			t.Fatalf("probe of a live process: %v, %t, %v", r, inPlace, err)
		}
		outcome(apply(t, e, floor()), action.Terminated)
		outcome(apply(t, e, floor()), action.AlreadyGone) // a zombie by now
		if sig := v.endedBy(); sig != syscall.SIGTERM {
			t.Errorf("ended by %v", sig)
		}
		outcome(apply(t, e, floor()), action.AlreadyGone) // no such PID by now
	})
	t.Run("ignores SIGTERM", func(t *testing.T) {
		v := stubborn(t)
		begun := time.Now()
		outcome(apply(t, v.effect(100*time.Millisecond), floor()), action.Killed)
		if took := time.Since(begun); took < 100*time.Millisecond || took > 5*time.Second {
			t.Errorf("with a grace of 100ms it took %s", took)
		}
		if sig := v.endedBy(); sig != syscall.SIGKILL {
			t.Errorf("ended by %v", sig)
		}
	})
	t.Run("no grace", func(t *testing.T) {
		v := sleeper(t)
		outcome(apply(t, v.effect(0), floor()), action.Killed)
		if sig := v.endedBy(); sig != syscall.SIGKILL {
			t.Errorf("ended by %v", sig)
		}
	})
	t.Run("stopped", func(t *testing.T) {
		v := sleeper(t)
		v.Process.Signal(syscall.SIGSTOP)
		until(t, "it is stopped", func() bool { st, _ := proc.ReadStat(v.Process.Pid); return st.State == 'T' })
		begun := time.Now()
		if r := apply(t, v.effect(20*time.Second), floor()); r.Outcome != action.Killed || !strings.Contains(r.Reason, "was stopped") {
			t.Errorf("got %v", r)
		}
		if took := time.Since(begun); took > 10*time.Second {
			t.Errorf("it was given a grace: %s", took)
		}
		if sig := v.endedBy(); sig != syscall.SIGKILL {
			t.Errorf("ended by %v", sig)
		}
	})
	t.Run("zombie", func(t *testing.T) {
		v := sleeper(t)
		e := v.effect(time.Second)
		v.Process.Kill()
		until(t, "it is a zombie", func() bool { st, _ := proc.ReadStat(v.Process.Pid); return st.Zombie() })
		r, inPlace, err := e.Probe(t.Context(), floor())
		if r.Outcome != action.AlreadyGone || !inPlace || err != nil {
			t.Errorf("probe: %v, %t, %v", r, inPlace, err)
		}
		outcome(apply(t, e, floor()), action.AlreadyGone)
	})
	t.Run("first thread has exited", func(t *testing.T) {
		cmd := exec.Command("/proc/self/exe")
		cmd.Env = append(os.Environ(), helperEnv+"=leader-exit")
		v := start(t, cmd, true)
		until(t, "it looks like a zombie", func() bool { st, _ := proc.ReadStat(v.Process.Pid); return st.Zombie() })
		refused(t, v.effect(time.Second), action.Env{Guard: closed{}}, "closed") // it is not on its way out
		if r := apply(t, v.effect(50*time.Millisecond), floor()); r.Outcome == action.AlreadyGone {
			t.Errorf("a live process was taken for a dead one: %v", r)
		}
		v.endedBy() // hangs where it lives on
	})
	t.Run("identity", func(t *testing.T) {
		v := sleeper(t)
		for why, change := range map[string]func(*action.TerminateProcess){
			"was reused":                func(e *action.TerminateProcess) { e.StartTicks++ },
			"another boot":              func(e *action.TerminateProcess) { e.BootID = "00000000-0000-0000-0000-000000000000" },
			"boot_id has more":          func(e *action.TerminateProcess) { e.BootID += "0" },
			"PID namespace":             func(e *action.TerminateProcess) { e.PIDNS = proc.InitialPIDNamespace },
			"contradicts itself":        func(e *action.TerminateProcess) { e.Described++ },
			"not within":                func(e *action.TerminateProcess) { e.Grace = -1 },
			"neither when PID":          func(e *action.TerminateProcess) { e.StartTicks = 0 },
			"after the alert":           func(e *action.TerminateProcess) { e.StartTicks, e.SeenUntil = 0, time.Now().Add(-time.Hour) },
			`the alert says "bash"`:     func(e *action.TerminateProcess) { e.StartTicks, e.SeenUntil, e.Name = 0, time.Now(), "bash" },
			`the alert says "/bin/foo"`: func(e *action.TerminateProcess) { e.StartTicks, e.SeenUntil, e.Exe = 0, time.Now(), "/bin/foo" },
		} {
			e := v.effect(time.Second)
			change(e)
			refused(t, e, floor(), why)
		}
		v.untouched()
	})
	t.Run("foreign", func(t *testing.T) {
		v := sleeper(t)
		info, err := proc.Read(v.Process.Pid)
		if err != nil {
			t.Fatal(err)
		}
		until(t, "it runs sleep", func() bool { info, err = proc.Read(v.Process.Pid); return err == nil && info.Name == "sleep" })
		e := v.foreign(time.Now())
		e.Name, e.Exe = info.Name, info.Exe
		outcome(apply(t, e, floor()), action.Terminated)
	})
	t.Run("endless name", func(t *testing.T) {
		// The name on the command line counts where it begins like the one the kernel cut.
		name := strings.Repeat("x", 8000)
		v := start(t, &exec.Cmd{Path: copyOf(t, "sleep", name[:20]), Args: []string{name, "1000"}}, false)
		until(t, "it has its name", func() bool { info, err := proc.Read(v.Process.Pid); return err == nil && info.Name == name })
		kind, _ := action.Lookup("terminate_process")
		pid := int64(v.Process.Pid)
		e := kind.Spec().Resolve(&stream.Alert{Process: &stream.Process{PID: pid, Name: name}}, action.Seen{Until: time.Now()})
		outcome(apply(t, e, floor()), action.Terminated)
	})
	t.Run("thread", func(t *testing.T) {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		tid := make(chan int)
		go func() { runtime.LockOSThread(); tid <- unix.Gettid(); <-tid }() // surely not the first thread
		e := &action.TerminateProcess{Process: action.Process{PID: int64(<-tid), SeenUntil: time.Now()}}
		if e.PID == int64(os.Getpid()) {
			e.PID = int64(unix.Gettid())
		}
		refused(t, e, floor(), "is a thread")
		tid <- 0
	})
	t.Run("floor", func(t *testing.T) {
		for pid, why := range map[int64]string{
			-1: "is not one to act on", 0: "is not one to act on", 1: "is not one to act on",
			1 << 22: "is not one to act on", 1 << 31: "is not one to act on", 1 << 62: "is not one to act on",
			int64(os.Getpid()):  "a process of Riposte",
			int64(os.Getppid()): "an ancestor of Riposte",
		} {
			refused(t, &action.TerminateProcess{Process: action.Process{PID: pid, SeenUntil: time.Now()}}, floor(), why)
		}
		if os.Getppid() <= 1 {
			t.Error("the parent is PID 1, so that the case of an ancestor was not tested")
		}
		outcome(apply(t, &action.TerminateProcess{Process: action.Process{PID: 1<<22 - 1, SeenUntil: time.Now()}}, floor()), action.AlreadyGone)
	})
	t.Run("guard", func(t *testing.T) {
		v := sleeper(t)
		refused(t, v.effect(time.Second), action.Env{Guard: closed{}}, "closed")
		v.untouched()
	})
	t.Run("own user", func(t *testing.T) {
		v := sleeper(t)
		outcome(apply(t, v.effect(time.Second), action.Env{Guard: &shared, OwnUID: true}), action.Terminated)
		cmd := exec.Command("sleep", "1000")
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
		other := start(t, cmd, false)
		refused(t, other.effect(time.Second), action.Env{Guard: &shared, OwnUID: true}, "belongs to user 65534")
		other.untouched()
	})
	t.Run("cancelled", func(t *testing.T) {
		v := stubborn(t)
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		r, err := v.effect(10*time.Second).Apply(ctx, floor())
		if !errors.Is(err, context.DeadlineExceeded) || r != (action.Receipt{}) {
			t.Errorf("within the grace: %v, %v", r, err)
		}
		if r, err = v.effect(0).Apply(ctx, floor()); !errors.Is(err, context.DeadlineExceeded) || r != (action.Receipt{}) {
			t.Errorf("before the signal: %v, %v", r, err)
		}
		v.untouched()
	})
	shared.Close()
	if after := descriptors(t); after != before {
		t.Errorf("descriptors left open:\n%s\nbefore:\n%s", after, before)
	}
}

// TestTerminateExiting asks about a process that was killed and is not gone yet. The init of
// a PID namespace is such a one for as long as somebody outside keeps a zombie of it.
func TestTerminateExiting(t *testing.T) {
	if !inside(t) {
		return
	}
	keeper := exec.Command(need.Binary(t, "unshare"), "--pid", "sh", "-c", `sleep 1000 & echo $!; sleep 1000 & exec cat`)
	keeper.Stderr = os.Stderr
	in, err := keeper.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := keeper.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := keeper.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { keeper.Process.Kill(); keeper.Wait() })
	pid := 0
	if _, err := fmt.Fscanln(out, &pid); err != nil {
		t.Fatal(err)
	}
	in.Write([]byte("x")) // cat answers, so both are there
	if _, err := io.ReadFull(out, make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	init := victim{&exec.Cmd{Process: &os.Process{Pid: pid}}, t}
	e := init.effect(time.Second)
	if err := unix.Kill(pid, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	until(t, "it has lost its executable", func() bool { _, err := proc.ReadExe(pid); return err != nil })
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if r, inPlace, err := e.Probe(ctx, floor()); inPlace || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("while it exits: %v, %t, %v", r, inPlace, err)
	}
	in.Close()
	keeper.Wait()
	if r := apply(t, e, floor()); r.Outcome != action.AlreadyGone {
		t.Errorf("got %v", r)
	}
}

// TestTerminateForeignProc runs where /proc numbers processes otherwise than kill(2).
func TestTerminateForeignProc(t *testing.T) {
	if !inside(t, "--mount") {
		return
	}
	v := sleeper(t)
	refused(t, v.foreign(time.Now()), floor(), "mount the /proc of this PID namespace")
	v.untouched()
}

type closed struct{ action.Guard }

func (closed) Process(proc.Stat) error { return action.Refuse("closed") }

func TestTerminateTakes(t *testing.T) {
	for _, c := range []struct {
		tree bool
		want time.Duration
	}{{false, 7 * time.Second}, {true, 0}} {
		spec := &action.TerminateSpec{Grace: "7s", Target: "process", Tree: c.tree}
		pid := int64(7)
		e := spec.Resolve(&stream.Alert{ActionablePID: &pid}, action.Seen{}).(*action.TerminateProcess)
		if spec.Takes() != c.want || time.Duration(e.Grace) != c.want || e.Tree != c.tree {
			t.Errorf("tree %t: takes %s, planned %+v", c.tree, spec.Takes(), e)
		}
	}
}

func TestTerminateResolve(t *testing.T) {
	seen := action.Seen{From: time.Unix(100, 0).UTC(), Until: time.Unix(101, 0).UTC()}
	kind, _ := action.Lookup("terminate_process")
	for alert, want := range map[string]string{
		`{"level":"HIGH"}`:        `null`,
		`{"actionable_pid":4711}`: `{"pid":4711,"seen_until":"1970-01-01T00:01:41Z","grace":"1s"}`,
		`{"actionable_pid":-1,"process":{"pid":7,"start_ticks":9,"boot_id":"b","pid_ns":5,"name":"n","exe":"/e"}}`: `{"pid":-1,"described_pid":7,"start_ticks":9,"boot_id":"b","pid_ns":5,"name":"n","exe":"/e","seen_until":"1970-01-01T00:01:41Z","grace":"1s"}`,
	} {
		a, err := stream.Decode([]byte(alert), "1-0")
		if err != nil {
			t.Fatal(err)
		}
		effect := kind.Spec().Resolve(a, seen)
		raw, err := json.Marshal(effect)
		if err != nil || string(raw) != want {
			t.Errorf("%s: got %s, %v; want %s", alert, raw, err, want)
		}
		if effect == nil {
			continue
		}
		again, class, err := action.Decode("terminate_process", raw)
		if err != nil || class != action.Verifiable {
			t.Fatalf("decode: %v, %v", class, err)
		}
		if back, _ := json.Marshal(again); string(back) != want {
			t.Errorf("after a round trip: %s", back)
		}
	}
}
