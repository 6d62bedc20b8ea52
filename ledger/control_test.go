package ledger_test

import (
	"fmt"
	"regexp"
	"testing"
	"time"

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
