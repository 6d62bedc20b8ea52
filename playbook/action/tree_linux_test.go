package action_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"riposte/playbook/action"
	"riposte/stream"
	"riposte/stream/proc"
	"riposte/test/need"
)

// waitInVfork has the first thread of this process wait for a child that neither ends nor
// runs a program, while others sleep.
func waitInVfork() {
	tried := make(chan bool)
	for {
		go func() {
			runtime.LockOSThread()
			if unix.Gettid() != os.Getpid() {
				tried <- true
				select {}
			}
			if child, _, _ := unix.RawSyscall6(unix.SYS_CLONE, unix.CLONE_VFORK|uintptr(unix.SIGCHLD), 0, 0, 0, 0, 0); child == 0 {
				ready := []byte("ready\n")
				_, _, _ = unix.RawSyscall(unix.SYS_WRITE, 1, uintptr(unsafe.Pointer(&ready[0])), uintptr(len(ready)))
				for {
					_, _, _ = unix.RawSyscall6(unix.SYS_PPOLL, 0, 0, 0, 0, 0, 0)
				}
			}
		}()
		<-tried
	}
}

// debuggedEnv is whom debug is about, if not its parent.
const debuggedEnv = "RIPOSTE_TEST_DEBUGGED"

// debug has another process run on whatever signal it gets, but for SIGKILL.
func debug() {
	runtime.LockOSThread()
	pid := os.Getppid()
	if other, err := strconv.Atoi(os.Getenv(debuggedEnv)); err == nil {
		pid = other
	}
	if err := unix.PtraceSeize(pid); err != nil {
		panic(err)
	}
	os.Stdout.WriteString("ready\n")
	for {
		var status unix.WaitStatus
		_, err := unix.Wait4(pid, &status, unix.WALL, nil)
		switch {
		case err == unix.EINTR:
		case err != nil || !status.Stopped():
			os.Exit(0)
		default:
			_ = unix.PtraceCont(pid, 0)
		}
	}
}

// grove is a tree of processes, each of which has the mark in its environment.
type grove struct {
	victim
	mark string
}

// planted starts a tree by a shell script, which prints a line when it stands.
func planted(t *testing.T, script string) grove {
	t.Helper()
	return marked(t, exec.Command("sh", "-c", script))
}

func marked(t *testing.T, cmd *exec.Cmd) grove {
	t.Helper()
	mark := fmt.Sprintf("RIPOSTE_TEST_TREE=%s-%d", t.Name(), time.Now().UnixNano())
	cmd.Env = append(os.Environ(), append(cmd.Env, mark)...)
	g := grove{mark: mark}
	t.Cleanup(func() {
		for _, pid := range g.living(t) {
			unix.Kill(pid, unix.SIGKILL)
		}
	})
	g.victim = start(t, cmd, true)
	return g
}

// living are the PIDs of the tree, wherever they have got to.
func (g grove) living(t *testing.T) (pids []int) {
	t.Helper()
	files, err := filepath.Glob("/proc/[0-9]*/environ")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		raw, err := os.ReadFile(file) // nothing, where it has exited
		if err == nil && slices.Contains(strings.Split(string(raw), "\x00"), g.mark) {
			pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(file)))
			pids = append(pids, pid)
		}
	}
	return pids
}

// holding counts those that are stopped.
func (g grove) holding(t *testing.T) (n int) {
	t.Helper()
	for _, pid := range g.living(t) {
		if st, err := proc.ReadStat(pid); err == nil && st.State == 'T' {
			n++
		}
	}
	return n
}

// nsPIDs are the numbers of a process in this PID namespace and in those below it that it is in.
func nsPIDs(t *testing.T, pid int) []string {
	t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	_, rest, _ := strings.Cut(string(status), "NSpid:")
	numbers, _, ok := strings.Cut(rest, "\n")
	if err != nil || !ok {
		t.Fatalf("%v, %q", err, status)
	}
	return strings.Fields(numbers)
}

func (g grove) tree() *action.TerminateProcess {
	e := g.effect(0)
	e.Tree = true
	return e
}

