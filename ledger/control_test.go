package ledger_test

import (
	"fmt"
	"regexp"
	"slices"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"riposte/ledger"
	"riposte/stream"
)

// changes is how often this Redis was written to.
func (w *world) changes() string {
	w.Helper()
	info, err := w.rdb.Info(w.ctx, "persistence").Result()
	w.must(err)
	return regexp.MustCompile(`rdb_changes_since_last_save:\d+`).FindString(info)
}

// A question that changes nothing writes nothing: neither about a playbook that has warmed up,
// nor of a breaker that has tripped. Both may be asked for every alert there is.
func TestQuestionsWriteNothing(t *testing.T) {
	w := newWorld(t)
	l := w.replica("a")
	warm := func(id string) bool {
		yes, err := l.Warm(w.ctx, "p", "hash", 2, 0, stream.AlertID(id))
		w.must(err)
		return yes
	}
	b := ledger.Breaker{Name: "p", Most: 2, Within: time.Hour}
	reserve := func(id string) bool {
		granted, _, err := ledger.Reserve(w.ctx, w.rdb, b, []string{id})
		w.must(err)
		return granted[0]
	}
	for i, want := range []bool{true, true, false} {
		id := fmt.Sprint("x-", i)
		if warm(id) != want || reserve(id) != want {
			t.Errorf("alert %d", i)
		}
	}
	before := w.changes()
	if !warm("x-0") || warm("x-3") || !reserve("x-0") || reserve("x-3") {
		t.Error("the answers change")
	}
	if after := w.changes(); after != before || before == "" {
		t.Errorf("%s, then %s", before, after)
	}
}

// What still waits for a pause to end is not read again and again, is in nobody's way, and is
// let go of in the end: all of it, however much that is.
func TestFree(t *testing.T) {
	w := newWorld(t)
	l := w.replica("a")
	const many = 300
	var claims []ledger.Claim
	hold := func(id, why string) {
		c := claim(id, w.add("id", id, "alert", alertJSON(id, 4711)))
		c.Hold, c.Park = why, &ledger.Body{Parked: &ledger.Parked{Raw: []byte(alertJSON(id, 4711)), For: why}}
		claims = append(claims, c)
	}
	for i := range many {
		hold(fmt.Sprintf("x-%03d", i), "pause:playbook:p")
	}
	hold("y", "breaker:fleet:q")
	hold("z", "pause:fleet")
	w.read("a")
	answers, err := l.Begin(w.ctx, claims, nil)
	w.must(err)
	for i, a := range answers {
		if a.Verdict != ledger.ParkedNow {
			t.Fatalf("%s: %+v", claims[i].ID, a)
		}
	}
	w.must(w.rdb.ZAdd(w.ctx, w.host.WaitingKey(w.group), redis.Z{Score: stream.HeldBack, Member: "absent"}).Err())
	read := 0
	w.rdb.AddHook(counter{"get", &read})
	free := func(want int, holds ...string) {
		t.Helper()
		got, err := l.Free(w.ctx, func(why string) bool { return slices.Contains(holds, why) }, 128)
		if err != nil || got != want {
			t.Errorf("%v hold: freed %d, %v; want %d", holds, got, err, want)
		}
	}
	free(2, "pause:playbook:p")
	if read > 4 {
		t.Errorf("read %d of %d that wait", read, many)
	}
	for _, id := range []string{"y", "z"} {
		if h, _ := w.entry(id); h.State != ledger.Held {
			t.Errorf("%s is %s", id, h.State)
		}
	}
	if n, err := l.Wake(w.ctx, 10); n != 0 || err != nil {
		t.Errorf("woken %d, %v", n, err)
	}
	free(128)
	free(128)
	free(many - 2*128)
	free(0)
	if n := w.rdb.ZCard(w.ctx, w.host.WaitingKey(w.group)).Val(); n != 0 {
		t.Errorf("%d still wait", n)
	}
}

// A playbook of the same name that another kind of responder has does not begin a warm-up anew.
func TestWarmUpOfEachGroup(t *testing.T) {
	w := newWorld(t)
	one := w.replica("a")
	two := one.For("forensics", "b")
	for i, want := range []bool{true, false, false} {
		for hash, l := range map[string]*ledger.Ledger{"one": one, "two": two} {
			if warm, err := l.Warm(w.ctx, "p", hash, 1, 0, stream.AlertID(fmt.Sprint("x-", i))); err != nil || warm != want {
				t.Errorf("alert %d of %s: %v, %v", i, hash, warm, err)
			}
		}
	}
	if warm, err := one.Warm(w.ctx, "p", "changed", 1, 0, "x-0"); err != nil || !warm {
		t.Errorf("changed: %v, %v", warm, err)
	}
}
