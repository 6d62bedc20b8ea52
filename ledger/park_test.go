package ledger_test

import (
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"riposte/ledger"
	"riposte/stream"
)

// A parked alert blocks nothing, is owned by nobody, and comes back once, under its own
// ID, whatever became of who parked it.
func TestPark(t *testing.T) {
	w := newWorld(t)
	a, b := w.replica("a"), w.replica("b")
	g := w.take(a, "a", "x")
	w.must(record(w, a, g, 0, "logged"))
	raw := strings.Replace(alertJSON("x", 4711), `"id":"x",`, "", 1) // its content alone would make another ID
	due := time.Now().Add(time.Hour)
	w.must(a.Park(w.ctx, g, []byte(raw), due, "breaker", false))
	w.must(a.Park(w.ctx, g, []byte(raw), due, "breaker", false)) // its reply was lost
	if h, body := w.entry("x"); h.State != ledger.Waiting || body.Parked == nil || string(body.Parked.Raw) != raw || body.Steps[0].Outcome != "logged" {
		t.Errorf("parked: %+v %+v", h, body)
	}
	if len(w.pending()) != 0 {
		t.Errorf("it pins trimming: %v", w.pending())
	}
	// A copy that comes meanwhile is acked, and grants nothing.
	if v := w.begin(b, claim("x", w.deliver("b", "x")), "a").Verdict; v != ledger.Settled || len(w.pending()) != 0 {
		t.Errorf("a copy of a parked alert: %s, pending %v", v, w.pending())
	}
	w.wantLost(record(w, a, g, 1, "logged"))
	if n, err := b.Wake(w.ctx, 10); n != 0 || err != nil {
		t.Errorf("woken before it is due: %d, %v", n, err)
	}

	w.must(w.rdb.ZAdd(w.ctx, w.host.WaitingKey(w.group), redis.Z{Score: 1, Member: "x"}).Err())
	var woken [2]int
	var both sync.WaitGroup
	for i, l := range []*ledger.Ledger{a, b} {
		both.Go(func() { woken[i], _ = l.Wake(w.ctx, 10) })
	}
	both.Wait()
	if woken[0]+woken[1] != 1 {
		t.Fatalf("woken %v times", woken)
	}
	h, body := w.entry("x")
	if h.State != ledger.Held || h.Owner != "-" || !h.Lease.IsZero() || body.Parked != nil {
		t.Errorf("woken: %+v %+v", h, body)
	}
	w.must(w.rdb.ZAdd(w.ctx, w.host.WaitingKey(w.group), redis.Z{Score: 1, Member: "absent"}, redis.Z{Score: 1, Member: "x"}).Err())
	if n, err := a.Wake(w.ctx, 10); n != 0 || err != nil {
		t.Errorf("woken that do not wait: %d, %v", n, err)
	}
	if n := w.rdb.ZCard(w.ctx, w.host.WaitingKey(w.group)).Val(); n != 0 {
		t.Errorf("%d are still waiting", n)
	}
	ds, err := stream.NewConsumer(w.rdb, w.host, w.group, "b").Read(w.ctx, 10)
	if err != nil || len(ds) != 1 || ds[0].StreamID != h.StreamID {
		t.Fatalf("delivered %+v, %v; want entry %s", ds, err, h.StreamID)
	}
	if _, id, err := ds[0].Alert(); err != nil || id != "x" {
		t.Errorf("it came back as %s, %v", id, err)
	}
	g = w.granted(ledger.Resume, b, claim("x", ds[0].StreamID))
	w.must(record(w, b, g, 1, "logged"))
	if h, _ := w.entry("x"); h.State != ledger.Done {
		t.Errorf("in the end: %+v", h)
	}
	w.wantEvents("x", "run record park late wake resume record")
	report, err := w.reader().Audit(w.ctx, ledger.AuditConfig{})
	if err != nil || len(report.Findings) != 0 {
		t.Errorf("audit: %+v, %v", report, err)
	}
}

// One that waits for a person is never due, and only a token parks.
func TestParkForAPerson(t *testing.T) {
	w := newWorld(t)
	a, b := w.replica("a"), w.replica("b")
	stale := w.take(a, "a", "x")
	g := w.granted(ledger.Resume, b, claim("x", stale.StreamID), "a")
	w.wantLost(a.Park(w.ctx, stale, nil, time.Time{}, "approval", false))
	w.must(b.Park(w.ctx, g, []byte("{}"), time.Time{}, "approval", false))
	if n, err := a.Wake(w.ctx, 10); n != 0 || err != nil {
		t.Errorf("woken %d, %v", n, err)
	}
}
