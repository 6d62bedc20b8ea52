package ledger_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"riposte/ledger"
)

// asking parks an alert for approval until a time.
func (w *world) asking(id string, until time.Time) {
	w.Helper()
	l := w.replica("a")
	g := w.take(l, "a", id)
	g.Body.Approval = &ledger.Approval{Within: time.Minute, Until: until}
	w.must(l.Park(w.ctx, g, []byte(alertJSON(id, 4711)), until, "approval: p/one would log", true))
}

// Who decides while copies of the alert arrive is heard all the same.
func TestDecideBesideDuplicates(t *testing.T) {
	w := newWorld(t)
	w.asking("x", time.Now().Add(time.Hour))
	l := w.replica("b")
	r := w.interrupted("get", func() { w.begin(l, claim("x", w.deliver("b", "x"))) })
	if a, err := r.Decide(w.ctx, "x", true, "me", "fine"); err != nil || a.Answer != ledger.Yes {
		t.Errorf("%+v, %v", a, err)
	}
	if h, b := w.entry("x"); h.State != ledger.Held || h.Duplicates != 1 || b.Approval.Answer != ledger.Yes {
		t.Errorf("%+v %+v", h, b.Approval)
	}
}

// A yes that comes after its time is none, also where no replica was there to say so.
func TestDecideTooLate(t *testing.T) {
	w := newWorld(t)
	w.asking("x", time.Now().Add(-time.Minute))
	_, err := w.reader().Decide(w.ctx, "x", true, "me", "fine")
	if !errors.Is(err, ledger.ErrUndecidable) || !strings.Contains(err.Error(), "nobody did by") {
		t.Errorf("error %v", err)
	}
	if n, err := w.replica("b").Wake(w.ctx, 10); n != 1 || err != nil {
		t.Errorf("woken %d, %v", n, err)
	}
	if h, b := w.entry("x"); h.State != ledger.Held || b.Approval.Answer != ledger.TooLate {
		t.Errorf("%+v %+v", h, b.Approval)
	}
}
