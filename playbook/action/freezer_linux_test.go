package action_test

import (
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"riposte/playbook/action"
	"riposte/playbook/guard"
	"riposte/stream/proc"
	"riposte/test/need"
)

// group is a control group of a test's own, by its folder.
type group struct {
	t   *testing.T
	dir string
}

func newGroup(t *testing.T, parent, name string) group {
	t.Helper()
	dir := filepath.Join(parent, name)
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return group{t, dir}
}

func (g group) write(file, text string) {
	g.t.Helper()
	if err := os.WriteFile(filepath.Join(g.dir, file), []byte(text), 0); err != nil {
		g.t.Fatal(err)
	}
}

// take moves a process into the group.
func (g group) take(v victim) victim {
	g.t.Helper()
	g.write("cgroup.procs", strconv.Itoa(v.Process.Pid))
	return v
}

func (g group) has(file, line string) bool {
	g.t.Helper()
	raw, err := os.ReadFile(filepath.Join(g.dir, file))
	if err != nil {
		g.t.Fatal(err)
	}
	return slices.Contains(strings.Split(string(raw), "\n"), line)
}

// is wants the group to be frozen, or told to be.
func (g group) is(frozen bool) {
	g.t.Helper()
	want := "0"
	if frozen {
		want = "1"
	}
	if !g.has("cgroup.freeze", want) || !g.has("cgroup.events", "frozen "+want) {
		g.t.Errorf("its control group is not as wanted: frozen %s", want)
	}
}

// allowed is a guard of today, which protects what was suspended yesterday.
type allowed struct{ action.Guard }

func (allowed) Process(proc.Stat) error { return action.Refuse("it is on the allow-list") }

// takeBack undoes the suspension of an alert.
func (s *site) takeBack(v victim, alert string) (r action.Receipt) {
	s.t.Helper()
	e := takenBack(s.t, v.suspend(), "resume_process")
	s.insideStep(e, alert, stepOf(alert)+"~undo", func(env action.Env) {
		env.Undoes, env.Guard = stepOf(alert), allowed{env.Guard}
		s.check(e, env, action.Resumed)
		if r, _, _ = e.Probe(s.t.Context(), env); r.Outcome != action.Resumed {
			s.t.Errorf("probe: %v", r)
		}
	})
	return r
}

// suspends wants a process suspended, and returns the reason.
func (s *site) suspends(v victim, alert string) (reason string) {
	s.t.Helper()
	s.inside(v.suspend(), alert, func(env action.Env) {
		r := apply(s.t, v.suspend(), env)
		reason = r.Reason
		if r.Outcome != action.Suspended {
			s.t.Errorf("got %v", r)
		}
		s.check(v.suspend(), env, action.Suspended)
	})
	return reason
}

// claimers are the alerts that claim a process.
func (s *site) claimers(v victim) string {
	s.t.Helper()
	return s.claimed(v.suspend().Targets()[0])
}

func wants(t *testing.T, reason, part string) {
	t.Helper()
	if !strings.Contains(reason, part) {
		t.Errorf("got %q, want %q in it", reason, part)
	}
}

// onPut are claims whose writer is kept waiting before one is put down.
type onPut struct {
	action.Claims
	do func(action.Claim)
}

func (p onPut) Put(target string, c action.Claim) error {
	p.do(c)
	return p.Claims.Put(target, c)
}

// sparingLater protects one process, which is not there yet.
type sparingLater struct {
	action.Guard
	pid *int
}

func (s sparingLater) Process(st proc.Stat) error { return sparing{s.Guard, *s.pid}.Process(st) }

// forker is a process that starts another one when its input is closed.
func forker(t *testing.T) (v victim, fork io.Closer) {
	t.Helper()
	cmd := exec.Command("sh", "-c", `echo ready; read x; sleep 1000 & wait`)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	return start(t, cmd, true), in
}

