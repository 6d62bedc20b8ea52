package e2e_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"riposte/ledger"
	"riposte/playbook/judge"
	"riposte/stream"
)

// TestOutage takes Redis away in the middle of everything and brings it back: nothing that
// it had acknowledged is lost, and the responder goes on by itself.
func TestOutage(t *testing.T) {
	t.Parallel()
	if !enter(t) {
		return
	}
	s := newSite(t, "--appendfsync", "always")
	trace := filepath.Join(s.dir, "trace")
	r := s.responder("enforce", "--trace", trace, "--lease", "500ms", "--playbooks", s.playbooks(`
name: contain
match: "true"
steps:
  - {name: stop, action: terminate_process, with: {grace: 2s}}
  - {name: note, action: log}
`))
	before := sleeper(t)
	s.add(before.alert("contained before"))
	before.endedBy()
	s.drained(1)

	// One alert is in its grace when Redis goes, others have just been published.
	slow := stubborn(t)
	s.add(slow.alert("within its grace"))
	until(t, func() string { return "is in the grace" }, func() bool { return len(effects(t, trace, "begin")) == 3 })
	var during []victim
	for range 10 {
		during = append(during, sleeper(t))
	}
	for _, v := range during {
		s.add(v.alert("published just before"))
	}
	s.redis.Kill()
	// The lease runs out: whoever cannot renew it does nothing more.
	until(t, func() string { return "gives up its grant:\n" + r.err.String() }, func() bool {
		return strings.Contains(r.err.String(), "grant lost")
	})
	s.redis.Restart()

	after := sleeper(t)
	s.add(after.alert("published after"))
	for _, v := range append(during, after) {
		if sig := v.endedBy(); sig != syscall.SIGTERM {
			t.Errorf("ended by %v", sig)
		}
	}
	if sig := slow.endedBy(); sig != syscall.SIGKILL {
		t.Errorf("ended by %v", sig)
	}
	s.drained(13)
	for _, e := range s.ledger() {
		// The effect of some was in place before their record was.
		want := []string{"stop terminated, note logged", "stop already_gone, note logged"}
		if e.State != "done" || !slices.Contains(want, e.outcomes()) && e.outcomes() != "stop killed, note logged" {
			t.Errorf("%+v", e)
		}
	}
	if n := len(s.ledger()); n != 13 {
		t.Errorf("%d entries of 13 alerts", n)
	}
	s.run("ledger", "audit", "--runtime-dir", filepath.Join(s.dir, "run"), "--state-dir", filepath.Join(s.dir, "state"))
	r.stop()
}

// TestRetry: a step that fails is tried again, as often as its playbook says.
func TestRetry(t *testing.T) {
	t.Parallel()
	if !enter(t) {
		return
	}
	s := newSite(t)
	path := filepath.Join(s.dir, "later", "log")
	s.responder("enforce", "--playbooks", s.playbooks(`
name: note
match: "true"
steps:
  - {name: note, action: log, with: {path: `+path+`}, retry: {attempts: 50, initial: 50ms, max: 50ms}}
  - {name: never, action: log, with: {path: `+filepath.Join(s.dir, "never", "log")+`}, retry: {attempts: 2, initial: 50ms}}
  - {name: last, action: log}
`))
	s.add(`{"id":"a","level":"HIGH"}`)
	until(t, func() string { return "has failed twice" }, func() bool {
		all := s.ledger()
		return len(all) == 1 && all[0].Attempts >= 2
	})
	if e := s.entry("a"); e.State != "held" || e.outcomes() != "note , never , last " {
		t.Errorf("%+v", e)
	}
	if err := os.Mkdir(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	s.drained(1)
	e := s.entry("a")
	if e.State != "done" || e.outcomes() != "note logged, never failed, last logged" ||
		!strings.HasPrefix(e.reason("never"), "after 2 attempts: log to ") || !strings.Contains(e.reason("never"), "no such file or directory") {
		t.Errorf("%+v", e)
	}
	if e.Attempts < 3 {
		t.Errorf("%d attempts; at least 3 of the first step are to be counted", e.Attempts)
	}
	if raw, err := os.ReadFile(path); err != nil || strings.Count(string(raw), "\n") != 1 {
		t.Errorf("%s: %v", raw, err)
	}
}

// TestHandBack stops a replica in the middle of a grace, as an upgrade does: it hands the
// alert back and goes at once, and another one finishes it. Nobody has died.
func TestHandBack(t *testing.T) {
	t.Parallel()
	if !enter(t) {
		return
	}
	s := newSite(t)
	trace := filepath.Join(s.dir, "trace")
	args := []string{"--trace", trace, "--lease", "30s", "--playbooks", s.playbooks(`
name: contain
match: "true"
steps:
  - {name: stop, action: terminate_process, with: {grace: 5s}}
`)}
	first := s.responder("enforce", args...)
	v := stubborn(t)
	raw := v.alert("t")
	s.add(raw)
	until(t, func() string { return "is in the grace" }, func() bool { return len(effects(t, trace, "begin")) == 1 })
	second := s.responder("enforce", args...)

	asked := time.Now()
	first.stop()
	if took := time.Since(asked); took > 3*time.Second {
		t.Errorf("it took %s to stop, within a grace of 5s", took)
	}
	until(t, func() string { return "goes on" }, func() bool { return len(effects(t, trace, "begin")) == 2 })
	if took := time.Since(asked); took > 5*time.Second {
		t.Errorf("it took %s until the other replica went on; the lease is 30s", took)
	}
	if sig := v.endedBy(); sig != syscall.SIGKILL {
		t.Errorf("ended by %v", sig)
	}
	s.drained(1)
	e := s.entry(idOf(t, raw))
	if replica := fmt.Sprintf("h1-%d-", second.cmd.Process.Pid); e.outcomes() != "stop killed" || e.Attempts != 2 || !strings.HasPrefix(e.Steps[0].Replica, replica) {
		t.Errorf("%+v, want by %s", e, replica)
	}
	entry, err := s.rdb.Get(t.Context(), host.LedgerKey(stream.DefaultGroup, stream.AlertID(e.ID))).Bytes()
	if err != nil {
		t.Fatal(err)
	}
	if h, _, err := ledger.ParseEntry(entry); err != nil || h.Deaths != 0 {
		t.Errorf("a clean stop counts as %d deaths, %v", h.Deaths, err)
	}
	s.run("ledger", "audit", "--runtime-dir", filepath.Join(s.dir, "run"), "--state-dir", filepath.Join(s.dir, "state"))
	second.stop()
}

// effects are the events of a kind in a trace.
func effects(t *testing.T, trace, kind string) []judge.Event {
	t.Helper()
	raw, err := os.ReadFile(trace)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	var events []judge.Event
	for line := range strings.Lines(string(raw)) {
		var e judge.Event
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		if e.Event == kind {
			events = append(events, e)
		}
	}
	return events
}
