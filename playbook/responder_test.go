package playbook_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"riposte/ledger"
	"riposte/playbook"
	"riposte/playbook/action"
	"riposte/playbook/gate"
	"riposte/playbook/guard"
	"riposte/stream"
	"riposte/test/redistest"
)

const host, group = stream.Host("h1"), stream.DefaultGroup

// replica is a Responder with a gate and a trace of its own.
type replica struct {
	t     *testing.T
	trace string // file
	rdb   *redis.Client
	run   func(context.Context) error
}

// newReplica makes a replica in a runtime folder. change alters its configuration.
func newReplica(t *testing.T, srv *redistest.Server, name, runtime string, book string, change func(*playbook.Config)) *replica {
	t.Helper()
	if err := os.Chmod(runtime, 0o700); err != nil {
		t.Fatal(err)
	}
	g, err := gate.Open(runtime, "", name, string(group))
	if err != nil {
		t.Fatal(err)
	}
	life, err := g.Join()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { life.Leave(); g.Close() })
	r := &replica{t: t, trace: filepath.Join(t.TempDir(), "trace"), rdb: srv.Client()}
	trace, err := playbook.OpenTrace(r.trace)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { trace.Close() })
	cfg := playbook.Config{
		Name: name, Host: host, Playbooks: decode(t, book), Mode: playbook.Enforce,
		Guard: &guard.Floor{}, Out: io.Discard, Trace: trace, Log: slog.New(slog.DiscardHandler),
	}
	if change != nil {
		change(&cfg)
	}
	responder, err := playbook.New(r.rdb, g, cfg)
	if err != nil {
		t.Fatal(err)
	}
	r.run = responder.Run
	return r
}

// start runs the replica until the test ends, or until stop.
func (r *replica) start() (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- r.run(ctx) }()
	stopped := false
	stop = func() {
		if cancel(); stopped {
			return
		}
		stopped = true
		if err := <-done; err != nil {
			r.t.Error(err)
		}
	}
	r.t.Cleanup(stop)
	return stop
}

// begun counts the effects that the replica began.
func (r *replica) begun() int {
	r.t.Helper()
	raw, err := os.ReadFile(r.trace)
	if err != nil {
		r.t.Fatal(err)
	}
	return strings.Count(string(raw), `"event":"begin"`)
}

func publish(t *testing.T, rdb *redis.Client, alert string) {
	t.Helper()
	if err := rdb.XAdd(t.Context(), &redis.XAddArgs{Stream: host.AlertsKey(), Values: []any{"alert", alert}}).Err(); err != nil {
		t.Fatal(err)
	}
}

// settled waits until an alert is settled and returns its entry.
func settled(t *testing.T, rdb *redis.Client, id stream.AlertID) (h ledger.Header, b ledger.Body) {
	t.Helper()
	until(t, fmt.Sprintf("alert %s is settled", id), func() bool {
		raw, err := rdb.Get(t.Context(), host.LedgerKey(group, id)).Bytes()
		if errors.Is(err, redis.Nil) {
			return false
		}
		if err == nil {
			h, b, err = ledger.ParseEntry(raw)
		}
		if err != nil {
			t.Fatal(err)
		}
		return h.Settled()
	})
	return h, b
}

// until polls for what something else brings about.
func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatal("in vain waited until " + what)
		}
	}
}

// power cuts a replica off from Redis for good, and stops it, at its first record of a
// failed attempt: what its crash looks like to everybody else.
type power struct {
	after bool // the record is written, only its reply is lost
	crash context.CancelFunc
	off   atomic.Bool
}

func (p *power) DialHook(next redis.DialHook) redis.DialHook { return next }

func (p *power) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return next
}

func (p *power) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		off := errors.New("power cut")
		if p.off.Load() {
			cmd.SetErr(off)
			return off
		}
		if !slices.Contains(cmd.Args(), any("retry")) {
			return next(ctx, cmd)
		}
		if p.after {
			if err := next(ctx, cmd); err != nil { // the script was not loaded yet
				return err
			}
		}
		p.off.Store(true)
		p.crash()
		cmd.SetErr(off)
		return off
	}
}