const (
	// three levels, eight processes
	threeLevels = `sleep 1000 & sleep 1000 & for i in 1 2; do sh -c 'sleep 1000 & sleep 1000 & echo ready >&2; wait' & done 2>&1; wait`
	// one that is being made as long as it is let
	endless = `(i=0; while [ $i -lt 2000 ]; do sh -c 'sleep 1000' & i=$((i+1)); [ $i = 20 ] && echo ready; done; wait) & wait`
)

// whole waits until the tree has as many processes.
func (g grove) whole(t *testing.T, n int) grove {
	t.Helper()
	until(t, fmt.Sprintf("the tree has %d processes", n), func() bool { return len(g.living(t)) == n })
	return g
}

func TestTerminateTree(t *testing.T) {
	if !inside(t) {
		return
	}
	shared.Close()
	before := descriptors(t)
	t.Run("three levels", func(t *testing.T) {
		g, bystander := planted(t, threeLevels).whole(t, 9), sleeper(t)
		e := g.tree()
		notInPlace(t, e, floor())
		if n := g.holding(t); n > 0 {
			t.Errorf("a probe has stopped %d", n)
		}
		r := apply(t, e, floor())
		if want := fmt.Sprintf("PID %d and 8 descendants ", g.Process.Pid); r.Outcome != action.Killed || !strings.HasPrefix(r.Reason, want) {
			t.Errorf("got %v", r)
		}
		if left := g.living(t); left != nil {
			t.Errorf("there are left %v", left)
		}
		inPlace(t, e, floor(), action.AlreadyGone)
		if r := apply(t, e, floor()); r.Outcome != action.AlreadyGone {
			t.Errorf("got %v", r)
		}
		bystander.untouched()
	})
	t.Run("alone", func(t *testing.T) {
		v := sleeper(t)
		e := v.effect(0)
		e.Tree = true
		if r := apply(t, e, floor()); r.Outcome != action.Killed || !strings.Contains(r.Reason, "and 0 descendants") {
			t.Errorf("got %v", r)
		}
	})
	t.Run("it grows", func(t *testing.T) {
		g := planted(t, endless)
		if r := apply(t, g.tree(), floor()); r.Outcome != action.Killed {
			t.Errorf("got %v", r)
		}
		if left := g.living(t); left != nil {
			t.Errorf("%d are left", len(left))
		}
	})
	t.Run("waits for its child", func(t *testing.T) {
		cmd := exec.Command("/proc/self/exe")
		cmd.Env = []string{helperEnv + "=vfork"}
		g := marked(t, cmd)
		until(t, "its first thread waits", func() bool { st, _ := proc.ReadStat(g.Process.Pid); return st.State == 'D' })
		if r := apply(t, g.tree(), floor()); r.Outcome != action.Killed || !strings.Contains(r.Reason, "and 1 descendants") {
			t.Errorf("got %v", r)
		}
		if left := g.living(t); left != nil {
			t.Errorf("there are left %v", left)
		}
	})
	t.Run("its child debugs it", func(t *testing.T) {
		cmd := exec.Command("sh", "-c", `"$0" & while :; do sleep 1000; done`, os.Args[0])
		cmd.Env = []string{helperEnv + "=debugger"}
		g := marked(t, cmd)
		if r := apply(t, g.tree(), floor()); r.Outcome != action.Killed {
			t.Errorf("got %v", r)
		}
		if left := g.living(t); left != nil {
			t.Errorf("there are left %v", left)
		}
	})
	t.Run("a stranger debugs it", func(t *testing.T) {
		g := planted(t, `sleep 1000 & echo ready; while :; do sleep 1000; done`)
		debugger := exec.Command(os.Args[0])
		debugger.Env = append(os.Environ(), helperEnv+"=debugger", fmt.Sprint(debuggedEnv, "=", g.Process.Pid))
		start(t, debugger, true)
		if r := apply(t, g.tree(), floor()); r.Outcome != action.Killed || !strings.Contains(r.Reason, fmt.Sprintf("PID %d could not be kept from running", g.Process.Pid)) {
			t.Errorf("got %v", r)
		}
		if left := g.living(t); left != nil {
			t.Errorf("there are left %v", left)
		}
	})
	t.Run("one is protected", func(t *testing.T) {
		g := planted(t, threeLevels).whole(t, 9)
		for _, pid := range g.living(t) {
			refused(t, g.tree(), action.Env{Guard: sparing{pid: pid}}, fmt.Sprintf("PID %d is spared", pid))
		}
		if n := g.holding(t); n > 0 || len(g.living(t)) != 9 {
			t.Errorf("%d are stopped, of %d", n, len(g.living(t)))
		}
	})
	t.Run("a protected one comes late", func(t *testing.T) {
		// When all are known and none but the root is stopped, one more is started, which is
		// found when all the others are stopped.
		g := planted(t, `(sleep 1000 & trap 'sleep 1000 &' USR1; echo ready; while :; do wait; done) & wait`).whole(t, 3)
		known := g.living(t)
		idle := victim{&exec.Cmd{Process: &os.Process{Pid: known[1]}}, t}
		shell := victim{&exec.Cmd{Process: &os.Process{Pid: known[2]}}, t}
		if st, _ := proc.ReadStat(known[1]); st.Comm != "sleep" {
			idle, shell = shell, idle
		}
		idle.stopped()
		asked, most := 0, 0
		env := action.Env{Guard: watching(func(st proc.Stat) error {
			if !slices.Contains(known, st.PID) {
				most = g.holding(t)
				return action.Refuse("PID %d is spared", st.PID)
			}
			if asked++; asked == 5 { // each in the survey, the root before it, and then again
				shell.Process.Signal(syscall.SIGUSR1)
				until(t, "there is one more", func() bool { return len(g.living(t)) == 4 })
			}
			return nil
		})}
		_, err := g.tree().Apply(t.Context(), env)
		if reason, ok := action.Reason(err); !ok || !strings.Contains(reason, "is spared") {
			t.Errorf("got %v", err)
		}
		if most != 3 {
			t.Errorf("%d were stopped before, not all the others", most)
		}
		until(t, "those it stopped are resumed", func() bool { return g.holding(t) <= 1 })
		if got := idle.states(); got != "T" {
			t.Errorf("who was stopped before is in state %s", got)
		}
		if left := len(g.living(t)); left != 4 {
			t.Errorf("%d are left", left)
		}
	})
	t.Run("init of a namespace", func(t *testing.T) {
		// Somebody else has come into the namespace, and made one below, and is not of the tree.
		need.Binary(t, "nsenter")
		g := planted(t, `unshare --pid --fork sh -c 'sleep 1000 & echo ready; wait' & wait`).whole(t, 4)
		init := 0
		for _, pid := range g.living(t) {
			if numbers := nsPIDs(t, pid); len(numbers) == 2 && numbers[1] == "1" {
				init = pid
			}
		}
		e := &action.TerminateProcess{Process: action.Process{PID: int64(init), SeenUntil: time.Now()}}
		guest := marked(t, exec.Command("nsenter", fmt.Sprintf("--pid=/proc/%d/ns/pid", init), "unshare", "--pid", "--fork", "sh", "-c", "echo ready; exec sleep 1000")).whole(t, 3)
		for _, pid := range guest.living(t) {
			env := action.Env{Guard: sparing{pid: pid}}
			if len(nsPIDs(t, pid)) == 1 { // nsenter itself stays outside
				notInPlace(t, e, env)
				continue
			}
			why := fmt.Sprintf("PID %d is the init of a PID namespace, with which all end that are in it: PID %d is spared", init, pid)
			refused(t, e, env, why)
			refused(t, g.tree(), env, why)
		}
		if left := len(g.living(t)) + len(guest.living(t)); left != 7 || g.holding(t) > 0 {
			t.Fatalf("%d are left", left)
		}
		if r := apply(t, e, floor()); r.Outcome != action.Killed {
			t.Errorf("got %v", r)
		}
		until(t, "the kernel has ended all that were in it", func() bool { return len(guest.living(t)) < 2 })
	})
	t.Run("another user's", func(t *testing.T) {
		g := planted(t, `setpriv --reuid 65534 --clear-groups sleep 1000 & echo ready; wait`)
		until(t, "it is another user's", func() bool {
			return slices.ContainsFunc(g.living(t), func(pid int) bool { uid, err := proc.UID(pid); return err == nil && uid == 65534 })
		})
		refused(t, g.tree(), action.Env{Guard: &shared, OwnUID: true}, "belongs to user 65534")
		if n := g.holding(t); n > 0 {
			t.Errorf("%d are stopped", n)
		}
	})
	t.Run("cancelled", func(t *testing.T) {
		g := planted(t, threeLevels).whole(t, 9)
		ctx, cancel := context.WithCancel(t.Context())
		asked := 0
		env := action.Env{Guard: watching(func(proc.Stat) error {
			if asked++; asked == 15 { // the tree was surveyed, and half of it is stopped
				cancel()
			}
			return nil
		})}
		if r, err := g.tree().Apply(ctx, env); !errors.Is(err, context.Canceled) || r != (action.Receipt{}) {
			t.Errorf("got %v, %v", r, err)
		}
		until(t, "all are resumed", func() bool { return g.holding(t) == 0 })
		if left := len(g.living(t)); left != 9 {
			t.Errorf("%d are left", left)
		}
	})
	t.Run("floor", func(t *testing.T) {
		e := &action.TerminateProcess{Process: action.Process{PID: int64(os.Getppid()), SeenUntil: time.Now()}, Tree: true}
		refused(t, e, floor(), "an ancestor of Riposte")
	})
	shared.Close()
	if after := descriptors(t); after != before {
		t.Errorf("descriptors left open:\n%s\nbefore:\n%s", after, before)
	}
}

