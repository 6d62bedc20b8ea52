package ledger_test

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"riposte/ledger"
)

// Records that come while one is on its way go together, and each gets its own answer.
func TestRecordsGoTogether(t *testing.T) {
	w := newWorld(t)
	rdb := w.srv.Client()
	away, back, calls := make(chan struct{}), make(chan struct{}), 0
	l, err := ledger.New(rdb, ledger.Config{Host: w.host, Group: w.group, Owner: "a", Gate: "gate1", Lease: time.Minute})
	w.must(err)
	w.must(l.Load(w.ctx))

	first := w.take(l, "a", "first")
	stale, absent, broken := w.take(l, "a", "stale"), w.take(l, "a", "absent"), w.take(l, "a", "broken")
	w.granted(ledger.Resume, w.replica("b"), claim("stale", stale.StreamID), "a")
	w.must(w.rdb.Del(w.ctx, w.key("absent"), w.key("broken")).Err())
	w.must(w.rdb.LPush(w.ctx, w.key("broken"), "no entry").Err())
	var good []*ledger.Grant
	for i := range 5 {
		good = append(good, w.take(l, "a", fmt.Sprint("good", i)))
	}
	twice := *good[0] // sent again by a caller that has lost its patience
	rdb.AddHook(&between{command: "evalsha", do: func() { close(away); <-back }})
	rdb.AddHook(counter{"evalsha", &calls})

	var wg sync.WaitGroup
	errs := make([]error, 5+len(good))
	do := func(i int, g *ledger.Grant) {
		wg.Go(func() { errs[i] = record(w, l, g, 0, "logged") })
	}
	do(0, first)
	<-away
	for i, g := range append([]*ledger.Grant{stale, absent, broken, &twice}, good...) {
		g.Body.Steps = plan().Steps
		do(1+i, g)
	}
	w.eventually("all wait", func() bool { return l.Waiting() == len(errs)-1 })
	close(back)
	wg.Wait()

	if calls != 3 { // the first, the others, and the one whose alert was among them
		t.Errorf("%d calls", calls)
	}
	w.wantLost(errs[1])
	w.wantLost(errs[2])
	if errs[3] == nil || !strings.Contains(errs[3].Error(), "WRONGTYPE") {
		t.Errorf("of what is no entry: %v", errs[3])
	}
	for i, err := range errs {
		if (i == 0 || i > 3) && err != nil {
			t.Errorf("record %d: %v", i, err)
		}
	}
	for i, g := range good {
		w.wantEvents(string(g.ID), "run record")
		if h, b := w.entry(string(g.ID)); h.Seq != 1 || b.Steps[0].Outcome != "logged" {
			t.Errorf("good %d: %+v, %+v", i, h, b.Steps)
		}
	}
}

// A record waits for those that are about to come, and for nobody where it is alone.
func TestRecordsWaitForSiblings(t *testing.T) {
	w := newWorld(t)
	rdb := w.srv.Client()
	atWork, calls := 3, 0
	l, err := ledger.New(rdb, ledger.Config{
		Host: w.host, Group: w.group, Owner: "a", Gate: "gate1", Lease: time.Minute, Siblings: func() int { return atWork },
	})
	w.must(err)
	w.must(l.Load(w.ctx))
	l.WaitForSiblings(time.Hour)
	grants := []*ledger.Grant{w.take(l, "a", "x"), w.take(l, "a", "y"), w.take(l, "a", "z")}
	rdb.AddHook(counter{"evalsha", &calls})
	var wg sync.WaitGroup
	errs := make([]error, len(grants))
	for i, g := range grants {
		wg.Go(func() { errs[i] = record(w, l, g, 0, "logged") })
	}
	wg.Wait()
	if calls != 1 || errs[0] != nil || errs[1] != nil || errs[2] != nil {
		t.Errorf("%d calls, %v", calls, errs)
	}
	atWork = 1
	w.must(record(w, l, grants[0], 1, "logged"))
	atWork = 2 // the other one does not come
	l.WaitForSiblings(time.Microsecond)
	w.must(record(w, l, grants[1], 1, "logged"))
	if calls != 3 {
		t.Errorf("%d calls, want 3", calls)
	}
}

// A batch that is not answered is each caller's to send again.
func TestBatchWithoutAnswer(t *testing.T) {
	w := newWorld(t)
	l := w.replica("a")
	grants := []*ledger.Grant{w.take(l, "a", "x"), w.take(l, "a", "y"), w.take(l, "a", "z")}
	w.srv.Pause()
	var wg sync.WaitGroup
	errs := make([]error, len(grants))
	for i, g := range grants {
		wg.Go(func() { errs[i] = record(w, l, g, 0, "logged") })
	}
	wg.Wait()
	w.srv.Resume()
	for i, g := range grants {
		if errs[i] == nil {
			t.Errorf("%s: a record without an answer", g.ID)
		}
		w.must(record(w, l, g, 0, "logged"))
		w.wantEvents(string(g.ID), "run record")
	}
}