func TestFreeze(t *testing.T) {
	dir := need.ControlGroups(t)
	if !inside(t) {
		return
	}
	t.Run("own group", func(t *testing.T) {
		g, s := newGroup(t, dir, "own"), newSite(t)
		v := g.take(threaded(t))
		notInPlace(t, v.suspend(), floor())
		wants(t, s.suspends(v, "a"), "with its control group /"+filepath.Base(dir)+"/own")
		g.is(true)
		if got := v.states(); strings.Contains(got, "T") {
			t.Errorf("its threads are in states %s: SIGSTOP was sent, too", got)
		}
		v.Process.Signal(syscall.SIGCONT) // does not help it
		inPlace(t, v.suspend(), floor(), action.Suspended)
		wants(t, s.takeBack(v, "a").Reason, "was not suspended")
		g.is(false)
		if got := s.claimers(v); got != "" {
			t.Errorf("claims of %q", got)
		}
	})
	t.Run("no group of its own", func(t *testing.T) {
		// Nobody else is frozen, not even for a moment.
		signalled := func(s *site, v victim) {
			t.Helper()
			s.inside(v.suspend(), "a", func(env action.Env) {
				env.Claims = onPut{env.Claims, func(c action.Claim) {
					if strings.Contains(string(c.Detail), "frozen") {
						t.Errorf("it was to be frozen: %s", c.Detail)
					}
				}}
				wants(t, apply(t, v.suspend(), env).Reason, "after SIGSTOP")
			})
		}
		g, s := newGroup(t, dir, "shared"), newSite(t)
		v, other := g.take(sleeper(t)), g.take(sleeper(t))
		signalled(s, v)
		g.is(false)
		if v.states() != "T" || other.states() == "T" {
			t.Errorf("states %s, and of the other %s", v.states(), other.states())
		}
		wants(t, s.takeBack(v, "a").Reason, "was not suspended")

		parent := newGroup(t, dir, "parent")
		parent.take(v)
		below := newGroup(t, parent.dir, "below")
		signalled(s, v)
		parent.is(false)
		s.takeBack(v, "a")
		if err := os.Remove(below.dir); err != nil {
			t.Fatal(err)
		}

		own := newGroup(t, dir, "unwritable") // as in a container
		own.take(v)
		mount := filepath.Dir(dir)
		command(t, "mount", "-o", "remount,bind,ro", mount)
		signalled(s, v)
		command(t, "mount", "-o", "remount,bind,rw", mount)
		own.is(false)
		s.takeBack(v, "a")
	})
	t.Run("forks meanwhile", func(t *testing.T) {
		for _, c := range []struct {
			name       string
			protected  bool // the child
			stranger   bool // comes in, too
			wantFrozen bool
		}{{"child", false, false, true}, {"protected child", true, false, false}, {"stranger", false, true, false}} {
			g, s := newGroup(t, dir, strings.ReplaceAll(c.name, " ", "-")), newSite(t)
			v, fork := forker(t)
			g.take(v)
			other := sleeper(t)
			child := -1
			s.inside(v.suspend(), "a", func(env action.Env) {
				env.Claims = onPut{env.Claims, func(action.Claim) {
					if fork.Close(); c.stranger && child < 0 {
						g.take(other)
					}
					until(t, "it has a child", func() bool {
						raw, _ := os.ReadFile(filepath.Join(g.dir, "cgroup.procs"))
						for _, field := range strings.Fields(string(raw)) {
							pid, _ := strconv.Atoi(field)
							if st, err := proc.ReadStat(pid); err == nil && st.PPID == v.Process.Pid {
								child = pid
							}
						}
						return child > 0
					})
				}}
				nobody := -1
				env.Guard = sparingLater{&guard.Floor{}, &nobody}
				if c.protected {
					env.Guard = sparingLater{&guard.Floor{}, &child}
				}
				r := apply(t, v.suspend(), env)
				g.is(c.wantFrozen)
				if !c.wantFrozen {
					wants(t, r.Reason, "after SIGSTOP")
				}
				if got := (victim{&exec.Cmd{Process: &os.Process{Pid: child}}, t}).states(); got == "T" {
					t.Errorf("%s: the child is in state %s", c.name, got)
				}
			})
			s.takeBack(v, "a")
			g.is(false)
			if got := v.states(); got == "T" {
				t.Errorf("%s: it is in state %s", c.name, got)
			}
			syscall.Kill(child, syscall.SIGKILL)
			v.Process.Kill()
		}
	})
	t.Run("frozen by somebody else", func(t *testing.T) {
		g, s := newGroup(t, dir, "others"), newSite(t)
		v := g.take(sleeper(t))
		g.write("cgroup.freeze", "1")
		until(t, "it is frozen", func() bool { return g.has("cgroup.events", "frozen 1") })
		wants(t, s.suspends(v, "a"), "was found frozen")
		wants(t, s.takeBack(v, "a").Reason, "not by that step")
		g.is(true)
		resume := &action.ResumeProcess{Process: v.suspend().Process}
		s.apply(resume, "b", action.Resumed)
		g.is(false)
	})
	t.Run("killed while frozen", func(t *testing.T) {
		g, s := newGroup(t, dir, "killed"), newSite(t)
		v := g.take(sleeper(t))
		s.suspends(v, "a")
		begun := time.Now()
		e := v.effect(20 * time.Second)
		s.inside(e, "b", func(env action.Env) {
			if r := apply(t, e, env); r.Outcome != action.Killed || !strings.Contains(r.Reason, "was stopped") {
				t.Errorf("got %v", r)
			}
		})
		if took := time.Since(begun); took > 10*time.Second {
			t.Errorf("it was given a grace: %s", took)
		}
		if sig := v.endedBy(); sig != syscall.SIGKILL {
			t.Errorf("ended by %v", sig)
		}
		// Whoever is started in there next is to run.
		g.is(false)
		if got := s.claimed("process/" + strconv.Itoa(v.Process.Pid)); got != "" {
			t.Errorf("claims of %q", got)
		}
	})
	t.Run("tree", func(t *testing.T) {
		root, child := newGroup(t, dir, "root"), newGroup(t, dir, "below-root")
		g := planted(t, `sh -c 'echo ready; sleep 1000 & wait' & wait`).whole(t, 3)
		root.take(g.victim)
		s := newSite(t)
		s.suspends(g.victim, "a")
		for _, pid := range g.living(t) {
			if st, err := proc.ReadStat(pid); err == nil && st.PPID == g.Process.Pid {
				child.write("cgroup.procs", strconv.Itoa(pid))
			}
		}
		child.write("cgroup.freeze", "1")
		until(t, "its child is frozen", func() bool { return child.has("cgroup.events", "frozen 1") })
		if r := apply(t, g.tree(), floor()); r.Outcome != action.Killed {
			t.Errorf("got %v", r)
		}
		if left := g.living(t); len(left) > 0 {
			t.Errorf("living: %v", left)
		}
	})
	t.Run("looked at", func(t *testing.T) {
		g := newGroup(t, dir, "looked-at")
		v := g.take(sleeper(t))
		v.runs("sleep")
		apply(t, v.suspend(), floor())
		g.is(true)
		got := readEvidence(t, apply(t, v.evidence(), evidenceEnv(t)))
		if !got.Alive || got.members["exe"].Size == 0 || got.parts["maps"] == "" {
			t.Errorf("%+v", got.Members)
		}
		who := v.suspend().Process
		b := &action.BlockIP{Of: &who, TTL: action.Duration(time.Hour), Backend: action.NFTables}
		whole, err := b.Look(t.Context(), floor())
		if err != nil || !strings.Contains(whole.(*action.BlockIP).Looked, "talks to 0 addresses") {
			t.Errorf("%+v, %v", whole, err)
		}
		g.is(true)
	})
	open, err := filepath.Glob("/proc/self/fd/*")
	if err != nil {
		t.Fatal(err)
	}
	for _, fd := range open {
		if to, err := os.Readlink(fd); err == nil && strings.HasPrefix(to, filepath.Dir(dir)) {
			t.Errorf("left open: %s", to)
		}
	}
}

