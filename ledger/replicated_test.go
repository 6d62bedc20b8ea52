package ledger_test

import (
	"strings"
	"testing"
	"time"

	"riposte/ledger"
	"riposte/test/redistest"
)

func TestReplicated(t *testing.T) {
	w := newWorld(t)
	a, b := w.replica("a"), w.replica("b")
	stale := w.take(a, "a", "x")
	g := w.granted(ledger.Resume, b, claim("x", stale.StreamID), "a")
	one := ledger.Replication{Replicas: 1, Patience: 50 * time.Millisecond}

	w.must(b.Replicated(w.ctx, g, ledger.Replication{}))
	if err := b.Replicated(w.ctx, g, one); err == nil || !strings.HasPrefix(err.Error(), "0 of 1 replicas") {
		t.Errorf("without any replica: %v", err)
	}
	host, port, _ := strings.Cut(w.srv.Addr, ":")
	follower := redistest.Start(t, "--replicaof", host, port)
	rdb := follower.Client()
	w.eventually("it is replicated", func() bool { return b.Replicated(w.ctx, g, one) == nil })
	if there, err := rdb.Exists(w.ctx, w.key("x")).Result(); err != nil || there != 1 {
		t.Errorf("on the replica: %d, %v", there, err)
	}
	w.wantLost(a.Replicated(w.ctx, stale, one))
	follower.Kill()
	if err := b.Replicated(w.ctx, g, one); err == nil {
		t.Error("a dead replica has it")
	}
}

// Debian's Redis has no WAITAOF, and whoever asks for it is told so at the start.
func TestCheckReplication(t *testing.T) {
	w := newWorld(t)
	w.must(ledger.CheckReplication(w.ctx, w.rdb, ledger.Replication{Replicas: 1}))
	a := w.replica("a")
	g := w.take(a, "a", "x")
	synced := ledger.Replication{Synced: true, Patience: time.Second}
	check, ask := ledger.CheckReplication(w.ctx, w.rdb, synced), a.Replicated(w.ctx, g, synced)
	if w.rdb.Do(w.ctx, "WAITAOF", 1, 0, 1).Err() == nil { // a later Redis, with an append-only file
		w.must(check)
		w.must(ask)
		return
	}
	if check == nil || !strings.Contains(check.Error(), "7.2") || ask == nil {
		t.Errorf("%v, %v", check, ask)
	}
}
