package ledger_test

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"strings"
	"testing"
	"time"

	"riposte/ledger"
	"riposte/stream"
)

func TestRecord(t *testing.T) {
	w := newWorld(t)
	a := w.custom(ledger.Config{Owner: "a", Lease: time.Minute, Retention: time.Hour})
	g := w.take(a, "a", "x")

	same := *g // as before the first record: its reply is lost, and it is sent again
	w.must(record(w, a, g, 0, "logged"))
	w.must(record(w, a, &same, 0, "logged"))
	w.wantEvents("x", "run record")
	if h, b := w.entry("x"); h.State != ledger.Held || h.Seq != 1 || b.Steps[0].Outcome != "logged" || b.Steps[1].Outcome != "" {
		t.Errorf("after the first step: %+v, %+v", h, b.Steps)
	}
	if len(w.pending()) != 1 || w.rdb.TTL(w.ctx, w.key("x")).Val() != -1 {
		t.Error("acked, or given a time to live, before the last step")
	}

	g.Body.Steps[1].Attempts = 1
	w.must(a.RecordAttempt(w.ctx, g, 1, errors.New("no luck")))
	if h, b := w.entry("x"); h.Seq != 2 || b.Steps[1].Attempts != 1 || b.Steps[1].Reason != "" || b.Steps[1].Outcome != "" {
		t.Errorf("after an attempt: %+v, %+v", h, b.Steps[1])
	}

	same = *g
	w.must(record(w, a, g, 1, "logged"))
	w.must(record(w, a, &same, 1, "logged"))
	w.wantEvents("x", "run record retry record")
	if h, b := w.entry("x"); h.State != ledger.Done || !h.Lease.IsZero() || b.Steps[1].Outcome != "logged" {
		t.Errorf("after the last step: %+v", h)
	}
	if left := w.pending(); len(left) != 0 {
		t.Errorf("pending after the last step: %v", left)
	}
	if ttl := w.rdb.TTL(w.ctx, w.key("x")).Val(); ttl > time.Hour || ttl < 59*time.Minute {
		t.Errorf("time to live %v", ttl)
	}
}

// Whoever has lost the grant changes nothing; what it says is kept as evidence.
func TestStaleWrites(t *testing.T) {
	w := newWorld(t)
	a, b := w.replica("a"), w.replica("b")
	stale := w.take(a, "a", "x")
	g := w.granted(ledger.Resume, b, claim("x", stale.StreamID), "a")
	was, _ := w.rdb.Get(w.ctx, w.key("x")).Result()

	w.wantLost(record(w, a, stale, 0, "killed"))
	w.wantLost(a.RecordAttempt(w.ctx, stale, 0, errors.New("e")))
	w.wantLost(a.Bury(w.ctx, stale, letter("raw", "why")))
	w.must(a.Release(w.ctx, stale, "stop"))
	renewed, lost, _, err := a.Renew(w.ctx, []*ledger.Grant{stale})
	if err != nil || len(renewed) != 0 || len(lost) != 1 || lost[0] != stale {
		t.Errorf("renewed %v, lost %v, %v", renewed, lost, err)
	}
	forged := *g
	forged.Token.Nonce = stale.Token.Nonce
	w.wantLost(record(w, a, &forged, 0, "killed"))
	if renewed, _, _, err := a.Renew(w.ctx, []*ledger.Grant{&forged}); err != nil || len(renewed) != 0 {
		t.Errorf("renewed under another's nonce: %v, %v", renewed, err)
	}
	w.must(a.Release(w.ctx, &forged, "stop"))

	if is, _ := w.rdb.Get(w.ctx, w.key("x")).Result(); is != was {
		t.Errorf("the entry changed from\n%s\nto\n%s", was, is)
	}
	if n := w.rdb.XLen(w.ctx, w.host.DeadKey(w.group)).Val(); n != 0 || len(w.pending()) != 1 {
		t.Errorf("%d dead letters, pending %v", n, w.pending())
	}
	w.wantEvents("x", "run resume late late late late")
	history, err := w.reader().History(w.ctx, "x")
	w.must(err)
	if e := history[2]; e.Epoch != stale.Token.Epoch || e.Outcome != "killed" || e.Step != "p/one" || e.Owner != "a" {
		t.Errorf("evidence: %+v", e)
	}

	// The holder is not disturbed.
	w.must(record(w, b, g, 0, "logged"))
	w.must(record(w, b, g, 1, "logged"))
	w.wantLost(record(w, a, stale, 1, "killed"))
	w.must(b.Release(w.ctx, g, "late"))
	if h, body := w.entry("x"); h.State != ledger.Done || body.Steps[1].Outcome != "logged" {
		t.Errorf("%+v, %+v", h, body)
	}
}