// TestSuspendClaims has two alerts suspend one process, by the freezer and by SIGSTOP.
func TestSuspendClaims(t *testing.T) {
	dir := need.ControlGroups(t)
	if !inside(t) {
		return
	}
	for _, how := range []string{"freezer", "SIGSTOP"} {
		made := func(t *testing.T) victim {
			v := threaded(t)
			if how == "freezer" {
				newGroup(t, dir, how+strconv.Itoa(v.Process.Pid)).take(v)
			}
			return v
		}
		running := func(v victim) bool {
			raw, _ := os.ReadFile(filepath.Join(dir, how+strconv.Itoa(v.Process.Pid), "cgroup.events"))
			return !strings.Contains(string(raw), "frozen 1") && v.states() != "T"
		}
		t.Run(how, func(t *testing.T) {
			for _, order := range [][]string{{"a", "b"}, {"b", "a"}} {
				v, s := made(t), newSite(t)
				s.suspends(v, "a")
				if r, ok := s.inPlace(v.suspend(), "b"); ok {
					t.Errorf("in place without a claim: %v", r)
				}
				s.suspends(v, "b")
				if got := s.claimers(v); got != "a b" {
					t.Errorf("claims of %q", got)
				}
				wants(t, s.takeBack(v, order[0]).Reason, "stays suspended")
				if got := s.claimers(v); got != order[1] || running(v) {
					t.Errorf("%s was undone: claims of %q, running: %t", order[0], got, running(v))
				}
				s.takeBack(v, order[1])
				if got := s.claimers(v); got != "" || !running(v) {
					t.Errorf("both were undone: claims of %q, running: %t", got, running(v))
				}
			}
		})
		t.Run(how+", all lifted", func(t *testing.T) {
			v, s := made(t), newSite(t)
			s.suspends(v, "a")
			s.suspends(v, "b")
			s.apply(&action.ResumeProcess{Process: v.suspend().Process}, "c", action.Resumed)
			if got := s.claimers(v); got != "" || !running(v) {
				t.Errorf("claims of %q, running: %t", got, running(v))
			}
			wants(t, s.takeBack(v, "a").Reason, "was not suspended")
		})
		t.Run(how+", resumed by hand", func(t *testing.T) {
			v, s := made(t), newSite(t)
			s.suspends(v, "a")
			if how == "freezer" {
				os.WriteFile(filepath.Join(dir, how+strconv.Itoa(v.Process.Pid), "cgroup.freeze"), []byte("0"), 0)
			}
			v.Process.Signal(syscall.SIGCONT)
			until(t, "it runs", func() bool { return running(v) })
			s.reassert(0)
			if got := s.claimers(v); got != "a" || !running(v) {
				t.Errorf("claims of %q, running: %t", got, running(v))
			}
			if r, ok := s.inPlace(v.suspend(), "a"); ok {
				t.Errorf("in place: %v", r)
			}
			s.suspends(v, "a") // but an attempt of its own step does
		})
		t.Run(how+", gone", func(t *testing.T) {
			v, s := made(t), newSite(t)
			s.suspends(v, "a")
			s.reassert(0)
			if got := s.claimers(v); got != "a" {
				t.Errorf("claims of %q", got)
			}
			target := v.suspend().Targets()[0]
			v.Process.Kill() // by somebody else
			v.Wait()
			s.reassert(0)
			if got := s.claimed(target); got != "" {
				t.Errorf("claims of %q", got)
			}
			if raw, _ := os.ReadFile(filepath.Join(dir, how+strconv.Itoa(v.Process.Pid), "cgroup.freeze")); strings.Contains(string(raw), "1") {
				t.Error("its group stays frozen, for whoever comes into it")
			}
		})
	}
	t.Run("stopped before", func(t *testing.T) {
		v, s := threaded(t).stopped(), newSite(t)
		wants(t, s.suspends(v, "a"), "was found stopped")
		wants(t, s.takeBack(v, "a").Reason, "not by that step")
		if got := v.states(); got != "T" {
			t.Errorf("its threads are in states %s", got)
		}
	})
	t.Run("taken over", func(t *testing.T) {
		// Found stopped, resumed by hand, and stopped for b: who goes last takes that back.
		v, s := threaded(t).stopped(), newSite(t)
		s.suspends(v, "a")
		v.Process.Signal(syscall.SIGCONT)
		until(t, "it runs", func() bool { return v.states() != "T" })
		s.suspends(v, "b")
		s.takeBack(v, "b")
		if got := v.states(); got != "T" {
			t.Errorf("still claimed, and its threads are in states %s", got)
		}
		wants(t, s.takeBack(v, "a").Reason, "was not suspended")
	})
	t.Run("one that does not count", func(t *testing.T) {
		// Its step has died, or ended otherwise.
		v, s := threaded(t), newSite(t)
		s.suspends(v, "a")
		s.inside(v.suspend(), "b", func(env action.Env) {
			list, err := env.Claims.List(v.suspend().Targets()[0])
			if err != nil || len(list) != 1 {
				t.Fatal(list, err)
			}
			c := list[0]
			c.Key, c.AlertID, c.Begun = env.Key, "b", true
			if err := env.Claims.Put(v.suspend().Targets()[0], c); err != nil {
				t.Fatal(err)
			}
		})
		s.takeBack(v, "a")
		if got := s.claimers(v); got != "b?" || v.states() == "T" {
			t.Errorf("claims of %q, states %s", got, v.states())
		}
	})
	t.Run("other processes", func(t *testing.T) {
		v, s := threaded(t), newSite(t)
		s.suspends(v, "a")
		s.inside(v.suspend(), "x", func(env action.Env) {
			list, err := env.Claims.List(v.suspend().Targets()[0])
			if err != nil || len(list) != 1 {
				t.Fatal(list, err)
			}
			boot, _ := proc.BootID()
			ticks := strconv.FormatUint(v.suspend().StartTicks, 10)
			for key, change := range map[string][2]string{
				"reused": {`"start_ticks":` + ticks, `"start_ticks":1`}, "rebooted": {boot, "00000000-0000-0000-0000-000000000000"},
				"elsewhere": {`"pid_ns":`, `"pid_ns":1`},
			} {
				c := list[0]
				c.Key, c.AlertID = key, key
				if c.Detail = []byte(strings.Replace(string(c.Detail), change[0], change[1], 1)); string(c.Detail) == string(list[0].Detail) {
					t.Fatalf("nothing changed in %s", c.Detail)
				}
				if err := env.Claims.Put(v.suspend().Targets()[0], c); err != nil {
					t.Fatal(err)
				}
			}
		})
		// They do not keep it suspended, nor are they taken back.
		s.takeBack(v, "a")
		if got := v.states(); got == "T" {
			t.Error("it stays stopped")
		}
		if got := s.claimers(v); got != "elsewhere rebooted reused" {
			t.Errorf("claims of %q", got)
		}
		s.suspends(v, "a")
		if got := s.claimers(v); got != "elsewhere a" && got != "a elsewhere" {
			t.Errorf("claims of %q", got)
		}
	})
}