// A crash does not restart the count of attempts: the ledger knows those that were
// recorded, and the receipt at the gate those that were not.
func TestAttemptsAreCountedAcrossACrash(t *testing.T) {
	t.Parallel()
	const book = `
name: note
match: "true"
steps:
  - {name: note, action: log, with: {path: PATH}, retry: {attempts: 4, initial: 20ms, max: 20ms}}
`
	for _, c := range []struct {
		what     string
		after    bool // the crash comes after the failed attempt was recorded
		sameGate bool
	}{
		{"known to the ledger alone", true, false},
		{"known to the gate alone", false, true},
		{"known to both", true, true},
	} {
		t.Run(c.what, func(t *testing.T) {
			t.Parallel()
			srv := redistest.Start(t)
			dir := t.TempDir()
			src := strings.Replace(book, "PATH", filepath.Join(dir, "absent", "log"), 1)
			short := func(cfg *playbook.Config) { cfg.Lease, cfg.Unfenced = 300*time.Millisecond, !c.sameGate }
			runtime := t.TempDir()
			first := newReplica(t, srv, "h1-1-first", runtime, src, short)
			ctx, crash := context.WithCancel(t.Context())
			first.rdb.AddHook(&power{after: c.after, crash: crash})

			publish(t, srv.Client(), `{"id":"a-1","level":"HIGH"}`)
			if err := first.run(ctx); err != nil {
				t.Fatal(err)
			}
			if n := first.begun(); n != 1 {
				t.Fatalf("the first replica began %d effects before its crash, want 1", n)
			}

			if !c.sameGate {
				runtime = t.TempDir()
			}
			second := newReplica(t, srv, "h1-2-second", runtime, src, short)
			second.start()
			h, b := settled(t, srv.Client(), "a-1")
			step := b.Steps[0]
			if step.Outcome != "failed" || step.Attempts != 4 || !strings.HasPrefix(step.Reason, "after 4 attempts: log to ") {
				t.Errorf("%s after %d attempts: %s", step.Outcome, step.Attempts, step.Reason)
			}
			if n := second.begun(); n != 3 {
				t.Errorf("the second replica began %d effects, want the 3 that were left", n)
			}
			if h.State != ledger.Done || h.Owner != "h1-2-second" || h.Deaths != 0 {
				t.Errorf("%+v", h)
			}
		})
	}
}

// A replica that was told to observe does not enforce the plan of one that was not.
func TestObserverInheritsNoEnforcement(t *testing.T) {
	t.Parallel()
	srv, runtime, dir := redistest.Start(t), t.TempDir(), t.TempDir()
	file := filepath.Join(dir, "absent", "log")
	book := `
name: note
match: "true"
steps:
  - {name: note, action: log, with: {path: ` + file + `}, retry: {initial: 20ms, max: 20ms}}
`
	short := func(cfg *playbook.Config) { cfg.Lease = 300 * time.Millisecond }
	first := newReplica(t, srv, "h1-1-first", runtime, book, short)
	ctx, crash := context.WithCancel(t.Context())
	first.rdb.AddHook(&power{after: true, crash: crash})
	publish(t, srv.Client(), `{"id":"a-1","level":"HIGH"}`)
	if err := first.run(ctx); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Dir(file), 0o700); err != nil { // from now on the effect would work
		t.Fatal(err)
	}
	second := newReplica(t, srv, "h1-2-second", runtime, book, func(cfg *playbook.Config) {
		short(cfg)
		cfg.Mode = playbook.Observe
	})
	second.start()
	_, b := settled(t, srv.Client(), "a-1")
	if s := b.Steps[0]; s.Outcome != "observed" || s.Mode != "observe" || second.begun() != 0 {
		t.Errorf("%s in mode %s, %d effects begun", s.Outcome, s.Mode, second.begun())
	}
	if _, err := os.Stat(file); err == nil {
		t.Error("the observer wrote the log")
	}
}

