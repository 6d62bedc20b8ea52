package ledger_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"riposte/ledger"
	"riposte/stream"
	"riposte/test/redistest"
)

// world is a Redis of the test's own with one host and group.
type world struct {
	*testing.T
	ctx   context.Context
	srv   *redistest.Server
	rdb   *redis.Client
	host  stream.Host
	group stream.Group
}

func newWorld(t *testing.T) *world {
	t.Helper()
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	t.Cleanup(cancel)
	srv := redistest.Start(t)
	w := &world{t, ctx, srv, srv.Client(), "h1", "containment"}
	w.must(w.rdb.XGroupCreateMkStream(ctx, w.host.AlertsKey(), string(w.group), "0").Err())
	return w
}

func (w *world) must(err error) {
	w.Helper()
	if err != nil {
		w.Fatal(err)
	}
}

// replica is a ledger of a replica; its lease is a minute unless one is given.
func (w *world) replica(name string, lease ...time.Duration) *ledger.Ledger {
	w.Helper()
	return w.custom(ledger.Config{Owner: name, Lease: append(lease, time.Minute)[0]})
}

func (w *world) custom(cfg ledger.Config) *ledger.Ledger {
	w.Helper()
	cfg.Host, cfg.Group = w.host, w.group
	if cfg.Gate == "" {
		cfg.Gate = "gate1"
	}
	l, err := ledger.New(w.rdb, cfg)
	w.must(err)
	return l
}

// alertJSON is an alert as it travels.
func alertJSON(id string, pid int) string {
	return fmt.Sprintf(`{"id":%q,"level":"HIGH","title":"t","timestamp":"2026-01-02T03:04:05Z","actionable_pid":%d}`, id, pid)
}

func digest(raw string) string {
	a, err := stream.Decode([]byte(raw), "1-1")
	if err != nil {
		panic(err)
	}
	return a.Digest()
}

// add adds an alert to the stream.
func (w *world) add(fields ...any) (entry string) {
	w.Helper()
	entry, err := w.rdb.XAdd(w.ctx, &redis.XAddArgs{Stream: w.host.AlertsKey(), Values: fields}).Result()
	w.must(err)
	return entry
}

// deliver adds an alert and has a consumer read it.
func (w *world) deliver(to, id string) (entry string) {
	w.Helper()
	entry = w.add("id", id, "alert", alertJSON(id, 4711))
	w.read(to)
	return entry
}

func (w *world) read(consumer string) {
	w.Helper()
	w.must(w.rdb.XReadGroup(w.ctx, &redis.XReadGroupArgs{
		Group: string(w.group), Consumer: consumer, Streams: []string{w.host.AlertsKey(), ">"}, Block: -1,
	}).Err())
}

func plan() ledger.Body {
	seen := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	return ledger.Body{
		Level: "HIGH", Title: "t", Seen: seen, Expires: seen.Add(10 * time.Minute),
		Steps: []ledger.Step{
			{Playbook: "p", Step: "one", Action: "log", Mode: "enforce"},
			{Playbook: "p", Step: "two", Action: "log", Mode: "enforce"},
		},
	}
}

func claim(id, entry string) ledger.Claim {
	return ledger.Claim{
		ID: stream.AlertID(id), StreamID: entry, Nonce: ledger.NewNonce(), Digest: digest(alertJSON(id, 4711)), Body: plan(),
	}
}

// begin asks for one alert.
func (w *world) begin(l *ledger.Ledger, c ledger.Claim, dead ...string) ledger.Answer {
	w.Helper()
	answers, err := l.Begin(w.ctx, []ledger.Claim{c}, dead)
	w.must(err)
	return answers[0]
}

// granted begins an alert that must be granted so.
func (w *world) granted(want ledger.Verdict, l *ledger.Ledger, c ledger.Claim, dead ...string) *ledger.Grant {
	w.Helper()
	a := w.begin(l, c, dead...)
	if a.Verdict != want || a.Grant == nil {
		w.Fatalf("Begin answers %+v, want %s", a, want)
	}
	return a.Grant
}

// take delivers an alert to a replica, which begins it.
func (w *world) take(l *ledger.Ledger, name, id string) *ledger.Grant {
	w.Helper()
	return w.granted(ledger.Run, l, claim(id, w.deliver(name, id)))
}

