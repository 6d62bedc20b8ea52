package main

import (
	"context"
	"encoding/json"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"riposte/ledger"
	"riposte/test/redistest"
)

// fleet is a Redis with a responder in observe mode, both of the test's own.
type fleet struct {
	*testing.T
	ctx  context.Context
	rdb  *redis.Client
	args []string // --redis, --host
	run  string   // runtime folder
}

func newFleet(t *testing.T) *fleet {
	t.Helper()
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	t.Cleanup(cancel)
	s := redistest.Start(t)
	return &fleet{t, ctx, s.Client(), []string{"--redis", s.URL, "--host", "h1"}, filepath.Join(t.TempDir(), "run")}
}

// cli runs the program against the fleet's Redis.
func (f *fleet) cli(args ...string) result {
	f.Helper()
	return cli(f.T, "", append(args, f.args...)...)
}

// must runs a command that has to end with a code, and returns its standard output.
func (f *fleet) must(code int, args ...string) result {
	f.Helper()
	r := f.cli(args...)
	if r.code != code {
		f.Fatalf("%v: exit %d, want %d\nstdout %s\nstderr %s", args, r.code, code, r.out, r.err)
	}
	return r
}

// responder starts a responder; stop asks it to end, and waits.
func (f *fleet) responder() (stop func()) {
	f.Helper()
	ctx, cancel := context.WithCancel(f.ctx)
	ended := make(chan int, 1)
	var out, errw lockedBuffer
	args := append([]string{"responder", "--lease", "500ms", "--runtime-dir", f.run, "--state-dir", f.run + "-state"}, f.args...)
	go func() {
		ended <- run(ctx, args, func(string) (string, bool) { return "", false }, strings.NewReader(""), &out, &errw)
	}()
	stopped := false
	stop = func() {
		f.Helper()
		if stopped {
			return
		}
		stopped = true
		cancel()
		if code := <-ended; code != 0 {
			f.Errorf("responder: exit %d\n%s", code, errw.String())
		}
	}
	f.Cleanup(stop)
	return stop
}

func (f *fleet) add(fields ...any) (entry string) {
	f.Helper()
	entry, err := f.rdb.XAdd(f.ctx, &redis.XAddArgs{Stream: "riposte:{h1}:alerts", Values: fields}).Result()
	if err != nil {
		f.Fatal(err)
	}
	return entry
}

// listed is an alert as scripts see it.
type listed struct {
	ID, Host, Group, State, Owner string
	Epoch                         uint64
	Attempts, Duplicates          int
	Flags                         []string
	Steps                         []struct{ Playbook, Step, Action, Mode, Outcome, Reason, Started, Ended string }
}

func (f *fleet) list(args ...string) []listed {
	f.Helper()
	var all []listed
	r := f.must(0, append([]string{"ledger", "list", "-o", "json"}, args...)...)
	if err := json.Unmarshal([]byte(r.out), &all); err != nil {
		f.Fatalf("%v\n%s", err, r.out)
	}
	return all
}

// settled waits until an alert is in a state.
func (f *fleet) settled(id, state string) (e listed) {
	f.Helper()
	f.eventually(id+" is "+state, func() bool {
		if f.rdb.Exists(f.ctx, "riposte:{h1}:ledger:containment:"+id).Val() == 0 {
			return false
		}
		for _, e = range f.list() {
			if e.ID == id && e.State == state {
				return true
			}
		}
		return false
	})
	return e
}

func (f *fleet) eventually(what string, ok func() bool) {
	f.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-f.ctx.Done():
			f.Fatalf("never: %s", what)
		}
	}
}

func alertNow(id string) string {
	return fmt.Sprintf(`{"id":%q,"level":"HIGH","title":"t\u001b[2J","timestamp":%q,"source_ip":"203.0.113.9"}`, id, time.Now().UTC().Format(time.RFC3339Nano))
}

