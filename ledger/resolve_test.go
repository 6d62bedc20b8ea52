package ledger_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"riposte/ledger"
	"riposte/stream"
)

func onlyError[T any](_ T, err error) error { return err }

// doubt settles an alert whose first step has an unknown outcome.
func (w *world) doubt(l *ledger.Ledger, owner, id string, more ...string) *ledger.Grant {
	w.Helper()
	g := w.take(l, owner, id)
	w.must(record(w, l, g, 0, "unknown"))
	w.must(record(w, l, g, 1, append(more, "logged")[0]))
	return g
}

// park sets an alert aside.
func (w *world) park(l *ledger.Ledger, owner, id string, due time.Time) *ledger.Grant {
	w.Helper()
	g := w.take(l, owner, id)
	w.must(l.Park(w.ctx, g, []byte(alertJSON(id, 4711)), due, "test", false))
	return g
}

func TestResolve(t *testing.T) {
	w := newWorld(t)
	a := w.replica("a")
	w.doubt(a, "a", "x")
	before, body := w.entry("x")
	if body.Unresolved != 1 {
		t.Errorf("%d unresolved", body.Unresolved)
	}
	w.must(w.rdb.PExpire(w.ctx, w.key("x"), time.Hour).Err())

	r := w.reader()
	done, err := r.Resolve(w.ctx, "x", "", "me@here", "  the ticket is there\n")
	w.must(err)
	if done.Step != "p/one" || done.Earlier != nil {
		t.Errorf("%+v", done)
	}
	after, body := w.entry("x")
	s := body.Steps[0]
	if after != before || s.Outcome != "unknown" || body.Unresolved != 0 || s.Resolved == nil || s.Resolved.By != "me@here" ||
		s.Resolved.Note != "the ticket is there" || time.Since(s.Resolved.At) > time.Minute || body.Steps[1].Resolved != nil {
		t.Errorf("%+v, was %+v; %+v", after, before, s)
	}
	if ttl := w.rdb.PTTL(w.ctx, w.key("x")).Val(); ttl <= 0 || ttl > time.Hour {
		t.Errorf("time to live %v", ttl)
	}

	// The first note stands.
	later, err := r.Resolve(w.ctx, "x", "p/one", "you", "it is not")
	w.must(err)
	if later.Earlier == nil || later.Earlier.By != "me@here" {
		t.Errorf("%+v", later)
	}
	if _, again := w.entry("x"); again.Steps[0].Resolved.Note != "the ticket is there" {
		t.Errorf("%+v", again.Steps[0])
	}
	w.wantEvents("x", "run record record resolve resolve")
	history, err := r.History(w.ctx, "x")
	w.must(err)
	if words := history[4].Words(); words != "p/one: you has looked into it: it is not" || history[3].Epoch != before.Token.Epoch {
		t.Errorf("%s; %+v", words, history[3])
	}
	e, err := r.Find(w.ctx, "x")
	w.must(err)
	if raw, err := json.Marshal(e); err != nil || !strings.Contains(string(raw), `"resolved":{"by":"me@here","at":"`+ledger.Stamp(s.Resolved.At)+`","note":"the ticket is there"}`) || strings.Count(string(raw), "resolved") != 1 {
		t.Errorf("%s, %v", raw, err)
	}
	if c := w.clean().Counts; c.Unknown != 1 || c.Unresolved != 0 {
		t.Errorf("%+v", c)
	}
}

func TestResolveRefuses(t *testing.T) {
	w := newWorld(t)
	a := w.replica("a")
	w.settle(a, "a", "sure")
	w.doubt(a, "a", "two", "unknown")
	g := w.take(a, "a", "held")
	w.must(record(w, a, g, 0, "unknown"))
	w.doubt(a, "a", "one")
	w.must(w.rdb.Set(w.ctx, w.key("bad"), "bad", 0).Err())
	for name, c := range map[string]struct{ id, step, note, says string }{
		"not unknown":    {"sure", "", "n", "none of its steps"},
		"which":          {"two", "", "n", "name one of its steps with --step: p/one, p/two"},
		"held":           {"held", "p/one", "n", "it is held; wait"},
		"no such step":   {"one", "p/three", "n", "has no step"},
		"another result": {"one", "p/two", "n", `is "logged", not unknown`},
		"no note":        {"one", "", " ", "say in 1 to 1000 bytes"},
		"a long note":    {"one", "", strings.Repeat("x", ledger.MaxNote+1), "this has 1001"},
		"unreadable":     {"bad", "", "n", "cannot be read"},
	} {
		was := w.rdb.Get(w.ctx, w.key(c.id)).Val()
		if done, err := w.reader().Resolve(w.ctx, stream.AlertID(c.id), c.step, "me", c.note); !errors.Is(err, ledger.ErrNotResolvable) || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %+v, %v", name, done, err)
		}
		if is := w.rdb.Get(w.ctx, w.key(c.id)).Val(); is != was {
			t.Errorf("%s: changed to %s", name, is)
		}
	}
	unknown := new(ledger.UnknownAlertError)
	if _, err := w.reader().Resolve(w.ctx, "nobody", "", "me", "n"); !errors.As(err, &unknown) {
		t.Error(err)
	}
	// One of two, and then the other needs no name.
	w.must(onlyError(w.reader().Resolve(w.ctx, "two", "p/two", "me", "n")))
	if done, err := w.reader().Resolve(w.ctx, "two", "", "me", "n"); err != nil || done.Step != "p/one" {
		t.Errorf("%+v, %v", done, err)
	}
	if _, body := w.entry("two"); body.Unresolved != 0 {
		t.Errorf("%+v", body)
	}
}