// A poisoned alert is buried with what was decided at the gate, and fenced there against
// those who held it before. Where all was decided, it is settled and not buried.
func TestBurialFencesTheSteps(t *testing.T) {
	t.Parallel()
	const log, script = "log", "run_script, with: {argv: [/bin/false]}"
	t.Run("one of two closed", func(t *testing.T) { burial(t, log, "", "first") })
	t.Run("both closed", func(t *testing.T) { burial(t, log, "logged", "first", "second") })
	t.Run("an at-most-once one begun", func(t *testing.T) { burial(t, script, "unknown", "first") })
}

// burial buries an alert whose second step is of an action, if it has no outcome in the end.
func burial(t *testing.T, action, outcome string, closed ...string) {
	t.Parallel()
	srv, runtime := redistest.Start(t), t.TempDir()
	rdb := srv.Client()
	book := "name: note\nmatch: \"true\"\nsteps:\n  - {name: first, action: log}\n  - {name: second, action: " + action + "}\n"
	second := newReplica(t, srv, "h1-2-second", runtime, book, nil)
	// The alert has lost four holders. The fifth has closed some steps, perhaps begun another
	// one, and died.
	g, token := heldByTheDead(t, rdb, runtime, book, 4, nil)
	key := func(step string) gate.Step {
		return gate.Step{Key: stream.StepKey(host, group, "a-1", "note", step), Within: time.Minute}
	}
	for _, step := range closed {
		pass, err := g.Enter(key(step), token)
		if err != nil {
			t.Fatal(err)
		}
		if err := pass.Close("logged", "by the dead"); err != nil {
			t.Fatal(err)
		}
	}
	if outcome == "unknown" {
		pass, err := g.Enter(key("second"), token)
		if err != nil {
			t.Fatal(err)
		}
		if err := pass.Begin(); err != nil {
			t.Fatal(err)
		}
		pass.Leave()
	}

	second.start()
	h, b := settled(t, rdb, "a-1")
	if b.Steps[0].Outcome != "logged" || b.Steps[0].Reason != "by the dead" {
		t.Errorf("%s, steps %+v", h.State, b.Steps)
	}
	if n := second.begun(); n != 0 {
		t.Errorf("%d effects of a poisoned alert were begun", n)
	}
	letters := rdb.XLen(t.Context(), host.DeadKey(group)).Val()
	if outcome != "" {
		if h.State != ledger.Done || b.Steps[1].Outcome != outcome || letters != 0 {
			t.Errorf("%s, steps %+v, %d dead letters", h.State, b.Steps, letters)
		}
		return
	}
	if h.State != ledger.Dead || b.Steps[1].Outcome != "" || letters != 1 {
		t.Errorf("%s, steps %+v, %d dead letters", h.State, b.Steps, letters)
	}
	var stale *gate.StaleError
	if _, err := g.Enter(key("second"), token); !errors.As(err, &stale) {
		t.Errorf("an earlier holder passes the gate after the burial: %v", err)
	}
}

// taken publishes the alert a-1, which a consumer reads, and plans for it.
func taken(t *testing.T, rdb *redis.Client, by, book string) (a *stream.Alert, streamID string, plan ledger.Body) {
	t.Helper()
	publish(t, rdb, `{"id":"a-1","level":"HIGH"}`)
	consumer := stream.NewConsumer(rdb, host, group, by)
	if err := consumer.Ensure(t.Context()); err != nil {
		t.Fatal(err)
	}
	ds, err := consumer.Read(t.Context(), 1)
	if err != nil || len(ds) != 1 {
		t.Fatal(ds, err)
	}
	if a, _, err = ds[0].Alert(); err != nil {
		t.Fatal(err)
	}
	planner := &playbook.Planner{Host: host, Playbooks: decode(t, book), Mode: playbook.Enforce, MaxAge: time.Hour, Zone: time.UTC}
	return a, ds[0].StreamID, planner.Plan(a, ds[0].When(), time.Now())
}

