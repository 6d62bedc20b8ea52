package ledger_test

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"riposte/ledger"
)

func TestBeginRunBusyResume(t *testing.T) {
	w := newWorld(t)
	a, b := w.replica("a", 100*time.Millisecond), w.custom(ledger.Config{Owner: "b", Lease: time.Minute, Gate: "gate1"})
	entry := w.deliver("a", "x")
	before, err := w.rdb.Time(w.ctx).Result()
	w.must(err)
	g := w.granted(ledger.Run, a, claim("x", entry))
	if at := time.UnixMicro(int64(g.Token.Epoch)); at.Before(before) || at.Sub(before) > 10*time.Second || g.Prior != "" {
		t.Errorf("epoch %d is not the server's time %v, or prior %q is made up", g.Token.Epoch, before, g.Prior)
	}
	if answer := w.begin(b, claim("x", entry)); answer.Verdict != ledger.Busy || answer.Holder != "a" || answer.Left <= 0 || answer.Left > 100*time.Millisecond {
		t.Errorf("while a holds it, b is told %+v", answer)
	}
	if answer := w.begin(a, claim("x", entry)); answer.Verdict != ledger.Busy {
		t.Errorf("a grant belongs to its nonce, but its holder is told %+v with another", answer)
	}

	other := claim("x", entry)
	other.Body.Steps = other.Body.Steps[:1]
	var after *ledger.Grant
	w.eventually("b is granted x when a's lease has run out", func() bool {
		other.Nonce = ledger.NewNonce()
		answer := w.begin(b, other)
		after = answer.Grant
		return answer.Verdict == ledger.Resume
	})
	if after.Token.Epoch <= g.Token.Epoch || after.Prior != "gate1" {
		t.Errorf("b holds epoch %d after %d, prior gate %q", after.Token.Epoch, g.Token.Epoch, after.Prior)
	}
	if len(after.Body.Steps) != 2 {
		t.Errorf("the successor runs its own plan: %+v", after.Body)
	}
	if h, _ := w.entry("x"); h.Deaths != 0 || h.Owner != "b" {
		t.Errorf("a lease that ran out counts as a death: %+v", h)
	}
	rows, err := w.rdb.XPendingExt(w.ctx, &redis.XPendingExtArgs{Stream: w.host.AlertsKey(), Group: "containment", Start: "-", End: "+", Count: 9}).Result()
	w.must(err)
	if len(rows) != 1 || rows[0].Consumer != "b" || rows[0].RetryCount != 1 {
		t.Errorf("the pending list does not show the holder, or counts the grant as a delivery: %+v", rows)
	}
	w.wantEvents("x", "run resume")
}

func TestResumeByProofOfDeath(t *testing.T) {
	w := newWorld(t)
	a, b := w.replica("replica-1"), w.replica("b")
	g := w.take(a, "replica-1", "x")
	for _, names := range [][]string{nil, {"replica"}, {"1"}, {"b", "replica-11"}} {
		if answer := w.begin(b, claim("x", g.StreamID), names...); answer.Verdict != ledger.Busy {
			t.Errorf("%q dead: %+v", names, answer)
		}
	}
	after := w.granted(ledger.Resume, b, claim("x", g.StreamID), "other", "replica-1", "third")
	if h, _ := w.entry("x"); h.Deaths != 1 || after.Token.Epoch <= g.Token.Epoch {
		t.Errorf("after a proven death: %+v, epoch %d after %d", h, after.Token.Epoch, g.Token.Epoch)
	}
}

