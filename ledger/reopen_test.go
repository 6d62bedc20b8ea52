package ledger_test

import (
	"testing"
	"time"

	"riposte/ledger"
)

// again adds a step to a settled alert.
func again(b *ledger.Body) error {
	b.Steps = append(b.Steps, ledger.Step{Playbook: "p", Step: "one~undo", Undoes: "one", Action: "log", Mode: "enforce"})
	return nil
}

// What is noted beside an outcome while its alert is opened again stays noted.
func TestReopenKeepsNotes(t *testing.T) {
	w := newWorld(t)
	l := w.replica("a")
	g := w.take(l, "a", "x")
	w.must(record(w, l, g, 0, "blocked"))
	w.must(record(w, l, g, 1, "unknown"))
	since := time.Date(2026, 1, 2, 4, 0, 0, 0, time.UTC)
	r := w.interrupted("mget", func() {
		_, err := w.reader().Resolve(w.ctx, "x", "p/two", "me", "it did happen")
		w.must(err)
		_, err = w.reader().Lapse(w.ctx, "x", "p/one", "a", since)
		w.must(err)
	})
	w.must(r.Reopen(w.ctx, "x", "you", "why", again))
	h, b := w.entry("x")
	if h.State != ledger.Held || len(b.Steps) != 3 || b.Steps[1].Resolved == nil || !b.Steps[0].Lapsed.Equal(since) || b.Unresolved != 0 {
		t.Errorf("%+v %+v", h, b)
	}
}

// What an undo adds to the stream reaches every group. It brings no alert with it, so it begins
// nothing but the entry that it was added for.
func TestReopenedBeginsNothingElse(t *testing.T) {
	w := newWorld(t)
	l := w.replica("a")
	g := w.take(l, "a", "x")
	w.must(l.Release(w.ctx, g, "stopped")) // it goes on by its own delivery
	other := w.add("id", "x", "reopened", digest(alertJSON("x", 4711)))
	w.read("a")
	c := claim("x", other)
	c.Reopened = true
	if a := w.begin(l, c); a.Verdict != ledger.Busy || a.Left != time.Minute {
		t.Errorf("it begins what is another delivery's: %+v", a)
	}
	g = w.granted(ledger.Resume, l, claim("x", g.StreamID))
	w.must(record(w, l, g, 0, "logged"))
	w.must(record(w, l, g, 1, "logged"))
	if a := w.begin(l, c); a.Verdict != ledger.Settled || len(w.pending()) != 0 {
		t.Errorf("when all is done: %+v, pending %v", a, w.pending())
	}

	// Its own it begins, also when its holder has died.
	w.must(w.reader().Reopen(w.ctx, "x", "you", "why", again))
	w.read("a")
	h, _ := w.entry("x")
	for range 2 {
		c = claim("x", h.StreamID)
		c.Reopened = true
		g = w.granted(ledger.Resume, l, c, "a")
	}
	w.must(record(w, l, g, 2, "logged"))
	w.clean()
}
