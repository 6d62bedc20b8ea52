package crash

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"riposte/playbook/judge"
	"riposte/stream/proc"
	"riposte/test/build"
	"riposte/test/need"
	"riposte/test/redistest"
	"riposte/test/table"
)

// unhurried is the timeout of a step that nobody waits for.
const unhurried = 5 * time.Second

// long is a scene of a step that takes as long as the decoy bears it, up to a grace.
func (st staging) long(t *testing.T, host, decoy string, lease, grace, timeout time.Duration) *scene {
	t.Helper()
	s := st.scene(t, host, classes[0], lease, timeout)
	s.decoy = newDecoy(t, decoy)
	s.book(fmt.Sprintf("{name: act, action: terminate_process, with: {grace: %v}, timeout: %v}", grace, timeout), s.after())
	return s
}

// beginning is when a replica began the effect, as the trace says.
func (s *scene) beginning(by *replica) (time.Time, bool) {
	s.t.Helper()
	raw, err := os.ReadFile(s.traceFile())
	if err != nil {
		return time.Time{}, false
	}
	events, _, err := judge.Read(raw)
	if err != nil {
		s.t.Fatal(err)
	}
	i := slices.IndexFunc(events, func(e judge.Event) bool { return e.Event == judge.Begin && e.Replica == by.name() })
	if i < 0 {
		return time.Time{}, false
	}
	return events[i].Time(), true
}

// contained wants one of these outcomes, and nothing lost or doubled.
func (s *scene) contained(outcomes ...string) verdict {
	s.t.Helper()
	s.stop()
	v := s.judge()
	if v.lost+v.doubled > 0 || !slices.Contains(outcomes, v.outcome) {
		s.t.Errorf("lost %d, doubled %d, outcome %q; want %q", v.lost, v.doubled, v.outcome, outcomes)
	}
	s.audit()
	return v
}

func TestTakeover(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	st := staging{build.Riposte(t, "riposte_crashpoints"), server.URL, server.Client()}
	together([]func(){
		func() { t.Run("killed in the middle", st.killedInTheMiddle) },
		func() { t.Run("alive", st.alive) },
		func() { t.Run("frozen inside the gate", st.frozenInside) },
		func() { t.Run("without a shared folder", st.unfenced) },
		func() { t.Run("without a shared folder, late", st.unfencedLate) },
		func() { t.Run("killed inside a script", st.killedInScript) },
	})
}

// A replica that is killed in the middle of a long action is taken over at once, and not
// when its lease is over.
func (st staging) killedInTheMiddle(t *testing.T) {
	const lease = 2 * time.Second
	s := st.long(t, "middle", tough, lease, 10*time.Second, 12*time.Second)
	victim := s.start("begun:kill:3s") // the lease has been renewed by then
	s.publish()
	await(t, "the effect to begin", func() bool { _, ok := s.beginning(victim); return ok })
	peer := s.start("")
	after := s.takenOver(victim, peer)
	if after >= lease/2 {
		t.Errorf("taken over %v after the death, as if by the lease of %v", after, lease)
	}
	s.settle()
	v := s.contained("terminated")
	table.Add(t, result{verdict: v, takeover: after}.into(
		table.Row{Group: "crash", Fault: "killed in the middle of a 10 s action, lease 2 s", Class: "verifiable"}))
}

// A replica that lives keeps its alert for as long as the action takes.
func (st staging) alive(t *testing.T) {
	s := st.long(t, "alive", stubborn, 2*time.Second, 10*time.Second, 12*time.Second)
	s.start("")
	s.start("")
	s.publish()
	s.settle()
	if s.happened("resume") {
		t.Errorf("a holder that lives was superseded:%s", s.history())
	}
	entry, _ := s.entry()
	step := entry.Body.Steps[0]
	if took := step.Ended.Sub(step.Started); took < 10*time.Second {
		t.Errorf("the action took %v, want 10s", took)
	}
	v := s.contained("killed")
	table.Add(t, result{verdict: v}.into(
		table.Row{Group: "crash", Fault: "none, a 10 s action, lease 2 s", Class: "verifiable"}))
}

// One that is frozen inside the gate is ended and replaced when its time is up.
func (st staging) frozenInside(t *testing.T) {
	const timeout, margin = time.Second, 2 * time.Second
	s := st.long(t, "frozen", stubborn, shortLease, 300*time.Millisecond, timeout)
	victim := s.start("begun:stop")
	s.publish()
	victim.awaitFrozen(t)
	begun, ok := s.beginning(victim)
	if !ok {
		t.Fatal("the victim left no word of its begin")
	}
	peer := s.start("")
	s.settle()
	replaced, ok := s.beginning(peer)
	if !ok {
		t.Fatal("the peer did not begin")
	}
	await(t, "the frozen replica to be ended", victim.dead)
	if !victim.wasKilled() {
		t.Errorf("the victim was not ended: %v\n%s", victim.err, victim.words())
	}
	over := replaced.Sub(begun) - timeout - margin
	t.Logf("replaced %v after the gate's deadline of %v", over, timeout+margin)
	if over < -10*time.Millisecond || over > time.Second {
		t.Errorf("replaced %v after the gate's deadline, want 0 to 1s", over)
	}
	v := s.contained("killed")
	table.Add(t, result{verdict: v, takeover: over}.into(
		table.Row{Group: "crash", Fault: "frozen inside the gate; replaced after its deadline by", Class: "verifiable"}))
}

