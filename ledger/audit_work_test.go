package ledger_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/alicebob/miniredis/v2/server"
	"github.com/redis/go-redis/v9"

	"riposte/ledger"
	"riposte/stream"
)

// While replicas are at work nothing that is merely under way is reported.
func TestAuditWhileAtWork(t *testing.T) {
	w := newWorld(t)
	const each = 150
	var all sync.WaitGroup
	for i := range 4 {
		name := fmt.Sprint("r", i)
		l := w.replica(name)
		all.Go(func() {
			for n := range each {
				if err := workOnce(w, l, name, fmt.Sprintf("%s-%d", name, n), n); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	worked := make(chan struct{})
	go func() { defer close(worked); all.Wait() }()
	for audits := 0; ; audits++ {
		select {
		case <-worked:
			if c := w.clean().Counts; c.Accepted != 4*each || c.Settled != 4*each || c.Pending != 0 || audits < 3 {
				t.Errorf("after %d audits: %+v", audits, c)
			}
			return
		default:
			w.clean()
		}
	}
}

// What changes between two readings is not taken for a contradiction.
func TestAuditLooksAgain(t *testing.T) {
	for name, c := range map[string]struct {
		after  string // this command of the audit
		before func(w *world, a *ledger.Ledger) (then func())
	}{
		"sent round again": {"mget", func(w *world, a *ledger.Ledger) func() {
			w.bury(a, "a", "x")
			return func() {
				_, err := w.reader().Revive(w.ctx, w.letter("x"), "me")
				w.must(err)
			}
		}},
		"no alert, sent round again": {"mget", func(w *world, a *ledger.Ledger) func() {
			entry := w.add("alert", "no alert")
			w.read("a")
			c := ledger.Claim{ID: stream.EntryID(entry), StreamID: entry, Nonce: ledger.NewNonce(), Digest: "-", Body: plan()}
			w.must(a.Bury(w.ctx, w.granted(ledger.Run, a, c), letter("no alert", "malformed")))
			return func() {
				_, err := w.reader().Revive(w.ctx, w.letter("entry~"+entry), "me")
				w.must(err)
			}
		}},
		"purged": {"mget", func(w *world, a *ledger.Ledger) func() {
			w.bury(a, "a", "x")
			return func() { w.must(onlyError(w.reader().Purge(w.ctx, w.letter("x"), "me"))) }
		}},
		"parked": {"mget", func(w *world, a *ledger.Ledger) func() {
			g := w.take(a, "a", "x")
			return func() { w.must(a.Park(w.ctx, g, []byte(alertJSON("x", 4711)), time.Time{}, "test", false)) }
		}},
		"woken": {"mget", func(w *world, a *ledger.Ledger) func() {
			w.park(a, "a", "x", time.Now().Add(-time.Second))
			return func() {
				if n, err := a.Wake(w.ctx, 10); n != 1 || err != nil {
					t.Errorf("woken %d, %v", n, err)
				}
			}
		}},
		"settled after a long time": {"xpending", func(w *world, a *ledger.Ledger) func() {
			g := w.take(a, "a", "x")
			w.must(w.rdb.Do(w.ctx, "XCLAIM", w.host.AlertsKey(), "containment", "a", 0, g.StreamID, "IDLE", 61000).Err())
			return func() {
				w.must(record(w, a, g, 0, "logged"))
				w.must(record(w, a, g, 1, "logged"))
			}
		}},
		"settled and trimmed": {"xpending", func(w *world, a *ledger.Ledger) func() {
			g := w.take(a, "a", "x")
			return func() {
				w.must(record(w, a, g, 0, "logged"))
				w.must(record(w, a, g, 1, "logged"))
				w.must(w.rdb.XTrimMaxLen(w.ctx, w.host.AlertsKey(), 0).Err())
			}
		}},
		"handed back, settled and trimmed": {"mget", func(w *world, a *ledger.Ledger) func() {
			g := w.take(a, "a", "x")
			w.must(a.Release(w.ctx, g, "stop"))
			return func() {
				g = w.granted(ledger.Resume, a, claim("x", g.StreamID))
				w.must(record(w, a, g, 0, "logged"))
				w.must(record(w, a, g, 1, "logged"))
				w.must(w.rdb.XTrimMaxLen(w.ctx, w.host.AlertsKey(), 0).Err())
			}
		}},
		"published, settled and sent round again": {"xinfo", func(w *world, a *ledger.Ledger) func() {
			return func() {
				w.bury(a, "a", "x")
				_, err := w.reader().Revive(w.ctx, w.letter("x"), "me")
				w.must(err)
			}
		}},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			a := w.replica("a")
			happened := false
			then := c.before(w, a)
			report, err := w.interrupted(c.after, func() { happened = true; then() }).Audit(w.ctx, ledger.AuditConfig{})
			if err != nil || len(report.Findings) != 0 || !happened {
				t.Errorf("happened %v; %+v, %v", happened, report, err)
			}
			w.clean()
		})
	}
}

// A letter is written again after the letters were read, and the journal is read on only
// after that.
func TestAuditLooksForLettersAgain(t *testing.T) {
	w := newWorld(t)
	a := w.replica("a")
	w.bury(a, "a", "x")
	var entry string
	rdb := w.srv.Client()
	rdb.AddHook(&between{command: "mget", do: func() { // the ledger is read
		sent, err := w.reader().Revive(w.ctx, w.letter("x"), "me")
		w.must(err)
		entry = sent.Entry
	}})
	rdb.AddHook(&between{command: "zrange", do: func() { // and the letters
		_, again := w.again(a, entry)
		w.must(a.Bury(w.ctx, again.Grant, letter(alertJSON("x", 4711), "poison")))
	}})
	report, err := ledger.NewReader(rdb, w.host, w.group).Audit(w.ctx, ledger.AuditConfig{})
	if err != nil || len(report.Findings) != 0 || entry == "" || w.letters() != 1 || report.Counts.Letters != 1 {
		t.Errorf("%+v, %v; %d letters", report, err, w.letters())
	}
	w.clean()
}

// An alert that is woken, parked and woken again while it is looked at is not stranded.
func TestAuditLooksForWaitingAgain(t *testing.T) {
	w := newWorld(t)
	a := w.replica("a")
	past := time.Now().Add(-time.Second)
	w.park(a, "a", "x", past)
	wake := func() {
		if n, err := a.Wake(w.ctx, 10); n != 1 || err != nil {
			t.Errorf("woken %d, %v", n, err)
		}
	}
	rdb, moved := w.srv.Client(), false
	rdb.AddHook(&between{command: "mget", do: wake}) // the ledger is read
	rdb.AddHook(&between{command: "zrange", do: func() {
		w.read("a")
		g := w.granted(ledger.Resume, a, claim("x", w.headerOf("x").StreamID))
		w.must(a.Park(w.ctx, g, []byte(alertJSON("x", 4711)), past, "test", false))
		rdb.AddHook(&between{command: "mget", do: func() { moved = true; wake() }}) // its entry is looked at again
	}})
	report, err := ledger.NewReader(rdb, w.host, w.group).Audit(w.ctx, ledger.AuditConfig{})
	if err != nil || len(report.Findings) != 0 || !moved {
		t.Errorf("moved %v; %+v, %v", moved, report, err)
	}
	w.clean()
}

func (w *world) headerOf(id string) ledger.Header {
	w.Helper()
	h, _ := w.entry(id)
	return h
}

// Settling and acking are one step, but who looks in the middle of it sees two.
func TestAuditAllowsForWork(t *testing.T) {
	w := newWorld(t)
	a := w.replica("a")
	g := w.settle(a, "a", "x")
	w.must(w.rdb.Do(w.ctx, "XCLAIM", w.host.AlertsKey(), "containment", "a", 0, g.StreamID, "IDLE", 50000, "FORCE").Err())
	w.clean()
	report, err := w.reader().Audit(w.ctx, ledger.AuditConfig{Grace: 40 * time.Second})
	if err != nil || len(report.Findings) != 1 || report.Findings[0].Kind != ledger.NotAcked {
		t.Errorf("%+v, %v", report, err)
	}
}

// workOnce publishes an alert and brings it to its end, by one way or another.
func workOnce(w *world, l *ledger.Ledger, name, id string, n int) error {
	entry, err := w.rdb.XAdd(w.ctx, &redis.XAddArgs{Stream: w.host.AlertsKey(), Values: []any{"id", id, "alert", alertJSON(id, 4711)}}).Result()
	if err != nil {
		return err
	}
	for handled := false; !handled; {
		streams, err := w.rdb.XReadGroup(w.ctx, &redis.XReadGroupArgs{
			Group: "containment", Consumer: name, Streams: []string{w.host.AlertsKey(), ">"}, Count: 1, Block: -1,
		}).Result()
		if errors.Is(err, redis.Nil) { // another one has it
			return nil
		}
		if err != nil {
			return err
		}
		m := streams[0].Messages[0]
		handled = m.ID == entry
		got, _ := m.Values["id"].(string)
		answers, err := l.Begin(w.ctx, []ledger.Claim{claim(got, m.ID)}, nil)
		if err != nil {
			return err
		}
		g := answers[0].Grant
		if g == nil {
			continue
		}
		if n%3 == 0 && g.Body.Retries == 0 {
			if err := l.Bury(w.ctx, g, letter(alertJSON(got, 4711), "test")); err != nil {
				return err
			}
			letter, err := w.reader().Letter(w.ctx, got)
			if err != nil {
				return err
			}
			if _, err := w.reader().Revive(w.ctx, letter, name); err != nil {
				return err
			}
			handled = false // it comes again
			continue
		}
		if err := errors.Join(record(w, l, g, 0, "logged"), record(w, l, g, 1, "logged")); err != nil {
			return err
		}
	}
	return nil
}

// The demo's embedded Redis can be audited too.
func TestAuditOnMiniredis(t *testing.T) {
	t.Parallel()
	m := miniredis.RunT(t)
	m.Server().SetPreHook(func(_ *server.Peer, cmd string, args ...string) bool { // as the demo does
		if cmd == "EVAL" {
			args[0] = strings.TrimPrefix(strings.TrimPrefix(args[0], "#!lua flags=allow-oom"), "#!lua")
		}
		return false
	})
	rdb := redis.NewClient(&redis.Options{Addr: m.Addr(), MaxRetries: -1})
	defer rdb.Close()
	w := &world{T: t, ctx: t.Context(), rdb: rdb, host: "h1", group: "containment"}
	w.must(rdb.XGroupCreateMkStream(w.ctx, w.host.AlertsKey(), "containment", "0").Err())
	a := w.replica("a")
	w.settle(a, "a", "x")
	w.bury(a, "a", "y")
	if c := w.clean().Counts; c.Accepted != 2 || c.Settled != 1 || c.Dead != 1 {
		t.Errorf("%+v", c)
	}
	entry := w.deliver("a", "z")
	w.must(rdb.XAck(w.ctx, w.host.AlertsKey(), "containment", entry).Err())
	report, err := w.reader().Audit(w.ctx, ledger.AuditConfig{})
	w.must(err)
	if !slices.ContainsFunc(report.Findings, func(f ledger.Finding) bool { return f.Kind == ledger.Dropped && f.Key == entry }) {
		t.Errorf("%+v", report.Findings)
	}
}