func TestBeginAgainIsTheSameGrant(t *testing.T) {
	w := newWorld(t)
	a := w.replica("a")
	c := claim("x", w.deliver("a", "x"))
	first := w.granted(ledger.Run, a, c)
	was, _ := w.entry("x")
	again := w.granted(ledger.Resume, a, c)
	is, _ := w.entry("x")
	if again.Token != first.Token || again.Prior != "gate1" {
		t.Errorf("first %+v, again %+v", first, again)
	}
	if !is.Lease.After(was.Lease) {
		t.Errorf("the caller counts the lease from the second request, the server from the first: %v, %v", was.Lease, is.Lease)
	}
	was.Lease, is.Lease = time.Time{}, time.Time{}
	if is != was {
		t.Errorf("the entry changed from %+v to %+v", was, is)
	}
	w.wantEvents("x", "run")
	w.must(record(w, a, again, 0, "logged"))
	w.must(record(w, a, again, 1, "logged"))
	if answer := w.begin(a, c); answer.Verdict != ledger.Settled {
		t.Errorf("after it is done: %+v", answer)
	}
}

// A step that may run once at most must not run where a holder at another gate, whose
// receipts cannot be seen here, may have begun it.
func TestBeginTellsOfOtherGates(t *testing.T) {
	w := newWorld(t)
	at := func(name, gate string) *ledger.Ledger {
		return w.custom(ledger.Config{Owner: name, Lease: time.Minute, Gate: gate})
	}
	entry := w.deliver("a", "x")
	if g := w.granted(ledger.Run, at("a", "X"), claim("x", entry)); g.Prior != "" {
		t.Errorf("prior gate %q", g.Prior)
	}
	b := claim("x", entry)
	if g := w.granted(ledger.Resume, at("b", "Y"), b, "a"); g.Prior != "X" {
		t.Errorf("b: prior gate %q", g.Prior)
	}
	if g := w.granted(ledger.Resume, at("b", "Y"), b, "a"); g.Prior == "Y" || g.Prior == "" {
		t.Errorf("b, asking again after its reply was lost, is told that all were at its own gate: %q", g.Prior)
	}
	if g := w.granted(ledger.Resume, at("c", "Y"), claim("x", entry), "b"); g.Prior == "Y" || g.Prior == "" {
		t.Errorf("c is told that all before it were at its own gate: %q", g.Prior)
	}
}

// After a failover to a slower clock a lease would stand for as long as the clocks differ.
func TestLeaseOfAFasterClock(t *testing.T) {
	w := newWorld(t)
	a, b := w.replica("a", time.Second), w.replica("b", time.Second)
	g := w.take(a, "a", "x")
	h, body := w.entry("x")
	ahead := time.Now().Add(time.Hour).UnixMicro()
	w.put("x", fmt.Sprintf("held %d %d a %s 0 0 0 %s %s %s", h.Token.Epoch, ahead, h.Token.Nonce, h.Digest, h.StreamID, h.Gate), body)
	if answer := w.begin(b, claim("x", g.StreamID)); answer.Verdict != ledger.Busy || answer.Left > 10*time.Second {
		t.Errorf("%s for %v", answer.Verdict, answer.Left)
	}
	if h, _ := w.entry("x"); h.Token != g.Token || h.Owner != "a" || time.Until(h.Lease) > 11*time.Second {
		t.Errorf("the holder's entry: %+v", h)
	}
	w.must(record(w, a, g, 0, "logged")) // it still holds it
}

func TestBeginConflict(t *testing.T) {
	w := newWorld(t)
	a := w.replica("a")
	g := w.take(a, "a", "x")
	was, _ := w.entry("x")
	c := claim("x", w.deliver("a", "x"))
	c.Digest = digest(alertJSON("x", 4712))
	if answer := w.begin(a, c, "a"); answer.Verdict != ledger.Conflict || answer.Grant != nil {
		t.Errorf("another alert under the ID of one that is held: %+v", answer)
	}
	w.must(record(w, a, g, 0, "logged"))
	w.must(record(w, a, g, 1, "logged"))
	if answer := w.begin(a, c); answer.Verdict != ledger.Conflict {
		t.Errorf("another alert under the ID of one that is done: %+v", answer)
	}
	if _, there := w.pending()[c.StreamID]; !there {
		t.Error("it was acked")
	}
	if is, _ := w.entry("x"); is.Token != was.Token || is.Duplicates != 0 {
		t.Errorf("it changed the entry of the first: %+v", is)
	}
	c.ID, c.Nonce = c.ID.Conflicting(c.Digest), ledger.NewNonce()
	w.granted(ledger.Run, a, c)
}

