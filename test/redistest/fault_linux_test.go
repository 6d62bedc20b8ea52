package redistest_test

import (
	"context"
	"errors"
	"os"
	"testing"
	"time"

	"riposte/test/redistest"
)

func TestPause(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t)
	rdb := s.Client()
	s.Pause()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := rdb.Ping(ctx).Err(); !errors.Is(err, context.DeadlineExceeded) && !os.IsTimeout(err) {
		t.Errorf("a paused server answers %v", err)
	}
	s.Resume()
	if err := rdb.Ping(t.Context()).Err(); err != nil {
		t.Error(err)
	}
}

func TestCutPower(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t, "--appendfsync", "everysec")
	rdb := s.Client()
	set := func(k string) {
		t.Helper()
		if err := rdb.Set(t.Context(), k, "v", 0).Err(); err != nil {
			t.Fatal(err)
		}
	}
	set("old")
	mark := s.Written()
	set("new")
	for _, step := range []struct {
		end  func()
		want int64
	}{{s.Kill, 2}, {func() { s.CutPower(mark + 5) }, 1}} { // in the middle of a command
		step.end()
		s.Restart()
		if n := s.Client().Exists(t.Context(), "old", "new").Val(); n != step.want {
			t.Errorf("%d keys left, want %d", n, step.want)
		}
	}
}

func TestFailover(t *testing.T) {
	t.Parallel()
	master := redistest.Start(t)
	if err := master.Client().Set(t.Context(), "old", "v", 0).Err(); err != nil {
		t.Fatal(err)
	}
	replica := master.Replica()
	before := replica.Client().InfoMap(t.Context(), "replication").Val()["Replication"]["master_replid"]
	replica.CutOff()
	if err := master.Client().Set(t.Context(), "new", "v", 0).Err(); err != nil {
		t.Fatal(err)
	}
	replica.Promote()
	rdb := replica.Client()
	if old, lost := rdb.Exists(t.Context(), "old").Val(), rdb.Exists(t.Context(), "new").Val(); old != 1 || lost != 0 {
		t.Errorf("the promoted replica has %d of what it was sent and %d of what it was not", old, lost)
	}
	if err := rdb.Set(t.Context(), "k", "v", 0).Err(); err != nil {
		t.Errorf("it takes no writes: %v", err)
	}
	if after := rdb.InfoMap(t.Context(), "replication").Val()["Replication"]["master_replid"]; after == before || after == "" {
		t.Errorf("its replication ID was %q and is %q", before, after)
	}
}