// TestFreezeKilled kills a process at the worst moments: when the claim is written and nothing
// frozen yet, and when it is frozen and the claim does not count yet.
func TestFreezeKilled(t *testing.T) {
	dir := os.Getenv("RIPOSTE_TEST_SITE")
	if at := os.Getenv(helperEnv); at != "" {
		pid, err := strconv.Atoi(os.Getenv("RIPOSTE_TEST_PID"))
		if err != nil {
			t.Fatal(err)
		}
		s := openSite(t, dir)
		e := victim{&exec.Cmd{Process: &os.Process{Pid: pid}}, t}.suspend()
		s.inside(e, "a", func(env action.Env) {
			puts := map[string]int{"claimed": 1, "frozen": 2}[at]
			env.Claims = &mortalClaims{Claims: env.Claims, puts: puts, after: at == "claimed"}
			e.Apply(t.Context(), env)
		})
		t.Fatal("it has survived")
	}
	groups := need.ControlGroups(t)
	if !inside(t) {
		return
	}
	for at, frozen := range map[string]bool{"claimed": false, "frozen": true} {
		for _, joined := range []bool{false, true} {
			name := at + map[bool]string{true: "-joined"}[joined]
			t.Run(name, func(t *testing.T) {
				g := newGroup(t, groups, name)
				v, dir := g.take(sleeper(t)), t.TempDir()
				killed(t, "TestFreezeKilled", at, "RIPOSTE_TEST_SITE="+dir, "RIPOSTE_TEST_PID="+strconv.Itoa(v.Process.Pid))
				s := openSite(t, dir)
				if got := s.claimers(v); got != "a?" {
					t.Errorf("left behind: claims of %q", got)
				}
				g.is(frozen)
				if r, ok := s.inPlace(v.suspend(), "a"); ok {
					t.Errorf("in place with a claim that does not count: %v", r)
				}
				if r, ok, err := v.suspend().Probe(t.Context(), floor()); ok != frozen || err != nil {
					t.Errorf("without claims: %v, %t, %v", r, ok, err)
				}
				if joined { // before anybody has looked who is in there
					g.take(sleeper(t))
				}
				s.suspends(v, "a")
				if got := s.claimers(v); got != "a" {
					t.Errorf("completed: claims of %q", got)
				}
				g.is(!joined)
				s.takeBack(v, "a")
				g.is(false)
				if got := v.states(); got == "T" {
					t.Errorf("taken back, and in state %s", got)
				}
			})
		}
	}
}