func TestBeginSettledCountsAndAcks(t *testing.T) {
	w := newWorld(t)
	a := w.replica("a")
	for _, end := range []string{"done", "dead"} {
		if end == "done" {
			w.settle(a, "a", end)
		} else {
			w.bury(a, "a", end)
		}
		ttl, err := w.rdb.PTTL(w.ctx, w.key(end)).Result()
		w.must(err)
		c := claim(end, w.deliver("a", end))
		for range 2 { // once more: its reply was lost
			if answer := w.begin(a, c); answer.Verdict != ledger.Settled || answer.Grant != nil {
				t.Errorf("%s: %+v", end, answer)
			}
		}
		if h, b := w.entry(end); h.Duplicates != 1 || string(h.State) != end || len(b.Steps) != 2 {
			t.Errorf("%s: %+v", end, h)
		}
		if now, err := w.rdb.PTTL(w.ctx, w.key(end)).Result(); err != nil || now > ttl || now <= 0 {
			t.Errorf("%s: time to live %v, was %v", end, now, ttl)
		}
	}
	if left := w.pending(); len(left) != 0 {
		t.Errorf("pending: %v", left)
	}
	w.wantEvents("done", "run record record")
}

func TestBeginPoison(t *testing.T) {
	w := newWorld(t)
	var l *ledger.Ledger
	at := func(i int) *ledger.Ledger {
		l = w.custom(ledger.Config{Owner: fmt.Sprint("r", i), Lease: time.Minute, DeathsToBury: 3})
		return l
	}
	entry := w.deliver("r0", "x")
	w.granted(ledger.Run, at(0), claim("x", entry))
	w.granted(ledger.Resume, at(1), claim("x", entry), "r0")
	w.granted(ledger.Resume, at(2), claim("x", entry), "r1")
	c := claim("x", entry)
	g := w.granted(ledger.Poison, at(3), c, "r2")
	if h, _ := w.entry("x"); h.State != ledger.Held || h.Deaths != 3 || len(w.pending()) != 1 {
		t.Errorf("poison is to be buried under a grant, not by Begin: %+v", h)
	}
	if again := w.granted(ledger.Poison, l, c, "r2"); again.Token != g.Token {
		t.Errorf("asked again: %+v", again)
	}
	w.must(l.Bury(w.ctx, g, letter(alertJSON("x", 4711), "poison")))
	w.wantEvents("x", "run resume resume poison bury")

	// Deliveries that never reached a Begin count as well.
	c = claim("y", w.deliver("r3", "y"))
	c.Deliveries = 2
	g = w.granted(ledger.Run, l, c)
	w.must(l.Release(w.ctx, g, "test"))
	c = claim("z", w.deliver("r3", "z"))
	c.Deliveries = 3
	w.granted(ledger.Poison, l, c)
}

func TestBeginFloor(t *testing.T) {
	w := newWorld(t)
	a, b := w.replica("a"), w.replica("b")
	floor := uint64(time.Now().Add(time.Hour).UnixMicro())
	c := claim("x", w.deliver("a", "x"))
	c.Floor = floor
	if g := w.granted(ledger.Run, a, c); g.Token.Epoch != floor+1 {
		t.Errorf("epoch %d, floor %d", g.Token.Epoch, floor)
	}
	// An epoch ahead of the clock still grows.
	if g := w.granted(ledger.Resume, b, claim("x", c.StreamID), "a"); g.Token.Epoch != floor+2 {
		t.Errorf("epoch %d, want %d", g.Token.Epoch, floor+2)
	}
	c = claim("x", c.StreamID)
	c.Floor = floor + 100
	if g := w.granted(ledger.Resume, a, c, "b"); g.Token.Epoch != floor+101 {
		t.Errorf("epoch %d, want %d", g.Token.Epoch, floor+101)
	}
}

