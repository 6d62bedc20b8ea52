package ledger_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"riposte/ledger"
)

// Replicas that find different gates do not enforce together, unless all were told to.
func TestGatesRefuseEachOther(t *testing.T) {
	w := newWorld(t)
	replica := func(name, gate string) *ledger.Ledger { return w.custom(ledger.Config{Owner: name, Gate: gate}) }
	a, same, other := replica("a", "g1"), replica("b", "g1"), replica("c", "g2")
	refused := func(err error, by string) {
		t.Helper()
		var clash *ledger.OtherGateError
		if !errors.As(err, &clash) || clash.Replica != by {
			t.Errorf("got %v, want a refusal because of %s", err, by)
		}
	}
	w.must(a.Register(w.ctx, time.Minute, false))
	w.must(same.Register(w.ctx, time.Minute, false))
	w.must(same.Unregister(w.ctx))
	refused(other.Register(w.ctx, time.Minute, false), "a")
	refused(other.Register(w.ctx, time.Minute, true), "a") // a has not agreed
	w.must(a.Register(w.ctx, time.Minute, false))          // and goes on

	w.must(a.Register(w.ctx, time.Minute, true))
	refused(other.Register(w.ctx, time.Minute, false), "a")
	w.must(other.Register(w.ctx, time.Minute, true))
	refused(same.Register(w.ctx, time.Minute, false), "c")
	fields := w.rdb.HGetAll(w.ctx, w.host.ControlKey()).Val()
	if v := fields["gate:c"]; !strings.HasPrefix(v, "g2 ") || !strings.HasSuffix(v, " unfenced containment") {
		t.Errorf("registered as %q", v)
	}

	w.must(a.Unregister(w.ctx))
	w.must(other.Unregister(w.ctx))
	w.must(same.Register(w.ctx, time.Minute, false))
	// One of a clock that ran an hour ahead, before a failover, binds nobody either.
	w.must(w.rdb.HSet(w.ctx, w.host.ControlKey(), "gate:b", fmt.Sprintf("g1 %d fenced containment", time.Now().Add(time.Hour).UnixMicro())).Err())
	w.must(other.Register(w.ctx, time.Minute, false))
	w.must(other.Unregister(w.ctx))
	// A registration that has run out binds nobody, and is cleared away.
	w.must(w.rdb.HSet(w.ctx, w.host.ControlKey(), "gate:b", "g1 1 fenced containment", "pause", "yes").Err())
	w.must(other.Register(w.ctx, time.Minute, false))
	if fields := w.rdb.HGetAll(w.ctx, w.host.ControlKey()).Val(); len(fields) != 2 || fields["pause"] != "yes" {
		t.Errorf("left in the hash: %v", fields)
	}
}
