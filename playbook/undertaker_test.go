package playbook

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"riposte/ledger"
	"riposte/playbook/gate"
	"riposte/playbook/guard"
	"riposte/stream"
	"riposte/test/redistest"
)

const (
	deadHost  = stream.Host("h1")
	forgotten = stream.Group("forensics")
	silence   = 300 * time.Millisecond // after which a group of these tests is abandoned
)

// replicaIn makes a replica of a group with a gate in a runtime folder.
func replicaIn(t *testing.T, srv *redistest.Server, runtime, name string, g stream.Group) *Responder {
	t.Helper()
	if err := os.Chmod(runtime, 0o700); err != nil {
		t.Fatal(err)
	}
	fence, err := gate.Open(runtime, "", name, string(g))
	if err != nil {
		t.Fatal(err)
	}
	life, err := fence.Join()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { life.Leave(); fence.Close() })
	book, err := Decode("p.yaml", []byte("name: note\nmatch: \"true\"\nsteps: [{name: note, action: log}]\n"))
	if err != nil {
		t.Fatal(err)
	}
	r, err := New(srv.Client(), fence, Config{
		Name: name, Host: deadHost, Group: g, Playbooks: []*Playbook{book}, Mode: Enforce, Lease: 500 * time.Millisecond,
		Guard: &guard.Floor{}, Out: io.Discard, Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// pastAlert adds an alert of an hour ago; n tells entries apart.
func pastAlert(t *testing.T, rdb *redis.Client, n int, alert string) (streamID string) {
	t.Helper()
	return alertAt(t, rdb, time.Now().Add(-time.Hour).Truncate(time.Hour).Add(time.Duration(n)*time.Millisecond), alert)
}

func alertAt(t *testing.T, rdb *redis.Client, at time.Time, alert string) string {
	t.Helper()
	id, err := rdb.XAdd(t.Context(), &redis.XAddArgs{
		Stream: deadHost.AlertsKey(), ID: fmt.Sprintf("%d-0", at.UnixMilli()), Values: []any{"alert", alert},
	}).Result()
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// ensure creates groups, from the beginning.
func ensure(t *testing.T, rdb *redis.Client, groups ...stream.Group) {
	t.Helper()
	for _, g := range groups {
		if err := stream.NewConsumer(rdb, deadHost, g, "h1-1-a").Ensure(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
}

// during calls do again and again until ok.
func during(t *testing.T, what string, do func(), ok func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for do(); !ok(); do() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatal("in vain waited until " + what)
		}
	}
}

// left says what a group has left.
func left(t *testing.T, rdb *redis.Client, g stream.Group) (info redis.XInfoGroup) {
	t.Helper()
	groups, err := rdb.XInfoGroups(t.Context(), deadHost.AlertsKey()).Result()
	if err != nil {
		t.Fatal(err)
	}
	for _, info := range groups {
		if info.Name == string(g) {
			return info
		}
	}
	t.Fatalf("group %s is gone", g)
	return info
}

// clean has the audit look at a group.
func clean(t *testing.T, rdb *redis.Client, g stream.Group) ledger.Counts {
	t.Helper()
	report, err := ledger.NewReader(rdb, deadHost, g).Audit(t.Context(), ledger.AuditConfig{})
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range report.Findings {
		t.Errorf("audit of %s: %s %s: %s", g, f.Kind, f.Key, f.Text)
	}
	return report.Counts
}

func letters(t *testing.T, rdb *redis.Client, g stream.Group) map[stream.AlertID]ledger.Letter {
	t.Helper()
	found := map[stream.AlertID]ledger.Letter{}
	err := ledger.NewReader(rdb, deadHost, g).Letters(t.Context(), func(l ledger.Letter) error {
		if _, twice := found[l.Alert]; twice {
			t.Errorf("alert %s was buried twice", l.Alert)
		}
		found[l.Alert] = l
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// What an abandoned group has left ends as dead in its own ledger: what it has not read, what
// its replicas died with, what is no alert. What is young stays, and so does all of the group
// containment, however silent it is.
func TestUndertaker(t *testing.T) {
	t.Parallel()
	srv, runtime := redistest.Start(t), t.TempDir()
	rdb := srv.Client()
	ctx := t.Context()
	const own = stream.Group("own")
	ensure(t, rdb, stream.DefaultGroup, own, forgotten, "notify", "not:a:group")
	ids := []string{
		pastAlert(t, rdb, 0, `{"id":"held","level":"HIGH"}`),
		pastAlert(t, rdb, 1, `{"id":"read","level":"HIGH"}`),
		pastAlert(t, rdb, 2, `nonsense`),
		pastAlert(t, rdb, 3, `{"id":"deleted"}`),
		pastAlert(t, rdb, 4, `{"id":"unread","level":"HIGH"}`),
		pastAlert(t, rdb, 5, `{"id":"unread","level":"LOW"}`), // another alert under that ID
		pastAlert(t, rdb, 6, `{"id":"read","level":"HIGH"}`),
		pastAlert(t, rdb, 7, `{"level":"LOW"}`),
	}
	derived, err := stream.Decode([]byte(`{"level":"LOW"}`), ids[7])
	if err != nil {
		t.Fatal(err)
	}
	conflicting, err := stream.Decode([]byte(`{"id":"unread","level":"LOW"}`), ids[5])
	if err != nil {
		t.Fatal(err)
	}
	young := alertAt(t, rdb, time.Now().Add(time.Hour), `{"id":"young"}`)
	read, err := stream.NewConsumer(rdb, deadHost, forgotten, "h1-1-a").Read(ctx, 4)
	if err != nil || len(read) != 4 {
		t.Fatal(read, err)
	}
	if _, err := stream.NewConsumer(rdb, deadHost, stream.DefaultGroup, "h1-2-b").Read(ctx, 2); err != nil {
		t.Fatal(err)
	}
	if err := rdb.XDel(ctx, deadHost.AlertsKey(), ids[3]).Err(); err != nil {
		t.Fatal(err)
	}
	// A replica of the group had begun the first one, and planned for it.
	begun := replicaIn(t, srv, t.TempDir(), "h1-1-a", forgotten)
	answers, err := begun.ledger.Begin(ctx, []ledger.Claim{begun.claim(intake{Delivery: read[0]}).Claim}, nil)
	if err != nil || answers[0].Verdict != ledger.Run {
		t.Fatal(answers, err)
	}

	u := undertaker{replicaIn(t, srv, runtime, "h1-3-c", own), silence}
	during(t, "everything old is buried", func() { u.round(ctx) }, func() bool {
		info := left(t, rdb, forgotten)
		return info.Pending == 0 && info.LastDeliveredID == ids[7]
	})
	u.round(ctx)

	for id, want := range map[stream.AlertID]struct{ reason, raw string }{
		"held":                 {"group forensics was abandoned: none of its replicas has been seen for ", `{"id":"held","level":"HIGH"}`},
		"read":                 {"group forensics was abandoned: none of its replicas has been seen for ", `{"id":"read","level":"HIGH"}`},
		stream.EntryID(ids[2]): {"malformed alert", "nonsense"},
		stream.EntryID(ids[3]): {"deleted from the stream", ""},
		"unread":               {"group forensics was abandoned: none of its replicas has been seen for ", `{"id":"unread","level":"HIGH"}`},
		conflicting.ID.Conflicting(conflicting.Digest()): {"group forensics was abandoned: ", `{"id":"unread","level":"LOW"}`},
		derived.ID: {"group forensics was abandoned: ", `{"level":"LOW"}`},
	} {
		l, ok := letters(t, rdb, forgotten)[id]
		if !ok || !strings.Contains(l.Reason, want.reason) || string(l.Raw) != want.raw || l.Replica != "undertaker" {
			t.Errorf("dead letter of %s: %v %+v, want %s", id, ok, l, want.reason)
		}
	}
	counts := clean(t, rdb, forgotten)
	if counts.Dead != 7 || counts.Letters != 7 || counts.Held != 0 || counts.Duplicates != 1 || counts.Undelivered != 1 {
		t.Errorf("%+v", counts)
	}
	for _, l := range letters(t, rdb, "notify") {
		if !strings.Contains(l.Reason, "group notify was abandoned: it has no replicas, and this has been waiting for ") && !strings.Contains(l.Reason, "malformed") {
			t.Errorf("of a group without consumers: %s", l.Reason)
		}
	}
	if n := left(t, rdb, "notify"); n.Pending != 0 || n.Consumers != 0 || len(letters(t, rdb, "notify")) != 6 {
		t.Errorf("%+v, %d letters", n, len(letters(t, rdb, "notify")))
	}
	if info := left(t, rdb, stream.DefaultGroup); info.Pending != 2 || len(letters(t, rdb, stream.DefaultGroup)) != 0 {
		t.Errorf("containment was touched: %+v", info)
	}
	for _, g := range []stream.Group{own, "not:a:group"} {
		if info := left(t, rdb, g); info.Pending != 0 || info.LastDeliveredID != "0-0" {
			t.Errorf("group %s was touched: %+v", g, info)
		}
	}
	consumers, err := u.consumer.For(forgotten, "h1-3-c").Consumers(ctx)
	if err != nil || len(consumers) != 1 || consumers[0] != "h1-1-a" {
		t.Errorf("consumers left: %v, %v", consumers, err)
	}
	if got := rdb.XRange(ctx, deadHost.AlertsKey(), young, young).Val(); len(got) != 1 {
		t.Error("the young one is gone")
	}

	// A person can send them round again, to a group that lives again. The plan of "held"
	// stood; "unread" had none, and is too old for one.
	reader := ledger.NewReader(rdb, deadHost, forgotten)
	for _, id := range []stream.AlertID{"held", "unread"} {
		if _, err := reader.Revive(ctx, letters(t, rdb, forgotten)[id], "a person"); err != nil {
			t.Fatal(err)
		}
	}
	alive := replicaIn(t, srv, runtime, "h1-4-d", forgotten)
	running(t, alive)
	outcomes := func() string {
		_, held := stored(t, rdb, "held")
		_, unread := stored(t, rdb, "unread")
		return held.Steps[0].Outcome + " " + unread.Steps[0].Outcome
	}
	during(t, "both are settled", func() {}, func() bool { return outcomes() == "expired no_match" })
}

func stored(t *testing.T, rdb *redis.Client, id stream.AlertID) (ledger.Header, ledger.Body) {
	t.Helper()
	raw, err := rdb.Get(t.Context(), deadHost.LedgerKey(forgotten, id)).Bytes()
	if err != nil {
		t.Fatal(err)
	}
	h, b, err := ledger.ParseEntry(raw)
	if err != nil {
		t.Fatal(err)
	}
	return h, b
}

// running runs a replica until stop, or until the test ends.
func running(t *testing.T, r *Responder) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	var wait sync.WaitGroup
	wait.Go(func() {
		if err := r.Run(ctx); err != nil {
			t.Error(err)
		}
	})
	stop = sync.OnceFunc(func() { cancel(); wait.Wait() })
	t.Cleanup(stop)
	return stop
}

// Any number of undertakers bury an entry once.
func TestUndertakersRace(t *testing.T) {
	t.Parallel()
	const alerts = 300
	srv, runtime := redistest.Start(t), t.TempDir()
	rdb := srv.Client()
	ensure(t, rdb, stream.DefaultGroup, forgotten)
	for i := range alerts {
		pastAlert(t, rdb, i, fmt.Sprintf(`{"id":"a-%d"}`, i))
	}
	if _, err := stream.NewConsumer(rdb, deadHost, forgotten, "h1-1-a").Read(t.Context(), alerts/2); err != nil {
		t.Fatal(err)
	}
	var racing sync.WaitGroup
	for _, name := range []string{"h1-2-b", "h1-3-c", "h1-4-d"} {
		u := undertaker{replicaIn(t, srv, runtime, name, stream.DefaultGroup), silence}
		racing.Go(func() {
			during(t, "everything is buried", func() { u.round(t.Context()) }, func() bool {
				return rdb.XLen(t.Context(), deadHost.DeadKey(forgotten)).Val() >= alerts
			})
		})
	}
	racing.Wait()
	if counts := clean(t, rdb, forgotten); counts.Dead != alerts || counts.Letters != alerts || counts.Pending != 0 || len(letters(t, rdb, forgotten)) != alerts {
		t.Errorf("%+v", counts)
	}
}

// A group that comes back to life while it is being buried has each entry either handled or
// buried, and none both or neither.
func TestUndertakerAndTheLiving(t *testing.T) {
	t.Parallel()
	const alerts = 400
	srv, runtime := redistest.Start(t), t.TempDir()
	rdb := srv.Client()
	ensure(t, rdb, stream.DefaultGroup, forgotten)
	for i := range alerts {
		pastAlert(t, rdb, i, fmt.Sprintf(`{"id":"a-%d"}`, i))
	}
	if _, err := stream.NewConsumer(rdb, deadHost, forgotten, "h1-1-a").Read(t.Context(), alerts/2); err != nil {
		t.Fatal(err)
	}
	u := undertaker{replicaIn(t, srv, runtime, "h1-2-b", stream.DefaultGroup), silence}
	ctx, stop := context.WithCancel(t.Context())
	var burying sync.WaitGroup
	burying.Go(func() {
		for ctx.Err() == nil {
			u.round(ctx)
		}
	})
	buried := func() int64 { return rdb.XLen(t.Context(), deadHost.DeadKey(forgotten)).Val() }
	during(t, "some are buried", func() {}, func() bool { return buried() > 20 })
	running(t, replicaIn(t, srv, runtime, "h1-3-c", forgotten))
	during(t, "all are settled", func() {}, func() bool {
		info := left(t, rdb, forgotten)
		return info.Pending == 0 && info.Lag == 0 && info.EntriesRead == alerts
	})
	counts := clean(t, rdb, forgotten)
	if counts.Settled+counts.Dead != alerts || counts.Settled == 0 || counts.Dead == 0 || counts.Dead != len(letters(t, rdb, forgotten)) {
		t.Errorf("%+v", counts)
	}
	t.Logf("%d buried, %d handled by the replica that came back", counts.Dead, counts.Settled)
	stop()
	burying.Wait()
}

// An entry of the ledger that nobody can read holds up no other.
func TestUndertakerPassesByWhatItCannotBury(t *testing.T) {
	t.Parallel()
	srv := redistest.Start(t)
	rdb := srv.Client()
	ensure(t, rdb, stream.DefaultGroup, forgotten)
	pastAlert(t, rdb, 0, `{"id":"bad"}`)
	pastAlert(t, rdb, 1, `{"id":"good"}`)
	if err := rdb.Set(t.Context(), deadHost.LedgerKey(forgotten, "bad"), "what is this", 0).Err(); err != nil {
		t.Fatal(err)
	}
	u := undertaker{replicaIn(t, srv, t.TempDir(), "h1-2-b", stream.DefaultGroup), silence}
	during(t, "the good one is buried", func() { u.round(t.Context()) }, func() bool { return len(letters(t, rdb, forgotten)) == 1 })
	if info := left(t, rdb, forgotten); info.Pending != 1 {
		t.Errorf("the bad one is gone: %+v", info)
	}
}

// A group whose name no responder can have is not served and not buried for. What it keeps
// from being trimmed must not be kept in silence, nor said every ten seconds.
func TestStrayGroup(t *testing.T) {
	t.Parallel()
	srv := redistest.Start(t)
	rdb := srv.Client()
	const stray = stream.Group("my group")
	ensure(t, rdb, stream.DefaultGroup, stray)
	pastAlert(t, rdb, 1, `{"level":"HIGH"}`)
	r := replicaIn(t, srv, t.TempDir(), "h1-1-a", stream.DefaultGroup)
	var said strings.Builder
	r.log = slog.New(slog.NewTextHandler(&said, nil))
	u := undertaker{r, 0}
	for range 3 {
		u.round(t.Context())
	}
	if n := strings.Count(said.String(), "level=WARN"); n != 1 || !strings.Contains(said.String(), `XGROUP DESTROY riposte:{h1}:alerts \"my group`) {
		t.Errorf("said %d times, want once, with what to do:\n%s", n, said.String())
	}
	if info := left(t, rdb, stray); info.Lag != 1 {
		t.Errorf("the group was touched: %+v", info)
	}
}

// What a person has opened again brings no alert: nothing of it is left to bury.
func TestUndertakerOfWhatWasOpenedAgain(t *testing.T) {
	t.Parallel()
	srv := redistest.Start(t)
	rdb := srv.Client()
	ensure(t, rdb, "own", forgotten)
	past := time.Now().Add(-time.Hour)
	entry := &redis.XAddArgs{Stream: deadHost.AlertsKey(), ID: fmt.Sprintf("%d-0", past.UnixMilli()), Values: []any{"id", "x", "reopened", "0123"}}
	if err := rdb.XAdd(t.Context(), entry).Err(); err != nil {
		t.Fatal(err)
	}
	u := undertaker{replicaIn(t, srv, t.TempDir(), "h1-3-c", "own"), silence}
	during(t, "it is acked", func() { u.round(t.Context()) }, func() bool {
		info := left(t, rdb, forgotten)
		return info.Pending == 0 && info.LastDeliveredID == entry.ID
	})
	if n := len(letters(t, rdb, forgotten)); n != 0 {
		t.Errorf("%d dead letters", n)
	}
	clean(t, rdb, forgotten)
}