func TestBeginBatch(t *testing.T) {
	w := newWorld(t)
	a, b := w.replica("a"), w.replica("b")
	w.settle(a, "a", "done")
	held := w.take(a, "a", "held")
	c := []ledger.Claim{claim("new", w.deliver("b", "new")), claim("done", w.deliver("b", "done")), claim("held", held.StreamID)}
	answers, err := b.Begin(w.ctx, c, nil)
	w.must(err)
	for i, want := range []ledger.Verdict{ledger.Run, ledger.Settled, ledger.Busy} {
		if answers[i].Verdict != want {
			t.Errorf("%s: %+v, want %s", c[i].ID, answers[i], want)
		}
	}
	if answers, err := b.Begin(w.ctx, []ledger.Claim{claim("y", "1-1"), claim("z", "1-2"), claim("y", "1-3")}, nil); err == nil || !strings.Contains(err.Error(), "twice") {
		t.Errorf("one alert asked for twice: %+v, %v", answers, err)
	}
	if n := w.rdb.Exists(w.ctx, w.key("y"), w.key("z")).Val(); n != 0 {
		t.Errorf("%d entries were granted all the same", n)
	}
}

// One unreadable entry fails the whole call and changes nothing.
func TestBeginUnreadableEntry(t *testing.T) {
	w := newWorld(t)
	a := w.replica("a")
	w.must(w.rdb.Set(w.ctx, w.key("bad"), "rubbish", 0).Err())
	_, err := a.Begin(w.ctx, []ledger.Claim{claim("good", w.deliver("a", "good")), claim("bad", w.deliver("a", "bad"))}, nil)
	if err == nil || !strings.Contains(err.Error(), w.key("bad")) {
		t.Errorf("error %v", err)
	}
	if n := w.rdb.Exists(w.ctx, w.key("good")).Val(); n != 0 {
		t.Error("half of the batch was granted")
	}
}

func TestBeginConcurrently(t *testing.T) {
	w := newWorld(t)
	entry := w.deliver("r0", "x")
	for round := range 20 {
		id := fmt.Sprint("x", round)
		var mu sync.Mutex
		verdicts := map[ledger.Verdict]int{}
		var all sync.WaitGroup
		for i := range 8 {
			l := w.replica(fmt.Sprint("r", i))
			all.Go(func() {
				answers, err := l.Begin(w.ctx, []ledger.Claim{claim(id, entry)}, nil)
				mu.Lock()
				defer mu.Unlock()
				if err != nil {
					t.Error(err)
					return
				}
				verdicts[answers[0].Verdict]++
			})
		}
		all.Wait()
		if verdicts[ledger.Run] != 1 || verdicts[ledger.Busy] != 7 {
			t.Fatalf("8 replicas at once: %v", verdicts)
		}
	}
}

// An entry deleted from the stream stays pending until it is buried: else, if its holder
// dies before that, nobody would find it.
func TestBeginKeepsDeletedEntryPending(t *testing.T) {
	w := newWorld(t)
	a, b := w.replica("a"), w.replica("b")
	g := w.take(a, "a", "x")
	w.must(w.rdb.XDel(w.ctx, w.host.AlertsKey(), g.StreamID).Err())
	g = w.granted(ledger.Resume, b, claim("x", g.StreamID), "a")
	if _, there := w.pending()[g.StreamID]; !there {
		t.Fatal("it is not pending any more")
	}
	w.must(b.Bury(w.ctx, g, letter("", "deleted")))
	if left := w.pending(); len(left) != 0 {
		t.Errorf("pending: %v", left)
	}
}
