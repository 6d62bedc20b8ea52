package ledger_test

import (
	"crypto/sha1"
	"encoding/hex"
	"testing"

	"github.com/redis/go-redis/v9"

	"riposte/ledger"
)

// After a failover to a master with a slower clock, an ID that the deposed one gave to one
// alert may stand for another. Whoever was delivered the first acks nothing of the second.
func TestDeliveryOfAnotherHistory(t *testing.T) {
	sum := func(raw string) string {
		s := sha1.Sum([]byte(raw))
		return hex.EncodeToString(s[:])
	}
	addAs := func(w *world, entry, id string) {
		w.Helper()
		w.must(w.rdb.XAdd(w.ctx, &redis.XAddArgs{Stream: w.host.AlertsKey(), ID: entry, Values: []any{"alert", alertJSON(id, 4711)}}).Err())
	}
	delivered := func(w *world, entry, id string) ledger.Claim {
		c := claim(id, entry)
		c.SHA1 = sum(alertJSON(id, 4711))
		return c
	}
	for name, late := range map[string]bool{"the ID is taken": false, "the ID will be taken": true} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			a := w.replica("a")
			if !late {
				addAs(w, "1000-0", "b")
				w.read("dead")
			}
			g := w.granted(ledger.Run, a, delivered(w, "1000-0", "a"))
			if late {
				addAs(w, "1000-0", "b")
				w.read("dead")
			}
			w.must(record(w, a, g, 0, "logged"))
			w.must(record(w, a, g, 1, "logged"))
			if left := w.pending(); left["1000-0"] != "dead" {
				t.Errorf("pending %v: another alert's delivery was acked", left)
			}
			// Nor by a copy that meets the settled entry.
			if v := w.begin(a, delivered(w, "1000-0", "a")).Verdict; v != ledger.Settled || len(w.pending()) != 1 {
				t.Errorf("%s, pending %v", v, w.pending())
			}
			g = w.granted(ledger.Run, a, delivered(w, "1000-0", "b"))
			w.must(a.Bury(w.ctx, g, letter("raw", "why")))
			if left := w.pending(); len(left) != 0 {
				t.Errorf("its own delivery is still pending: %v", left)
			}
		})
	}
	// Of a field that was given twice, go-redis delivers the last.
	t.Run("the field twice", func(t *testing.T) {
		w := newWorld(t)
		a := w.replica("a")
		entry := w.add("alert", "{}", "alert", alertJSON("a", 4711))
		w.read("a")
		g := w.granted(ledger.Run, a, delivered(w, entry, "a"))
		w.must(record(w, a, g, 0, "logged"))
		w.must(record(w, a, g, 1, "logged"))
		if left := w.pending(); len(left) != 0 {
			t.Errorf("still pending: %v", left)
		}
	})
	t.Run("deleted", func(t *testing.T) {
		w := newWorld(t)
		a := w.replica("a")
		addAs(w, "1000-0", "a")
		w.read("a")
		w.must(w.rdb.XDel(w.ctx, w.host.AlertsKey(), "1000-0").Err())
		g := w.granted(ledger.Run, a, delivered(w, "1000-0", "a"))
		w.must(record(w, a, g, 0, "logged"))
		w.must(record(w, a, g, 1, "logged"))
		if left := w.pending(); len(left) != 0 {
			t.Errorf("still pending: %v", left)
		}
	})
}