func TestLedgerCommands(t *testing.T) {
	f := newFleet(t)
	if r := f.must(1, "ledger", "list"); !strings.Contains(r.err, "host h1 is unknown") || !strings.Contains(r.err, "nothing has been published") {
		t.Errorf("nothing known: %s", r.err)
	}
	f.add("alert", alertNow("x-1"))
	if all := f.list(); all == nil || len(all) != 0 {
		t.Errorf("nothing done yet: %+v", all)
	}
	f.responder()
	done := f.settled("x-1", "done")
	f.add("alert", alertNow("x-1"))
	f.eventually("the copy is settled", func() bool { return f.settled("x-1", "done").Duplicates == 1 })
	f.add("alert", `{"id":"y-2","level":"LOW"}`)
	f.settled("y-2", "done")

	if done.Host != "h1" || done.Group != "containment" || done.Epoch < 1e15 || done.Flags == nil || len(done.Steps) != 2 {
		t.Errorf("%+v", done)
	}
	for _, s := range done.Steps {
		if s.Playbook != "default" || s.Mode != "observe" || s.Outcome != "observed" || len(s.Started) != len("2026-01-02T03:04:05.000000Z") {
			t.Errorf("%+v", s)
		}
	}
	ids := func(args ...string) string {
		var ids []string
		for _, e := range f.list(args...) {
			ids = append(ids, e.ID)
		}
		return strings.Join(ids, " ")
	}
	for want, args := range map[string][]string{
		"x-1 y-2": {"--state", "done"}, "": {"--state", "held"}, "x-1": {"--outcome", "observed"}, "y-2": {"--limit", "1"},
	} {
		if got := ids(args...); got != want {
			t.Errorf("%v: %q", args, got)
		}
	}
	if all := f.list("--group", "forensics"); len(all) != 0 {
		t.Errorf("another group: %+v", all)
	}
	if r := f.must(0, "ledger", "list"); strings.Contains(r.out, "\x1b") || !strings.Contains(r.out, "block observed, log observed") || !strings.Contains(r.out, `t\u001b[2J`) {
		t.Errorf("table:\n%s", r.out)
	}

	r := f.must(0, "ledger", "show", "x")
	for _, says := range []string{"alert       x-1", "HIGH t\\u001b[2J", "done, epoch", "duplicates 1", "default/block", "would block", "granted to h1-", "default/log: observed, recorded by h1-"} {
		if !strings.Contains(r.out, says) {
			t.Errorf("show lacks %q:\n%s", says, r.out)
		}
	}
	var shown struct {
		Entry   listed
		History []struct{ At, Event, Words string }
	}
	if err := json.Unmarshal([]byte(f.must(0, "ledger", "show", "x-1", "-o", "json").out), &shown); err != nil || shown.Entry.ID != "x-1" || len(shown.History) != 3 || shown.History[0].Event != "run" {
		t.Errorf("%v: %+v", err, shown)
	}
	if r := f.must(1, "ledger", "show", "x-2"); !strings.Contains(r.err, "nearest are") || !strings.Contains(r.err, "x-1") {
		t.Errorf("unknown alert: %s", r.err)
	}
	for _, args := range [][]string{{"ledger", "show"}, {"ledger", "show", "a", "b"}, {"ledger", "list", "--state", "lost"}, {"ledger", "lst"}, {"ledger", "list", "--group", "a b"}} {
		f.must(2, args...)
	}
	if r := cli(t, "", append([]string{"ledger", "list"}, append(f.args, "--host", "h9")...)...); r.code != 1 || !strings.Contains(r.err, "known are h1") {
		t.Errorf("unknown host: %d, %s", r.code, r.err)
	}

	// One who may see no other host's keys.
	if err := f.rdb.Do(f.ctx, "ACL", "SETUSER", "u", "on", ">pw", "~riposte:{h1}:*", "+@all").Err(); err != nil {
		t.Fatal(err)
	}
	url := strings.Replace(f.args[1], "//", "//u:pw@", 1)
	for host, code := range map[string]int{"h1": 0, "h9": 1} {
		if r := cli(t, "", "ledger", "list", "--redis", url, "--host", host); r.code != code || code == 1 && !strings.Contains(r.err, "may not read what is of host h9") {
			t.Errorf("%s: exit %d, %s", host, r.code, r.err)
		}
	}
}