// record gives a step its outcome.
func record(w *world, l *ledger.Ledger, g *ledger.Grant, i int, outcome string) error {
	s := &g.Body.Steps[i]
	now := time.Now()
	s.Outcome, s.Epoch, s.Replica, s.Started, s.Ended, s.Attempts = outcome, g.Token.Epoch, "r", now, now, 1
	return l.Record(w.ctx, g, i)
}

// settle takes an alert through to its end.
func (w *world) settle(l *ledger.Ledger, name, id string) *ledger.Grant {
	w.Helper()
	g := w.take(l, name, id)
	w.must(record(w, l, g, 0, "logged"))
	w.must(record(w, l, g, 1, "logged"))
	return g
}

// bury takes an alert and buries it.
func (w *world) bury(l *ledger.Ledger, name, id string) *ledger.Grant {
	w.Helper()
	g := w.take(l, name, id)
	w.must(l.Bury(w.ctx, g, stream.NewDeadLetter([]byte(alertJSON(id, 4711)), "poison")))
	return g
}

func (w *world) key(id string) string { return w.host.LedgerKey(w.group, stream.AlertID(id)) }

// entry reads an entry as it is stored.
func (w *world) entry(id string) (ledger.Header, ledger.Body) {
	w.Helper()
	raw, err := w.rdb.Get(w.ctx, w.key(id)).Bytes()
	w.must(err)
	h, b, err := ledger.ParseEntry(raw)
	w.must(err)
	return h, b
}

// put stores an entry, past the scripts.
func (w *world) put(id, header string, body ledger.Body) {
	w.Helper()
	raw, err := json.Marshal(body)
	w.must(err)
	w.must(w.rdb.Set(w.ctx, w.key(id), header+"\n"+string(raw), 0).Err())
}

// pending are the stream IDs that are not acked, with whom.
func (w *world) pending() map[string]string {
	w.Helper()
	rows, err := w.rdb.XPendingExt(w.ctx, &redis.XPendingExtArgs{
		Stream: w.host.AlertsKey(), Group: string(w.group), Start: "-", End: "+", Count: 1000,
	}).Result()
	w.must(err)
	found := map[string]string{}
	for _, r := range rows {
		found[r.ID] = r.Consumer
	}
	return found
}

func (w *world) reader() *ledger.Reader { return ledger.NewReader(w.rdb, w.host, w.group) }

// events are the journal's words for an alert.
func (w *world) events(id string) string {
	w.Helper()
	history, err := w.reader().History(w.ctx, stream.AlertID(id))
	w.must(err)
	var names []string
	for _, e := range history {
		names = append(names, e.Event)
	}
	return strings.Join(names, " ")
}

func (w *world) wantEvents(id, want string) {
	w.Helper()
	if got := w.events(id); got != want {
		w.Errorf("journal of %s: %s; want %s", id, got, want)
	}
}

func (w *world) wantLost(err error) {
	w.Helper()
	if !errors.Is(err, ledger.ErrLost) {
		w.Errorf("error %v, want ErrLost", err)
	}
}

// eventually polls until ok says so.
func (w *world) eventually(what string, ok func() bool) {
	w.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-w.ctx.Done():
			w.Fatalf("never: %s", what)
		}
	}
}

func letter(raw, reason string) stream.DeadLetter { return stream.NewDeadLetter([]byte(raw), reason) }

// between is a hook that does something after the first command of a kind, before its reply
// is acted upon.
type between struct {
	command string
	once    sync.Once
	do      func()
}

func (b *between) DialHook(next redis.DialHook) redis.DialHook { return next }

func (b *between) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return next
}

func (b *between) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		err := next(ctx, cmd)
		if cmd.Name() == b.command {
			b.once.Do(b.do)
		}
		return err
	}
}

// interrupted is a reader to whom something happens just after its first command of a kind.
func (w *world) interrupted(command string, do func()) *ledger.Reader {
	rdb := w.srv.Client()
	rdb.AddHook(&between{command: command, do: do})
	return ledger.NewReader(rdb, w.host, w.group)
}

// counter counts the commands of a kind that are answered, one after the other.
type counter struct {
	command string
	n       *int
}

func (c counter) DialHook(next redis.DialHook) redis.DialHook { return next }

func (c counter) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return next
}

func (c counter) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		err := next(ctx, cmd)
		if cmd.Name() == c.command {
			*c.n++
		}
		return err
	}
}
