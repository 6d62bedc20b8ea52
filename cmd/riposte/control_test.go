package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"riposte/ledger"
	"riposte/playbook"
	"riposte/stream"
)

// says fails where an output lacks one of some words.
func says(t *testing.T, out string, words ...string) {
	t.Helper()
	for _, w := range words {
		if !strings.Contains(out, w) {
			t.Errorf("lacks %q:\n%s", w, out)
		}
	}
}

func TestPauseCommands(t *testing.T) {
	f := newFleet(t)
	f.add("alert", alertNow("x-1"))
	says(t, f.must(0, "pause", "--reason", "because").out, "host h1: paused by ", ": because")
	says(t, f.must(0, "pause", "--reason", "another").out, ": because") // the first stands
	says(t, f.must(0, "status").out, "PAUSED: host on this host", "because")
	stop := f.responder()
	f.eventually("the alert waits", func() bool { l := f.list("--state", "waiting"); return len(l) == 1 })
	says(t, f.must(0, "resume").out, "host h1: resumed")
	f.settled("x-1", "done")
	says(t, f.must(0, "resume").out, "was not paused")
	stop()

	r := f.must(0, "pause", "--playbook", "p", "-o", "json")
	var done switched
	if err := json.Unmarshal([]byte(r.out), &done); err != nil || done.Switch != "pause:playbook:p" || !done.Changed || done.Paused == nil {
		t.Errorf("%v: %s", err, r.out)
	}
	says(t, f.must(0, "resume", "--playbook", "p", "-o", "json").out, `"changed": true`)
	for _, args := range [][]string{{"pause", "--group", "a", "--playbook", "b"}, {"pause", "--group", "a b"}, {"pause", "--playbook", "a b"}, {"pause", "now"}} {
		f.must(2, args...)
	}
	// Without a host it is the fleet's.
	everywhere := cli(t, "", "pause", f.args[0], f.args[1])
	says(t, everywhere.out, "every host: paused by ")
	says(t, f.must(0, "status").out, "PAUSED: fleet everywhere")
	says(t, cli(t, "", "resume", f.args[0], f.args[1]).out, "every host: resumed")
	if r := f.must(0, "status"); strings.Contains(r.out, "PAUSED") {
		t.Errorf("all is resumed:\n%s", r.out)
	}
}

func TestBreakerCommands(t *testing.T) {
	f := newFleet(t)
	f.add("alert", alertNow("x-1"))
	if r := f.must(1, "breaker", "reset", "p"); !strings.Contains(r.err, "has not tripped") {
		t.Errorf("stderr %s", r.err)
	}
	now := time.Now().UnixMicro()
	f.rdb.HSet(f.ctx, "riposte:{h1}:control", "tripped:p/log", fmt.Sprint(now, " 20 60000000 x-1"), "window:p/log", fmt.Sprint(now, " x-1 "))
	says(t, f.must(0, "breaker", "list").out, "p/log", "20 within 60 s", "x-1")
	says(t, f.must(0, "breaker", "list", "-o", "json").out, `"breaker": "p/log"`, `"most": 20`)
	says(t, f.must(0, "status").out, "BREAKER p/log has tripped", "riposte breaker reset p/log --host h1")
	says(t, f.must(0, "breaker", "reset", "p/log").out, "breaker p/log: reset")
	if n := f.rdb.HLen(f.ctx, "riposte:{h1}:control").Val(); n != 0 {
		t.Errorf("%d fields are left", n)
	}
	b := ledger.Breaker{Name: "p", Most: 1, Within: time.Minute}
	if _, tripped, err := ledger.Reserve(f.ctx, f.rdb, b, []string{"h1/containment/x-1", "h1/containment/x-2"}); err != nil || !tripped {
		t.Fatal(tripped, err)
	}
	says(t, cli(t, "", "breaker", "list", f.args[0], f.args[1]).out, "p", "fleet", "1 within 60 s", "h1/containment/x-2")
	says(t, f.must(0, "status").out, "BREAKER fleet:p has tripped", "riposte breaker reset p --fleet")
	says(t, f.must(0, "breaker", "reset", "p", "--fleet", "-o", "json").out, `"reset": true`)
	if left := f.rdb.Keys(f.ctx, "riposte:{fleet}:*").Val(); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
	f.must(2, "breaker", "reset")
	f.must(2, "breaker")
}