func TestLedgerAuditCommand(t *testing.T) {
	f := newFleet(t)
	f.responder()
	f.add("alert", alertNow("x"))
	f.settled("x", "done")
	r := f.must(0, "ledger", "audit", "--runtime-dir", f.run)
	for _, says := range []string{"host h1, group containment", "1 alerts accepted: 1 settled, 0 dead, 0 held, 0 waiting", "2 records were compared with their receipts", "clean"} {
		if !strings.Contains(r.out, says) {
			t.Errorf("audit lacks %q:\n%s", says, r.out)
		}
	}
	// What was asked for and cannot be compared must not pass for clean.
	for _, args := range [][]string{{"--runtime-dir", f.run + "-none"}, {"--runtime-dir", f.run, "--state-dir", f.run + "-none"}} {
		if r := f.must(1, append([]string{"ledger", "audit"}, args...)...); !strings.Contains(r.err, "no such file") || r.out != "" {
			t.Errorf("%v:\n%s%s", args, r.out, r.err)
		}
	}
	f.must(2, "ledger", "audit", "--state-dir", f.run)

	// A record other than its receipt.
	key := "riposte:{h1}:ledger:containment:x"
	raw, err := f.rdb.Get(f.ctx, key).Result()
	if err != nil {
		t.Fatal(err)
	}
	if err := f.rdb.Set(f.ctx, key, strings.Replace(raw, `"outcome":"observed"`, `"outcome":"blocked"`, 1), 0).Err(); err != nil {
		t.Fatal(err)
	}
	f.must(0, "ledger", "audit")
	r = f.must(1, "ledger", "audit", "--runtime-dir", f.run, "-o", "json")
	var report ledger.Report
	if err := json.Unmarshal([]byte(r.out), &report); err != nil || len(report.Findings) != 1 || report.Findings[0].Kind != ledger.Contradicted || report.Findings[0].Key != key {
		t.Errorf("%v: %+v", err, report)
	}
	if r := f.must(1, "ledger", "audit", "--runtime-dir", f.run); !strings.Contains(r.out, "contradicted") || !strings.Contains(r.err, "the audit found 1 violation") {
		t.Errorf("stdout %s\nstderr %s", r.out, r.err)
	}
}

func TestLedgerTail(t *testing.T) {
	f := newFleet(t)
	for i := range 30 {
		values := []any{"id", fmt.Sprint("x", i), "group", []string{"containment", "forensics"}[i%2], "event", "run", "epoch", "7", "owner", "o"}
		if err := f.rdb.XAdd(f.ctx, &redis.XAddArgs{Stream: "riposte:{h1}:journal", Values: values}).Err(); err != nil {
			t.Fatal(err)
		}
	}
	if r := f.must(0, "ledger", "tail"); strings.Count(r.out, "\n") != 20 || !strings.Contains(r.out, "  forensics    x29  granted to o, epoch 7") || strings.Contains(r.out, "x9 ") {
		t.Errorf("tail:\n%s", r.out)
	}
	if r := f.must(0, "ledger", "tail", "-n", "3", "--group", "containment"); strings.Count(r.out, "\n") != 3 || strings.Contains(r.out, "forensics") {
		t.Errorf("tail of a group:\n%s", r.out)
	}

	ctx, cancel := context.WithCancel(f.ctx)
	defer cancel()
	var out, errw lockedBuffer
	ended := make(chan int, 1)
	go func() {
		args := append([]string{"ledger", "tail", "-f", "-n", "1", "-o", "json"}, f.args...)
		ended <- run(ctx, args, func(string) (string, bool) { return "", false }, strings.NewReader(""), &out, &errw)
	}()
	f.eventually("the last line", func() bool { return strings.Contains(out.String(), `"x29"`) })
	if err := f.rdb.XAdd(f.ctx, &redis.XAddArgs{Stream: "riposte:{h1}:journal", Values: []any{"id", "new", "event", "run"}}).Err(); err != nil {
		t.Fatal(err)
	}
	f.eventually("what comes", func() bool { return strings.Contains(out.String(), `"new"`) })
	cancel()
	if code := <-ended; code != 0 {
		t.Errorf("interrupted: exit %d, %s", code, errw.String())
	}
	for line := range strings.Lines(out.String()) {
		if !json.Valid([]byte(line)) {
			t.Errorf("no JSON: %s", line)
		}
	}
}