// heldByTheDead publishes the alert a-1 and leaves it as it is when its holder has died, after
// other holders before. It returns the holder's gate and token.
func heldByTheDead(t *testing.T, rdb *redis.Client, runtime, book string, deaths int, change func(*ledger.Body)) (*gate.Gate, gate.Token) {
	t.Helper()
	const dead = "h1-1-dead"
	a, streamID, plan := taken(t, rdb, dead, book)
	if change != nil {
		change(&plan)
	}
	body, err := json.Marshal(plan)
	if err != nil {
		t.Fatal(err)
	}
	g, err := gate.Open(runtime, "", dead, string(group))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { g.Close() })
	token := gate.Token{Epoch: uint64(time.Now().UnixMicro()), Nonce: "n"}
	entry := fmt.Sprintf("held %d %d %s %s 0 0 %d %s %s %s\n%s", token.Epoch, time.Now().Add(time.Hour).UnixMicro(), dead, token.Nonce, deaths, a.Digest(), streamID, g.ID(), body)
	if err := rdb.Set(t.Context(), host.LedgerKey(group, "a-1"), entry, 0).Err(); err != nil {
		t.Fatal(err)
	}
	life := filepath.Join(runtime, "life", dead)
	if err := os.WriteFile(life, []byte(`{"replica":"`+dead+`","role":"`+string(group)+`"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	return g, token
}

// A step that another version has planned, with an action this one does not know, has failed
// if it was not begun. If it was, nobody here can tell what came of it.
func TestStepOfAnotherVersion(t *testing.T) {
	t.Parallel()
	const book = "name: note\nmatch: \"true\"\nsteps: [{name: first, action: log}]\n"
	for what, c := range map[string]struct {
		class   action.Class
		begun   bool
		outcome string
	}{
		"verifiable, not begun": {action.Verifiable, false, "failed"},
		"verifiable, begun":     {action.Verifiable, true, "unknown"},
		"at most once, begun":   {action.AtMostOnce, true, "unknown"},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			srv, runtime := redistest.Start(t), t.TempDir()
			second := newReplica(t, srv, "h1-2-second", runtime, book, nil)
			g, token := heldByTheDead(t, srv.Client(), runtime, book, 0, func(b *ledger.Body) {
				b.Steps[0].Action, b.Steps[0].Class = "freeze_disk", string(c.class)
			})
			if c.begun {
				key := stream.StepKey(host, group, "a-1", "note", "first")
				pass, err := g.Enter(gate.Step{Key: key, Durable: c.class == action.AtMostOnce}, token)
				if err == nil {
					err = pass.Begin()
				}
				if err != nil {
					t.Fatal(err)
				}
				pass.Leave()
			}
			second.start()
			_, b := settled(t, srv.Client(), "a-1")
			if s := b.Steps[0]; s.Outcome != c.outcome || second.begun() != 0 {
				t.Errorf("%s (%s), %d effects begun; want %s", s.Outcome, s.Reason, second.begun(), c.outcome)
			}
		})
	}
}

// An alert whose plan is too large for the ledger is buried, before Redis refuses it for ever.
func TestPlanTooLarge(t *testing.T) {
	t.Parallel()
	srv := redistest.Start(t, "--proto-max-bulk-len", "1mb")
	rdb := srv.Client()
	book := "name: note\nmatch: \"true\"\nsteps:\n"
	for i := range 100 {
		book += fmt.Sprintf("  - {name: s%d, action: run_script, with: {argv: [/bin/true]}}\n", i)
	}
	r := newReplica(t, srv, "h1-1-a", t.TempDir(), book, nil)
	long := strings.Repeat("<", 100_000)
	publish(t, rdb, `{"id":"a-1","level":"`+long+`","title":"`+long+`","description":"`+long+`","process":{"pid":7,"boot_id":"`+long+`","exe":"`+long+`","cmdline":"`+long+`"}}`)
	r.start()
	until(t, "it is buried", func() bool { return rdb.XLen(t.Context(), host.DeadKey(group)).Val() == 1 })
	until(t, "it is acked", func() bool {
		p, err := rdb.XPending(t.Context(), host.AlertsKey(), string(group)).Result()
		return err == nil && p.Count == 0
	})
	letters, err := rdb.XRange(t.Context(), host.DeadKey(group), "-", "+").Result()
	if reason := fmt.Sprint(letters[0].Values["reason"]); err != nil || !strings.Contains(reason, "its plan would take") {
		t.Errorf("%s, %v", reason, err)
	}
}

// Whoever waits to try again occupies no worker, so one alert that fails delays no other.
func TestRetryDelaysNoOther(t *testing.T) {
	t.Parallel()
	srv := redistest.Start(t)
	dir := t.TempDir()
	path := filepath.Join(dir, "later", "log")
	r := newReplica(t, srv, "h1-1-a", t.TempDir(), `
name: note
match: alert.level == "HIGH"
steps:
  - {name: note, action: log, with: {path: `+path+`}, retry: {attempts: 100, initial: 50ms, max: 100ms}}
`, func(cfg *playbook.Config) {
		cfg.Concurrency = 1
		cfg.Playbooks = append(cfg.Playbooks, decode(t, "name: other\nmatch: alert.level == \"LOW\"\nsteps: [{name: note, action: log}]\n")...)
	})
	r.start()
	rdb := srv.Client()
	publish(t, rdb, `{"id":"slow","level":"HIGH"}`)
	until(t, "the first attempt has failed", func() bool { return r.begun() > 0 })
	for i := range 20 {
		publish(t, rdb, fmt.Sprintf(`{"id":"other-%d","level":"LOW"}`, i))
	}
	for i := range 20 {
		if _, b := settled(t, rdb, stream.AlertID(fmt.Sprintf("other-%d", i))); b.Steps[0].Outcome != "logged" {
			t.Errorf("%+v", b.Steps[0])
		}
	}
	raw, err := rdb.Get(t.Context(), host.LedgerKey(group, "slow")).Bytes()
	if err != nil {
		t.Fatal(err)
	}
	if h, _, err := ledger.ParseEntry(raw); err != nil || h.State != ledger.Held {
		t.Fatalf("the slow one was not slow: %+v, %v", h, err)
	}
	if err := os.Mkdir(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if _, b := settled(t, rdb, "slow"); b.Steps[0].Outcome != "logged" || b.Steps[0].Attempts < 2 {
		t.Errorf("%+v", b.Steps[0])
	}
	var line struct{ Alert, Key string }
	text, err := os.ReadFile(path)
	if err == nil {
		err = json.Unmarshal(text, &line)
	}
	if err != nil || line.Alert != "slow" || line.Key != "h1/containment/slow/note/note" {
		t.Errorf("%s: %v", text, err)
	}
}

// However many copies of an alert there are, one has an effect, and the others are soon
// settled: they are the cheapest way to keep a responder busy.
func TestCopiesAreSettledSoon(t *testing.T) {
	t.Parallel()
	const copies = 500
	srv := redistest.Start(t)
	rdb := srv.Client()
	r := newReplica(t, srv, "h1-1-a", t.TempDir(), "name: note\nmatch: \"true\"\nsteps: [{name: note, action: log}]\n", nil)
	for range 1 + copies {
		publish(t, rdb, `{"id":"a-1","level":"HIGH"}`)
	}
	publish(t, rdb, `{"id":"a-1","level":"LOW"}`) // another alert under that ID
	for range copies {
		publish(t, rdb, `{"id":"a-1","level":"LOW"}`)
	}
	r.start()
	until(t, "every copy is settled", func() bool {
		groups, err := rdb.XInfoGroups(t.Context(), host.AlertsKey()).Result()
		if err != nil {
			t.Fatal(err)
		}
		return len(groups) == 1 && groups[0].Lag == 0 && groups[0].EntriesRead > 0 && groups[0].Pending == 0
	})
	first, _ := settled(t, rdb, "a-1")
	a, err := stream.Decode([]byte(`{"id":"a-1","level":"LOW"}`), "")
	if err != nil {
		t.Fatal(err)
	}
	second, body := settled(t, rdb, a.ID.Conflicting(a.Digest()))
	if first.Duplicates != copies || second.Duplicates != copies || r.begun() != 2 || !slices.Equal(body.Flags, []string{"id_conflict"}) {
		t.Errorf("%d and %d duplicates, %d effects, flags %v", first.Duplicates, second.Duplicates, r.begun(), body.Flags)
	}
}
