package action_test

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"riposte/playbook/action"
	"riposte/stream"
	"riposte/stream/proc"
)

// runThreads keeps a few threads busy.
func runThreads() {
	for range 4 {
		ready := make(chan bool)
		go func() {
			runtime.LockOSThread()
			ready <- true
			for {
				time.Sleep(time.Millisecond)
			}
		}()
		<-ready
	}
	os.Stdout.WriteString("ready\n")
	select {}
}

// threaded is a process of several threads.
func threaded(t *testing.T) victim {
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), helperEnv+"=threads")
	return start(t, cmd, true)
}

// states are those of all threads, each once: T where all are stopped.
func (v victim) states() string {
	v.t.Helper()
	tasks, err := os.ReadDir("/proc/" + strconv.Itoa(v.Process.Pid) + "/task")
	if err != nil {
		v.t.Fatal(err)
	}
	var all string
	for _, task := range tasks {
		tid, _ := strconv.Atoi(task.Name())
		if st, err := proc.ReadStat(tid); err == nil && !strings.Contains(all, string(st.State)) {
			all += string(st.State)
		}
	}
	return all
}

func (v victim) suspend() *action.SuspendProcess {
	return &action.SuspendProcess{Process: v.effect(0).Process}
}

// stopped stops the process as somebody else would.
func (v victim) stopped() victim {
	v.t.Helper()
	v.Process.Signal(syscall.SIGSTOP)
	until(v.t, "it is stopped", func() bool { return v.states() == "T" })
	return v
}

// takenBack decodes the undo of an effect from its plan.
func takenBack(t *testing.T, e action.Reversible, want string) action.Effect {
	t.Helper()
	name, undo := e.Undo()
	raw, err := json.Marshal(undo)
	if err != nil {
		t.Fatal(err)
	}
	back, class, err := action.Decode(name, raw)
	if err != nil || class != action.Verifiable || name != want {
		t.Fatalf("undo by %s (%s): %v", name, class, err)
	}
	return back
}

// inPlace expects a probe to say so, with an outcome.
func inPlace(t *testing.T, e action.Effect, env action.Env, want action.Outcome) {
	t.Helper()
	if r, yes, err := e.Probe(t.Context(), env); r.Outcome != want || !yes || err != nil {
		t.Errorf("probe of %s: %v, %t, %v; want %s", e.Describe(), r, yes, err, want)
	}
}

func notInPlace(t *testing.T, e action.Effect, env action.Env) {
	t.Helper()
	if r, yes, err := e.Probe(t.Context(), env); yes || err != nil {
		t.Errorf("probe of %s: %v, %t, %v; want it not to be in place", e.Describe(), r, yes, err)
	}
}

func TestSuspend(t *testing.T) {
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
		v := threaded(t)
		e := v.suspend()
		notInPlace(t, e, floor())
		outcome(apply(t, e, floor()), action.Suspended)
		if got := v.states(); got != "T" {
			t.Errorf("its threads are in states %s", got)
		}
		inPlace(t, e, floor(), action.Suspended)
		outcome(apply(t, e, floor()), action.Suspended)
		back := takenBack(t, e, "resume_process")
		notInPlace(t, back, floor())
		outcome(apply(t, back, floor()), action.Resumed)
		if got := v.states(); strings.Contains(got, "T") {
			t.Errorf("its threads are in states %s", got)
		}
		inPlace(t, back, floor(), action.Resumed)
		outcome(apply(t, back, floor()), action.Resumed)
		notInPlace(t, e, floor())
		v.Process.Kill()
		v.Wait()
		inPlace(t, e, floor(), action.AlreadyGone)
		inPlace(t, back, floor(), action.AlreadyGone)
		outcome(apply(t, e, floor()), action.AlreadyGone)
		outcome(apply(t, back, floor()), action.AlreadyGone)
	})
	t.Run("one thread runs", func(t *testing.T) {
		// A debugger may hold some threads of a process and let others run.
		v := threaded(t)
		tasks, err := os.ReadDir("/proc/" + strconv.Itoa(v.Process.Pid) + "/task")
		if err != nil {
			t.Fatal(err)
		}
		tid, _ := strconv.Atoi(tasks[len(tasks)-1].Name())
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		if err := unix.PtraceAttach(tid); err != nil {
			t.Fatal(err)
		}
		until(t, "it is held", func() bool { st, _ := proc.ReadStat(tid); return st.State == 't' })
		notInPlace(t, v.suspend(), floor())
		notInPlace(t, takenBack(t, v.suspend(), "resume_process"), floor())
		if err := unix.PtraceDetach(tid); err != nil {
			t.Fatal(err)
		}
	})
	t.Run("debugger", func(t *testing.T) {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		cmd := exec.Command("sleep", "1000")
		cmd.SysProcAttr = &syscall.SysProcAttr{Ptrace: true}
		v := start(t, cmd, false)
		until(t, "it is held", func() bool { return v.states() == "t" })
		if r := apply(t, v.suspend(), floor()); r.Outcome != action.Suspended || !strings.Contains(r.Reason, "by a debugger") {
			t.Errorf("got %v", r)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
		defer cancel()
		r, err := takenBack(t, v.suspend(), "resume_process").Apply(ctx, floor())
		if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "1 held by a debugger") {
			t.Errorf("resumed what a debugger holds: %v, %v", r, err)
		}
	})
	t.Run("refused", func(t *testing.T) {
		v := sleeper(t)
		refused(t, v.suspend(), action.Env{Guard: closed{}}, "closed")
		refused(t, &action.ResumeProcess{Process: v.suspend().Process}, action.Env{Guard: closed{}}, "closed")
		reused := v.suspend()
		reused.StartTicks++
		refused(t, reused, floor(), "was reused")
		for pid, why := range map[int]string{
			1: "is not one to act on", os.Getpid(): "a process of Riposte", os.Getppid(): "an ancestor of Riposte",
		} {
			p := action.Process{PID: int64(pid), SeenUntil: time.Now()}
			refused(t, &action.SuspendProcess{Process: p}, floor(), why)
			refused(t, &action.ResumeProcess{Process: p}, floor(), why)
		}
		if got := v.states(); strings.Contains(got, "T") {
			t.Errorf("it is in state %s all the same", got)
		}
	})
	t.Run("cancelled", func(t *testing.T) {
		v := sleeper(t)
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if r, err := v.suspend().Apply(ctx, floor()); !errors.Is(err, context.Canceled) || r != (action.Receipt{}) {
			t.Errorf("got %v, %v", r, err)
		}
		v.untouched()
	})
	t.Run("own user", func(t *testing.T) {
		cmd := exec.Command("sleep", "1000")
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
		refused(t, start(t, cmd, false).suspend(), action.Env{Guard: &shared, OwnUID: true}, "belongs to user 65534")
	})
	shared.Close()
	if after := descriptors(t); after != before {
		t.Errorf("descriptors left open:\n%s\nbefore:\n%s", after, before)
	}
}