// Replicas that share no folder take over by the lease alone, also where it was renewed
// time and again, and the peers were told as often that somebody is at work.
func (st staging) unfenced(t *testing.T)     { st.apart(t, "unfenced", "begun:kill:200ms") }
func (st staging) unfencedLate(t *testing.T) { st.apart(t, "unfenced-late", "begun:kill:7s") }

func (st staging) apart(t *testing.T, host, crash string) {
	const lease = 2 * time.Second
	s := st.long(t, host, tough, lease, 10*time.Second, 12*time.Second)
	other := filepath.Join(s.dir, "other")
	victim := s.start(crash, "--unfenced")
	s.publish()
	await(t, "the effect to begin", func() bool { _, ok := s.beginning(victim); return ok })
	peer := s.start("", "--unfenced", "--runtime-dir", filepath.Join(other, "run"), "--state-dir", filepath.Join(other, "state"))
	after := s.takenOver(victim, peer)
	if after > lease+time.Second {
		t.Errorf("taken over %v after the death, want at most the lease of %v and 1s", after, lease)
	}
	s.settle()
	v := s.contained("terminated")
	table.Add(t, result{verdict: v, takeover: after}.into(
		table.Row{Group: "crash", Fault: "killed at " + strings.TrimPrefix(crash, "begun:kill:") + ", without a shared folder, lease 2 s", Class: "verifiable"}))
}

// takenOver waits until a victim has died and a peer has begun, and returns how long that
// took from one to the other.
func (s *scene) takenOver(victim, peer *replica) time.Duration {
	s.t.Helper()
	await(s.t, "the victim to die", victim.dead)
	if !victim.wasKilled() {
		s.t.Fatalf("the victim was not killed: %v\n%s", victim.err, victim.words())
	}
	await(s.t, "the peer to take over", func() bool { _, ok := s.begun(peer); return ok })
	at, _ := s.begun(peer)
	after := max(at.Sub(victim.lastAlive), time.Millisecond) // the journal's resolution
	s.t.Logf("taken over %v after the death", after)
	return after
}

// A script dies with the replica that runs it. What the script has started does not; as
// long as that lives the gate is locked, and only then it is decided that nobody knows.
func (st staging) killedInScript(t *testing.T) {
	s := st.scene(t, "script", classes[2], longLease, unhurried)
	if err := os.Mkdir(filepath.Dir(s.file()), 0o700); err != nil {
		t.Fatal(err)
	}
	child := filepath.Join(s.dir, "child")
	script := fmt.Sprintf("echo $RIPOSTE_STEP_KEY >> %s; sleep 2 & echo $! > %s.new; mv %[2]s.new %[2]s; wait; echo $RIPOSTE_STEP_KEY >> %[1]s", s.file(), child)
	s.book(fmt.Sprintf(`{name: act, action: run_script, with: {argv: [%q, "-c", %q]}, timeout: %v}`, need.Binary(t, "sh"), script, s.timeout), s.after())
	victim := s.start("begun:kill:700ms")
	s.publish()
	var pid int
	await(t, "the script to start its child", func() bool {
		raw, err := os.ReadFile(child)
		if err == nil {
			pid, err = strconv.Atoi(strings.TrimSpace(string(raw)))
		}
		return err == nil
	})
	peer := s.start("")
	after := s.takenOver(victim, peer)
	var lived time.Time // the child, at least until then
	await(t, "the script's child to end", func() bool {
		now := time.Now()
		st, err := proc.ReadStat(pid)
		if err != nil || st.Zombie() {
			return true
		}
		lived = now
		return false
	})
	s.settle()
	entry, _ := s.entry()
	if s.closed("act").Before(lived) {
		t.Errorf("the outcome was decided while a child of the script was alive")
	}
	if lived.Before(victim.lastAlive) {
		t.Error("the child did not outlive the replica: this test proves nothing")
	}
	t.Logf("the child outlived the replica by %v; the outcome: %s", lived.Sub(victim.lastAlive), entry.Body.Steps[0].Reason)
	v := s.contained("unknown")
	if v.effects != 1 {
		t.Errorf("%d lines of the script, want the first", v.effects)
	}
	table.Add(t, result{verdict: v, takeover: after}.into(
		table.Row{Group: "crash", Fault: "killed inside a script whose child lives on", Class: "at-most-once"}))
}

// closed is when the outcome of a step was closed, as the trace says.
func (s *scene) closed(step string) time.Time {
	s.t.Helper()
	for _, e := range s.events() {
		if e.Event == judge.Closed && e.Key == s.key(step) {
			return e.Time()
		}
	}
	s.t.Fatalf("no outcome of %s was closed", step)
	return time.Time{}
}