func TestAbsentEntryIsNeverCreated(t *testing.T) {
	w := newWorld(t)
	a := w.replica("a")
	g := w.take(a, "a", "x")
	w.must(w.rdb.Del(w.ctx, w.key("x")).Err())
	w.wantLost(record(w, a, g, 0, "logged"))
	w.wantLost(a.Bury(w.ctx, g, letter("raw", "why")))
	w.must(a.Release(w.ctx, g, "stop"))
	if renewed, lost, _, err := a.Renew(w.ctx, []*ledger.Grant{g}); err != nil || len(renewed) != 0 || len(lost) != 1 {
		t.Errorf("renewed %v, lost %v, %v", renewed, lost, err)
	}
	if n := w.rdb.Exists(w.ctx, w.key("x"), w.host.DeadKey(w.group)).Val(); n != 0 {
		t.Error("something was created")
	}
	if len(w.pending()) != 1 {
		t.Error("it was acked")
	}
}

func TestRenew(t *testing.T) {
	w := newWorld(t)
	a, b := w.replica("a"), w.replica("b")
	x, y := w.take(a, "a", "x"), w.take(a, "a", "y")
	was, _ := w.entry("y")
	w.granted(ledger.Resume, b, claim("x", x.StreamID), "a")
	asked := time.Now()
	renewed, lost, until, err := a.Renew(w.ctx, []*ledger.Grant{x, y})
	if err != nil || len(renewed) != 1 || renewed[0] != y || len(lost) != 1 || lost[0] != x {
		t.Fatalf("renewed %v, lost %v, %v", renewed, lost, err)
	}
	is, _ := w.entry("y")
	if !is.Lease.After(was.Lease) {
		t.Errorf("lease %v, was %v", is.Lease, was.Lease)
	}
	if local := time.Now().Add(until.Left()); local.After(is.Lease) || local.Before(asked.Add(59*time.Second)) {
		t.Errorf("local deadline %v, the server's %v", local, is.Lease)
	}
	was.Lease, is.Lease = time.Time{}, time.Time{}
	if is != was {
		t.Errorf("more than the lease changed: %+v, %+v", was, is)
	}
	w.must(record(w, a, y, 0, "logged"))
	w.must(record(w, a, y, 1, "logged"))
	if _, lost, _, err := a.Renew(w.ctx, []*ledger.Grant{y}); err != nil || len(lost) != 1 {
		t.Errorf("a settled alert was renewed: %v, %v", lost, err)
	}
}

func TestRelease(t *testing.T) {
	w := newWorld(t)
	a, b := w.replica("a"), w.replica("b")
	g := w.take(a, "a", "x")
	w.must(record(w, a, g, 0, "logged"))
	w.must(a.Release(w.ctx, g, "stopping"))
	w.must(a.Release(w.ctx, g, "stopping"))
	w.wantLost(record(w, a, g, 1, "logged"))
	if len(w.pending()) != 1 {
		t.Error("it was acked")
	}
	after := w.granted(ledger.Resume, b, claim("x", g.StreamID), "a")
	if h, body := w.entry("x"); h.Deaths != 0 || body.Steps[0].Outcome != "logged" {
		t.Errorf("a clean stop counts as a death, or its record is gone: %+v", h)
	}
	w.must(record(w, b, after, 1, "logged"))
	w.wantEvents("x", "run record release late resume record")
}

func TestBury(t *testing.T) {
	w := newWorld(t)
	a := w.custom(ledger.Config{Owner: "a", Lease: time.Minute, Retention: time.Hour})
	g := w.take(a, "a", "x")
	raw := strings.Repeat("x", stream.MaxDeadBytes+1)
	for range 2 { // once more: its reply was lost
		w.must(a.Bury(w.ctx, g, letter(raw, "why")))
	}
	var letters []ledger.Letter
	w.must(w.reader().Letters(w.ctx, func(l ledger.Letter) error { letters = append(letters, l); return nil }))
	if len(letters) != 1 {
		t.Fatalf("%d dead letters", len(letters))
	}
	sum := sha256.Sum256([]byte(raw))
	l := letters[0]
	if l.Alert != "x" || l.Entry != g.StreamID || l.Reason != "why" || l.Replica != "a" || l.Epoch != g.Token.Epoch ||
		l.Length != len(raw) || l.SHA256 != hex.EncodeToString(sum[:]) || string(l.Raw) != raw[:stream.MaxDeadBytes] {
		l.Raw = nil
		t.Errorf("%+v", l)
	}
	if h, _ := w.entry("x"); h.State != ledger.Dead || len(w.pending()) != 0 {
		t.Errorf("%+v, pending %v", h, w.pending())
	}
	if ttl := w.rdb.TTL(w.ctx, w.key("x")).Val(); ttl > time.Hour || ttl < 59*time.Minute {
		t.Errorf("time to live %v", ttl)
	}
	w.wantLost(record(w, a, g, 0, "logged"))
	w.wantEvents("x", "run bury late")
}