func TestDecisionCommands(t *testing.T) {
	f := newFleet(t)
	f.add("alert", alertNow("x-1"))
	stop := f.responder()
	f.settled("x-1", "done")
	stop()
	for _, word := range []string{"approve", "deny"} {
		f.must(2, word, "x-1")
		if r := f.must(1, word, "x-1", "--reason", "why"); !strings.Contains(r.err, "waits for no approval") {
			t.Errorf("stderr %s", r.err)
		}
		f.must(1, word, "unknown", "--reason", "why")
	}
	if r := f.must(1, "undo", "x-1"); !strings.Contains(r.err, "nothing of it stands that can be undone: default/block is observed, ") {
		t.Errorf("stderr %s", r.err)
	}
	if r := f.must(1, "undo", "x-1", "--step", "p/none"); !strings.Contains(r.err, `it has no step "p/none"`) {
		t.Errorf("stderr %s", r.err)
	}
	f.must(2, "undo")

	// One that waits, as a responder in mode approve leaves it.
	l, err := ledger.New(f.rdb, ledger.Config{Host: "h1", Group: "containment", Owner: "r"})
	if err != nil {
		t.Fatal(err)
	}
	body := ledger.Body{Seen: time.Now(), Expires: time.Now().Add(time.Hour), Approval: &ledger.Approval{Within: time.Hour, Until: time.Now().Add(time.Hour)},
		Steps: []ledger.Step{
			{Playbook: "p", Step: "s", Action: "log", Mode: "approve", With: []byte(`{}`)},
			{Playbook: "p", Step: "end", Action: "terminate_process", Mode: "approve", With: []byte(`{"pid": 4711, "tree": true}`), If: `steps.s.outcome == "logged"`},
			{Playbook: "p", Step: "later", Action: "log", Mode: "approve", Spec: []byte(`{}`)},
		}}
	answers, err := l.Begin(f.ctx, []ledger.Claim{{ID: "y-1", StreamID: f.add("id", "y-1", "alert", alertNow("y-1")), Nonce: ledger.NewNonce(), Digest: "d", Body: body}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Park(f.ctx, answers[0].Grant, []byte(alertNow("y-1")), time.Now().Add(time.Hour), "approval: p/s would log", false); err != nil {
		t.Fatal(err)
	}
	says(t, f.must(0, "ledger", "show", "y").out, "waits", "approval: p/s would log; until ")
	says(t, f.must(0, "ledger", "list", "-o", "json").out, `"waits": "approval: p/s would log"`)
	// Whoever says yes says it to all of them.
	intents := []string{"would log to standard output", `would terminate PID 4711 and its descendants, if steps.s.outcome == `, "would depend on outcomes of earlier steps"}
	says(t, f.must(0, "ledger", "show", "y").out, intents...)
	says(t, f.must(0, "ledger", "show", "y", "-o", "json").out, intents[0], "would terminate PID 4711", intents[2])
	says(t, f.must(0, "approve", "y", "--reason", "it is fine", "-o", "json").out, `"answer": "yes"`, `"reason": "it is fine"`)
	says(t, f.must(0, "ledger", "show", "y").out, "approved by ", "it is fine")
	if r := f.must(1, "deny", "y", "--reason", "no"); !strings.Contains(r.err, "has said yes") {
		t.Errorf("stderr %s", r.err)
	}
}

// undoing has the command undo what was done about an alert, the first time or again, while a
// replica ends the step that it adds with an outcome; where that is empty, the alert is buried.
func (f *fleet) undoing(l *ledger.Ledger, id stream.AlertID, outcome string) result {
	f.Helper()
	answer := make(chan result, 1)
	go func() { answer <- f.cli("undo", string(id)) }()
	r := ledger.NewReader(f.rdb, "h1", "containment")
	var e ledger.Entry
	f.eventually("it is opened again", func() (ok bool) {
		var err error
		e, err = r.Entry(f.ctx, id)
		return err == nil && e.Header.State == ledger.Held
	})
	answers, err := l.Begin(f.ctx, []ledger.Claim{{ID: id, StreamID: e.Header.StreamID, Nonce: ledger.NewNonce(), Digest: "d", Reopened: true}}, nil)
	if err != nil {
		f.Fatal(err)
	}
	g := answers[0].Grant
	if outcome == "" {
		err = l.Bury(f.ctx, g, stream.NewDeadLetter(nil, "poison"))
	} else {
		g.Body.Steps[len(g.Body.Steps)-1].Outcome = outcome
		err = l.Record(f.ctx, g, len(g.Body.Steps)-1)
	}
	if err != nil {
		f.Fatal(err)
	}
	return <-answer
}

// The command tells of the undo that it asked for, and not of one that had failed before.
func TestUndoCommand(t *testing.T) {
	f := newFleet(t)
	l, err := ledger.New(f.rdb, ledger.Config{Host: "h1", Group: "containment", Owner: "r"})
	if err != nil {
		t.Fatal(err)
	}
	book, err := playbook.Decode("p.yaml", []byte("name: p\nmatch: \"true\"\nsteps:\n  - {name: block, action: block_ip}\n"))
	if err != nil {
		t.Fatal(err)
	}
	a := &stream.Alert{ID: "x-1", SourceIP: "203.0.113.7"}
	planner := playbook.Planner{Host: "h1", Playbooks: []*playbook.Playbook{book}, Mode: playbook.Enforce, MaxAge: time.Hour, Zone: time.UTC}
	answers, err := l.Begin(f.ctx, []ledger.Claim{{
		ID: "x-1", StreamID: f.add("id", "x-1", "alert", "{}"), Nonce: ledger.NewNonce(), Digest: "d", Body: planner.Plan(a, time.Now(), time.Now()),
	}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	g := answers[0].Grant
	g.Body.Steps[0].Outcome = "blocked"
	if err := l.Record(f.ctx, g, 0); err != nil {
		t.Fatal(err)
	}
	if r := f.undoing(l, "x-1", "failed"); r.code != 1 || !strings.Contains(r.err, "p/block is not undone: failed") {
		t.Errorf("it failed: exit %d, %s%s", r.code, r.out, r.err)
	}
	if r := f.undoing(l, "x-1", ""); r.code != 1 || !strings.Contains(r.err, "p/block is not undone") {
		t.Errorf("it was buried: exit %d, %s%s", r.code, r.out, r.err)
	}
	// As if the rest of it had been done by riposte dead retry.
	raw, err := f.rdb.Get(f.ctx, "riposte:{h1}:ledger:containment:x-1").Result()
	if err != nil {
		t.Fatal(err)
	}
	raw = strings.Replace(strings.Replace(raw, "dead ", "done ", 1), `"step":"block~undo2",`, `"step":"block~undo2","outcome":"failed",`, 1)
	if err := f.rdb.Set(f.ctx, "riposte:{h1}:ledger:containment:x-1", raw, 0).Err(); err != nil {
		t.Fatal(err)
	}
	if r := f.undoing(l, "x-1", "unblocked"); r.code != 0 || strings.TrimSpace(r.out) != "p/block  unblocked" {
		t.Errorf("it was undone: exit %d, %s%s", r.code, r.out, r.err)
	}
}

func TestExplain(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	book := filepath.Join(dir, "books", "a.yaml")
	if err := os.Mkdir(filepath.Dir(book), 0o755); err != nil {
		t.Fatal(err)
	}
	src := "name: a\nmatch: alert.level == \"HIGH\" && alert.rule.name != \"\"\nsteps:\n  - {name: stop, action: terminate_process}\n" +
		"  - {name: block, action: block_ip}\n  - {name: note, action: log, if: steps.stop.ok}\n"
	if err := os.WriteFile(book, []byte(src), 0o644); err != nil {
		t.Fatal(err)
	}
	explain := func(alert string, args ...string) result {
		return cli(t, alert, append([]string{"explain", "--host", "h1", "--runtime-dir", filepath.Join(dir, "none"), "--playbooks", filepath.Dir(book)}, args...)...)
	}
	says(t, explain(`{"id":"x","level":"LOW"}`).out, "does not match", `not: alert.level == "HIGH"   where alert.level is "LOW"`, `where alert.rule.name is ""`)
	r := explain(`{"id":"x","level":"HIGH","rule":{"name":"r"},"actionable_pid":1,"source_ip":"127.0.0.1"}`, "-", "-o", "json")
	var x explanation
	if err := json.Unmarshal([]byte(r.out), &x); err != nil || len(x.Playbooks) != 1 || !x.Playbooks[0].Matches {
		t.Fatalf("%v: %s%s", err, r.out, r.err)
	}
	var verdicts []string
	for _, s := range x.Playbooks[0].Steps {
		verdicts = append(verdicts, s.Step+" "+s.Verdict)
	}
	if got := strings.Join(verdicts, ", "); got != "stop refused, block refused, note depends" {
		t.Errorf("%s: %s", got, r.out)
	}
	says(t, explain(`{"id":"x","level":"HIGH","rule":{"name":"r"},"host":"h2","actionable_pid":1}`).out, `the alert is about host "h2"`)
	if r := explain(`{"id":`); r.code != 1 || !strings.Contains(r.err, "would be a dead letter") {
		t.Errorf("exit %d: %s", r.code, r.err)
	}
	if _, err := os.Stat(filepath.Join(dir, "none")); !os.IsNotExist(err) {
		t.Errorf("it made a folder: %v", err)
	}
}

func TestPlaybooksCommand(t *testing.T) {
	t.Parallel()
	says(t, cli(t, "", "playbooks").out, "default", "suspicious-chain", "host-isolation")
	says(t, cli(t, "", "playbooks", "-o", "json").out, `"name": "cryptominer"`)
	says(t, cli(t, "", "playbooks", "default").out, "name: default")
	if r := cli(t, "", "playbooks", "defualt"); r.code != 2 || !strings.Contains(r.err, `did you mean "default"?`) {
		t.Errorf("exit %d: %s", r.code, r.err)
	}
	if r := cli(t, "", "schema"); r.code != 0 || !json.Valid([]byte(r.out)) {
		t.Errorf("exit %d: %.80s", r.code, r.out)
	}
}

func TestLedgerListOfAPlaybook(t *testing.T) {
	f := newFleet(t)
	l, err := ledger.New(f.rdb, ledger.Config{Host: "h1", Group: "containment", Owner: "r"})
	if err != nil {
		t.Fatal(err)
	}
	for id, step := range map[string]ledger.Step{
		"old": {Playbook: "p", Step: "s", Action: "log"}, "new": {Playbook: "q", Step: "s", Action: "log", Warm: true},
	} {
		body := ledger.Body{Seen: time.Now(), Expires: time.Now().Add(time.Hour), Steps: []ledger.Step{step}}
		answers, err := l.Begin(f.ctx, []ledger.Claim{{ID: stream.AlertID(id), StreamID: f.add("id", id, "alert", alertNow(id)), Nonce: ledger.NewNonce(), Digest: "d", Body: body}}, nil)
		if err != nil {
			t.Fatal(err)
		}
		g := answers[0].Grant
		g.Body.Steps[0].Outcome = "observed"
		if err := l.Record(f.ctx, g, 0); err != nil {
			t.Fatal(err)
		}
	}
	for args, want := range map[string]string{"": "new old", "--playbook p": "old", "--warm-up": "new", "--playbook p --warm-up": "", "--outcome observed --playbook q": "new"} {
		var ids []string
		for _, e := range f.list(strings.Fields(args)...) {
			ids = append(ids, e.ID)
		}
		slices.Sort(ids)
		if got := strings.Join(ids, " "); got != want {
			t.Errorf("%q: %s, want %s", args, got, want)
		}
	}
}