// What has changed since it was read is read again: nothing is written over.
func TestResolveOfWhatHasChanged(t *testing.T) {
	w := newWorld(t)
	a := w.replica("a")
	w.doubt(a, "a", "x", "unknown")
	r := w.interrupted("mget", func() {
		w.begin(a, claim("x", w.deliver("a", "x"))) // a duplicate is counted
		w.must(onlyError(w.reader().Resolve(w.ctx, "x", "p/two", "you", "that one")))
	})
	w.must(onlyError(r.Resolve(w.ctx, "x", "p/one", "me", "this one")))
	h, body := w.entry("x")
	if h.Duplicates != 1 || body.Unresolved != 0 || body.Steps[0].Resolved.By != "me" || body.Steps[1].Resolved.By != "you" {
		t.Errorf("%+v, %+v", h, body)
	}
	gone := w.interrupted("mget", func() { w.must(w.rdb.Del(w.ctx, w.key("x")).Err()) })
	unknown := new(ledger.UnknownAlertError)
	if _, err := gone.Resolve(w.ctx, "x", "p/one", "me", "n"); !errors.As(err, &unknown) || w.rdb.Exists(w.ctx, w.key("x")).Val() != 0 {
		t.Errorf("an entry that is gone: %v", err)
	}
	// Dead, sent round again, and held by nobody: its body is its next holder's.
	w.doubtful(a, "y")
	revived := w.interrupted("mget", func() { w.must(onlyError(w.reader().Revive(w.ctx, w.letter("y"), "you"))) })
	if _, err := revived.Resolve(w.ctx, "y", "p/one", "me", "n"); !errors.Is(err, ledger.ErrNotResolvable) {
		t.Error(err)
	}
	if _, body := w.entry("y"); body.Unresolved != 1 || body.Steps[0].Resolved != nil {
		t.Errorf("%+v", body)
	}
}

// doubtful buries an alert of which one step has an unknown outcome.
func (w *world) doubtful(l *ledger.Ledger, id string) {
	w.Helper()
	g := w.take(l, "a", id)
	w.must(record(w, l, g, 0, "unknown"))
	w.must(l.Bury(w.ctx, g, letter(alertJSON(id, 4711), "poison")))
}

// A note outlives the letter's second round.
func TestResolveOfDead(t *testing.T) {
	w := newWorld(t)
	a := w.replica("a")
	w.doubtful(a, "x")
	w.must(onlyError(w.reader().Resolve(w.ctx, "x", "", "me", "n")))
	sent, err := w.reader().Revive(w.ctx, w.letter("x"), "me")
	w.must(err)
	_, again := w.again(a, sent.Entry)
	w.must(record(w, a, again.Grant, 1, "logged"))
	if h, body := w.entry("x"); h.State != ledger.Done || body.Unresolved != 0 || body.Steps[0].Resolved == nil || body.Steps[0].Outcome != "unknown" {
		t.Errorf("%+v, %+v", h, body)
	}
	w.clean()
}

// Of many at once one is first, and each is in the journal.
func TestResolveConcurrently(t *testing.T) {
	w := newWorld(t)
	a := w.replica("a")
	w.doubt(a, "a", "x")
	var all sync.WaitGroup
	var mu sync.Mutex
	first := ""
	for i := range 8 {
		all.Go(func() {
			by := fmt.Sprint("p", i)
			done, err := w.reader().Resolve(w.ctx, "x", "", by, "n")
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				t.Error(err)
			} else if done.Earlier == nil {
				first += by
			}
		})
	}
	all.Wait()
	if _, body := w.entry("x"); body.Steps[0].Resolved == nil || body.Steps[0].Resolved.By != first {
		t.Errorf("first %q; %+v", first, body.Steps[0])
	}
	w.wantEvents("x", "run record record"+strings.Repeat(" resolve", 8))
}

func TestPurge(t *testing.T) {
	w := newWorld(t)
	a := w.replica("a")
	w.bury(a, "a", "x")
	w.bury(a, "a", "y")
	l := w.letter("x")
	for i, want := range []bool{true, false} {
		if gone, err := w.reader().Purge(w.ctx, l, "me@here"); gone != want || err != nil {
			t.Errorf("%d: %v, %v", i, gone, err)
		}
	}
	if w.letters() != 1 || w.letter("y").Alert != "y" {
		t.Errorf("%d letters", w.letters())
	}
	if h, _ := w.entry("x"); h.State != ledger.Dead {
		t.Errorf("%+v", h)
	}
	w.wantEvents("x", "run bury purge")
	history, err := w.reader().History(w.ctx, "x")
	w.must(err)
	if words := history[2].Words(); words != "dead letter purged by me@here; it had been buried: "+l.Reason || history[2].Epoch != l.Epoch {
		t.Errorf("%s; %+v", words, history[2])
	}
	if sent, err := w.reader().Revive(w.ctx, l, "you"); !errors.Is(err, ledger.ErrNotRevivable) {
		t.Errorf("%+v, %v", sent, err)
	}
	if c := w.clean().Counts; c.Dead != 2 || c.Letters != 1 {
		t.Errorf("%+v", c)
	}
}