// A full Redis starts nothing new, and records what was done.
func TestFullRedis(t *testing.T) {
	w := newWorld(t)
	a := w.replica("a")
	recorded, buried, released := w.take(a, "a", "recorded"), w.take(a, "a", "buried"), w.take(a, "a", "released")
	c := claim("new", w.deliver("a", "new"))
	w.must(w.rdb.ConfigSet(w.ctx, "maxmemory", "1").Err())
	if answers, err := a.Begin(w.ctx, []ledger.Claim{c}, nil); err == nil || !strings.Contains(err.Error(), "OOM") {
		t.Errorf("Begin: %+v, %v", answers, err)
	}
	if renewed, _, _, err := a.Renew(w.ctx, []*ledger.Grant{recorded, buried, released}); err != nil || len(renewed) != 3 {
		t.Errorf("Renew: %v, %v", renewed, err)
	}
	w.must(record(w, a, recorded, 0, "logged"))
	w.must(record(w, a, recorded, 1, "logged"))
	w.must(a.Bury(w.ctx, buried, letter("raw", "why")))
	w.must(a.Release(w.ctx, released, "stop"))
	w.wantEvents("recorded", "run record record")
	w.wantEvents("buried", "run bury")
	if n := w.rdb.Exists(w.ctx, w.key("new")).Val(); n != 0 {
		t.Error("Begin left an entry")
	}
	w.must(w.rdb.ConfigSet(w.ctx, "maxmemory", "0").Err())
	w.granted(ledger.Run, a, c)
}

// Redis may lose its scripts at any time, as a new master has none.
func TestScriptsAreLoadedAgain(t *testing.T) {
	w := newWorld(t)
	a, b := w.replica("a"), w.replica("b")
	flush := func() { w.Helper(); w.must(w.rdb.ScriptFlush(w.ctx).Err()) }
	g := w.take(a, "a", "x")
	flush()
	if _, lost, _, err := a.Renew(w.ctx, []*ledger.Grant{g}); err != nil || len(lost) != 0 {
		t.Errorf("Renew: %v, %v", lost, err)
	}
	flush()
	w.must(record(w, a, g, 0, "logged"))
	flush()
	w.must(a.Release(w.ctx, g, "stop"))
	flush()
	g = w.granted(ledger.Resume, b, claim("x", g.StreamID))
	flush()
	w.must(b.Bury(w.ctx, g, letter(alertJSON("x", 4711), "why")))
	flush()
	l, err := w.reader().Letter(w.ctx, "x")
	w.must(err)
	_, err = w.reader().Revive(w.ctx, l, "me")
	w.must(err)
	w.wantEvents("x", "run record release resume bury revive")
}

// Every script that writes a line drops those that are past retention.
func TestJournalIsTrimmed(t *testing.T) {
	w := newWorld(t)
	// Trimming goes by whole nodes, of 100 lines unless configured otherwise.
	w.must(w.rdb.ConfigSet(w.ctx, "stream-node-max-entries", "1").Err())
	const old = "1000-1"
	forever := w.custom(ledger.Config{Owner: "a", Lease: time.Minute, Retention: 100 * 365 * 24 * time.Hour})
	a := w.replica("a")
	for name, write := range map[string]func(g *ledger.Grant) error{
		"begin":   func(*ledger.Grant) error { w.take(a, "a", "new"); return nil },
		"record":  func(g *ledger.Grant) error { return record(w, a, g, 0, "logged") },
		"bury":    func(g *ledger.Grant) error { return a.Bury(w.ctx, g, letter("", "why")) },
		"release": func(g *ledger.Grant) error { return a.Release(w.ctx, g, "why") },
	} {
		w.must(w.rdb.Del(w.ctx, w.host.JournalKey()).Err())
		w.must(w.rdb.Do(w.ctx, "XADD", w.host.JournalKey(), old, "id", "old").Err())
		there := func() bool { return len(w.rdb.XRange(w.ctx, w.host.JournalKey(), old, old).Val()) == 1 }
		g := w.take(forever, "a", name)
		if !there() {
			t.Fatal("dropped within retention")
		}
		w.must(write(g))
		if there() || w.events(name) == "" {
			t.Errorf("%s: the journal grows without end", name)
		}
	}
}

func TestConfigValidate(t *testing.T) {
	t.Parallel()
	good := ledger.Config{Host: "h", Group: "g", Owner: "o"}
	if err := good.Validate(); err != nil || good.Lease != 5*time.Second || good.Retention != 7*24*time.Hour || good.DeathsToBury != 5 || good.Gate != "-" {
		t.Errorf("defaults %+v, %v", good, err)
	}
	for name, spoil := range map[string]func(*ledger.Config){
		"lease":     func(c *ledger.Config) { c.Lease = time.Millisecond },
		"retention": func(c *ledger.Config) { c.Lease, c.Retention = time.Minute, time.Minute },
		"no owner":  func(c *ledger.Config) { c.Owner = "" },
		"owner":     func(c *ledger.Config) { c.Owner = "a b" },
		"gate":      func(c *ledger.Config) { c.Gate = "a\nb" },
	} {
		c := ledger.Config{Host: "h", Group: "g", Owner: "o"}
		spoil(&c)
		if _, err := ledger.New(nil, c); err == nil {
			t.Errorf("%s: accepted %+v", name, c)
		}
	}
}