// TestTerminateTreeKilled has the one that ends a tree die wherever it can.
func TestTerminateTreeKilled(t *testing.T) {
	if !inside(t) {
		return
	}
	held, fewer := 0, 0
	for nth := int64(1); ; nth++ {
		g := planted(t, threeLevels).whole(t, 9)
		died := dies(t, "terminate_process", g.tree(), floor(), nth)
		if died && g.holding(t) > 0 {
			held++
		}
		if left := len(g.living(t)); died && left > 0 && left < 9 {
			fewer++
		}
		if r := succeed(t, g.tree(), floor()); r.Outcome != action.Killed && r.Outcome != action.AlreadyGone {
			t.Errorf("after a death at %d: %v", nth, r)
		}
		// Who was sent SIGKILL just before the death may be a little slower.
		until(t, fmt.Sprintf("nobody is left after a death at %d", nth), func() bool { return g.living(t) == nil })
		if !died {
			break
		}
	}
	if held == 0 || fewer == 0 {
		t.Errorf("died %d times with members stopped, %d times with some of them dead", held, fewer)
	}
}

// TestTerminateParent ends the program that started what the alert is about.
func TestTerminateParent(t *testing.T) {
	if !inside(t) {
		return
	}
	g := planted(t, `sleep 1000 & echo $!; wait`)
	until(t, "it has a child", func() bool { return len(g.living(t)) == 2 })
	pids := g.living(t)
	child := pids[0] + pids[1] - g.Process.Pid
	info, err := proc.Read(g.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	alert := &stream.Alert{Process: &stream.Process{PID: int64(child), Name: "sleep", Parent: &stream.Parent{
		PID: int64(g.Process.Pid), StartTicks: info.StartTicks, Name: info.Name, Exe: info.Exe}}}
	spec := action.TerminateSpec{Grace: "1s", Target: "parent"}
	wrong := *alert.Process.Parent
	wrong.StartTicks++
	refused(t, spec.Resolve(&stream.Alert{Process: &stream.Process{PID: int64(child), Parent: &wrong}}, action.Seen{Until: time.Now()}), floor(), "was reused")
	if r := apply(t, spec.Resolve(alert, action.Seen{Until: time.Now()}), floor()); r.Outcome != action.Terminated {
		t.Errorf("got %v", r)
	}
	if sig := g.endedBy(); sig != syscall.SIGTERM {
		t.Errorf("ended by %v", sig)
	}
	if left := g.living(t); !slices.Equal(left, []int{child}) {
		t.Errorf("there are left %v, not only the child %d", left, child)
	}
}

// sparing protects one process.
type sparing struct {
	action.Guard
	pid int
}

func (s sparing) Process(st proc.Stat) error {
	if st.PID == s.pid {
		return action.Refuse("PID %d is spared", st.PID)
	}
	return nil
}

// watching is a guard that looks on.
type watching func(proc.Stat) error

func (w watching) Process(st proc.Stat) error         { return w(st) }
func (watching) Address(netip.Addr) error             { return nil }
func (watching) Network(netip.Prefix) error           { return nil }
func (watching) Lifelines() (action.Lifelines, error) { return action.Lifelines{}, nil }