func TestSuspendResolve(t *testing.T) {
	seen := action.Seen{Until: time.Unix(101, 0).UTC()}
	for _, c := range []struct{ alert, target, want string }{
		{`{"level":"HIGH"}`, "process", `null`},
		{`{"actionable_pid":7}`, "process", `{"pid":7,"seen_until":"1970-01-01T00:01:41Z"}`},
		{`{"actionable_pid":7}`, "parent", `null`},
		{`{"process":{"pid":7,"start_ticks":9,"name":"sh"}}`, "parent", `null`},
		{`{"process":{"pid":7,"parent":{"name":"office"}}}`, "parent", `null`},
		{`{"process":{"pid":7,"start_ticks":9,"boot_id":"b","pid_ns":5,"name":"sh","exe":"/sh","parent":{"pid":6,"start_ticks":8,"name":"office","exe":"/office"}}}`, "parent",
			`{"pid":6,"described_pid":6,"start_ticks":8,"boot_id":"b","pid_ns":5,"name":"office","exe":"/office","seen_until":"1970-01-01T00:01:41Z"}`},
	} {
		a, err := stream.Decode([]byte(c.alert), "1-0")
		if err != nil {
			t.Fatal(err)
		}
		for _, spec := range []action.Spec{&action.SuspendSpec{Target: c.target}, &action.ResumeSpec{Target: c.target}} {
			if raw, err := json.Marshal(spec.Resolve(a, seen)); err != nil || string(raw) != c.want {
				t.Errorf("%s of %s: got %s, %v; want %s", c.target, c.alert, raw, err, c.want)
			}
		}
	}
}

// TestSuspendKilled has the one that suspends, or resumes, die wherever it can.
func TestSuspendKilled(t *testing.T) {
	if !inside(t) {
		return
	}
	for nth := int64(1); ; nth++ {
		v := threaded(t)
		e := v.suspend()
		died := dies(t, "suspend_process", e, floor(), nth)
		if r := succeed(t, e, floor()); r.Outcome != action.Suspended {
			t.Errorf("after a death at %d: %v", nth, r)
		}
		if got := v.states(); got != "T" {
			t.Errorf("after a death at %d its threads are in states %s", nth, got)
		}
		back := takenBack(t, e, "resume_process")
		died = dies(t, "resume_process", back, floor(), nth) || died
		if r := succeed(t, back, floor()); r.Outcome != action.Resumed {
			t.Errorf("after a death at %d: %v", nth, r)
		}
		if got := v.states(); strings.Contains(got, "T") {
			t.Errorf("after a death at %d its threads are in states %s", nth, got)
		}
		if !died {
			if nth < 3 {
				t.Errorf("nobody died after the signal: %d", nth)
			}
			return
		}
	}
}
