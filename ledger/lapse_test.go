package ledger_test

import (
	"testing"
	"time"

	"riposte/ledger"
)

// TestLapse: what was done for a time comes to its end once, however often that is seen, and
// the audit has nothing against it.
func TestLapse(t *testing.T) {
	w := newWorld(t)
	l := w.replica("a")
	g := w.take(l, "a", "x")
	since := time.Date(2026, 1, 2, 4, 0, 0, 0, time.UTC)
	if noted, err := w.reader().Lapse(w.ctx, "x", "p/one", "a", since); err != nil || noted {
		t.Fatalf("an alert that is not settled: %v, %v", noted, err)
	}
	for i := range g.Body.Steps {
		g.Body.Steps[i].Outcome = "blocked"
		w.must(l.Record(w.ctx, g, i))
	}
	for range 2 {
		if noted, err := w.reader().Lapse(w.ctx, "x", "p/one", "a", since); err != nil || !noted {
			t.Fatal(noted, err)
		}
	}
	h, b := w.entry("x")
	if h.State != ledger.Done || !b.Steps[0].Lapsed.Equal(since) || !b.Steps[1].Lapsed.IsZero() || b.Steps[0].Outcome != "blocked" {
		t.Errorf("%+v", b.Steps)
	}
	if ttl := w.rdb.PTTL(w.ctx, w.host.LedgerKey(w.group, "x")).Val(); ttl <= 0 {
		t.Errorf("the entry stays for %v", ttl)
	}
	history, err := w.reader().History(w.ctx, "x")
	w.must(err)
	n := 0
	for _, e := range history {
		if e.Event == "lapse" {
			n++
		}
	}
	if n != 1 {
		t.Errorf("the journal tells of it %d times", n)
	}
	for _, gone := range []string{"nobody", "x"} {
		if noted, err := w.reader().Lapse(w.ctx, "y", "p/"+gone, "a", since); err != nil || !noted {
			t.Error(noted, err)
		}
	}
	w.clean()
}
