package stream_test

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"riposte/stream"
	"riposte/test/redistest"
)

// team is a stream with a group and two consumers of it.
func team(t *testing.T) (rdb *redis.Client, h stream.Host, a, b *stream.Consumer) {
	t.Helper()
	rdb, h = redistest.Start(t).Client(), stream.Host("h1")
	a, b = stream.NewConsumer(rdb, h, "containment", "h1-1-a"), stream.NewConsumer(rdb, h, "containment", "h1-2-b")
	if err := a.Ensure(t.Context()); err != nil {
		t.Fatal(err)
	}
	return rdb, h, a, b
}

func add(t *testing.T, rdb *redis.Client, h stream.Host, n int) (ids []string) {
	t.Helper()
	minuteAgo := time.Now().Add(-time.Minute).UnixMilli()
	for i := range n {
		id, err := rdb.XAdd(t.Context(), &redis.XAddArgs{Stream: h.AlertsKey(), ID: fmt.Sprintf("%d-0", minuteAgo+int64(i)), Values: []any{"alert", fmt.Sprintf(`{"n":%d}`, i)}}).Result()
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, id)
	}
	return ids
}

func idsOf(ds []stream.Delivery) (ids []string) {
	for _, d := range ds {
		ids = append(ids, d.StreamID)
	}
	return ids
}

func read(t *testing.T, c *stream.Consumer, n int) []stream.Delivery {
	t.Helper()
	ds, err := c.Read(t.Context(), n)
	if err != nil {
		t.Fatal(err)
	}
	return ds
}

func TestGroupStartsAtZero(t *testing.T) {
	rdb, h := redistest.Start(t).Client(), stream.Host("h1")
	ids := add(t, rdb, h, 1)
	c := stream.NewConsumer(rdb, h, "containment", "h1-1-a")
	for range 2 { // the second finds the group there
		if err := c.Ensure(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if got := idsOf(read(t, c, 10)); !slices.Equal(got, ids) {
		t.Errorf("read %v, want %v: published before the group was there", got, ids)
	}
}

func TestGroupIsRecreated(t *testing.T) {
	rdb, h, a, _ := team(t)
	if err := rdb.FlushAll(t.Context()).Err(); err != nil {
		t.Fatal(err)
	}
	ids := add(t, rdb, h, 1)
	if _, err := a.Read(t.Context(), 1); err == nil {
		t.Error("reading from a lost group is no error")
	}
	if got := idsOf(read(t, a, 1)); !slices.Equal(got, ids) {
		t.Errorf("read %v after the group was lost, want %v", got, ids)
	}
}

func TestTakeOver(t *testing.T) {
	rdb, h, a, b := team(t)
	ids := add(t, rdb, h, 5)
	read(t, a, 5)
	if err := rdb.XDel(t.Context(), h.AlertsKey(), ids[1]).Err(); err != nil {
		t.Fatal(err)
	}
	ds, gone, err := b.TakeOver(t.Context(), "h1-1-a", stream.Takeover{Most: 10, Died: true, Suspect: 99, Remove: true})
	if err != nil || gone {
		t.Fatal(gone, err)
	}
	if got := idsOf(ds); !slices.Equal(got, ids) {
		t.Fatalf("took over %v, want %v", got, ids)
	}
	for i, d := range ds {
		if d.Times != 2 || (d.Raw == nil) != (i == 1) {
			t.Errorf("entry %d: delivered %d times, raw %q", i, d.Times, d.Raw)
		}
	}
	// The deleted entry stays visible, under the dead name, until it is buried.
	left, _, err := b.Idle(t.Context(), 0, "", 10)
	if err != nil || len(left) != 5 {
		t.Fatalf("%d pending, %v", len(left), err)
	}
	if _, gone, err = b.TakeOver(t.Context(), "h1-1-a", stream.Takeover{Most: 10, Died: true, Suspect: 99, Remove: true}); gone || err != nil {
		t.Error("a consumer was removed with an entry pending")
	}
	if err := rdb.XAck(t.Context(), h.AlertsKey(), "containment", ids[1]).Err(); err != nil {
		t.Fatal(err)
	}
	if _, gone, err = b.TakeOver(t.Context(), "h1-1-a", stream.Takeover{Most: 10, Died: true, Suspect: 99, Remove: false}); gone || err != nil {
		t.Error("a consumer was removed without being asked for")
	}
	if _, gone, err = b.TakeOver(t.Context(), "h1-1-a", stream.Takeover{Most: 10, Died: true, Suspect: 99, Remove: true}); !gone || err != nil {
		t.Error("a dead consumer without pending entries was not removed", err)
	}
	names, err := b.Consumers(t.Context())
	if err != nil || !slices.Equal(names, []string{"h1-2-b"}) {
		t.Errorf("consumers %v, %v", names, err)
	}
}

func TestIdleChangesNothing(t *testing.T) {
	rdb, h, a, b := team(t)
	ids := add(t, rdb, h, 5)
	read(t, a, 5)
	var got []string
	for after := ""; ; {
		ds, next, err := b.Idle(t.Context(), 0, after, 2)
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, idsOf(ds)...)
		if after = next; next == "" {
			break
		}
	}
	if !slices.Equal(got, ids) {
		t.Errorf("idle %v, want %v", got, ids)
	}
	own, _, err := a.Orphans(t.Context(), "", 10)
	if err != nil || len(own) != 5 || own[0].Times != 1 || string(own[0].Raw) != `{"n":0}` {
		t.Errorf("orphans %+v, %v", own, err)
	}
	if none, _, err := b.Orphans(t.Context(), "", 10); err != nil || len(none) != 0 {
		t.Errorf("another's entries are orphans: %v, %v", none, err)
	}
	if none, _, err := b.Idle(t.Context(), time.Hour, "", 10); err != nil || len(none) != 0 {
		t.Errorf("fresh entries are idle: %v, %v", none, err)
	}
}

// TestTrim drops only what every group has acked, however full the stream.
func TestTrim(t *testing.T) {
	rdb, h, a, _ := team(t)
	ctx := context.Background()
	// A stream is cut by whole nodes; small ones make every entry count.
	if err := rdb.ConfigSet(ctx, "stream-node-max-entries", "1").Err(); err != nil {
		t.Fatal(err)
	}
	ids := add(t, rdb, h, 10)
	trim := func(keep time.Duration, most int, first string) {
		t.Helper()
		if _, err := a.Trim(ctx, keep, most); err != nil {
			t.Fatal(err)
		}
		left, err := rdb.XRangeN(ctx, h.AlertsKey(), "-", "+", 1).Result()
		if err != nil || len(left) != 1 || left[0].ID != first {
			t.Errorf("first is %v, %v; want %s", left, err, first)
		}
	}
	ack := func(group string, ids ...string) {
		if err := rdb.XAck(ctx, h.AlertsKey(), group, ids...).Err(); err != nil {
			t.Fatal(err)
		}
	}
	trim(0, 0, ids[0]) // nothing is read
	read(t, a, 8)
	trim(0, 0, ids[0]) // nothing is acked
	ack("containment", ids[0], ids[1], ids[2], ids[4])
	trim(time.Hour, 100, ids[0]) // young, and not many
	trim(0, 100, ids[3])         // the oldest pending one bounds it
	other := stream.NewConsumer(rdb, h, "forensics", "h1-3-c")
	if err := other.Ensure(ctx); err != nil {
		t.Fatal(err)
	}
	ack("containment", ids[3:8]...)
	trim(time.Hour, 1, ids[3]) // the other group has read nothing
	if got := read(t, other, 3); len(got) != 3 {
		t.Fatal(got)
	}
	ack("forensics", ids[3], ids[4], ids[5])
	trim(time.Hour, 1, ids[5]) // many: age does not matter, the last delivered one stays
}

// Of several suspects one is taken at a time: the others, which stay where they are, do not
// count as delivered when it takes its next replica with it.
func TestTakeOverSuspects(t *testing.T) {
	rdb, h, a, b := team(t)
	ids := add(t, rdb, h, 3)
	read(t, a, 3)
	take := func(o stream.Takeover) (got []string) {
		t.Helper()
		ds, gone, err := b.TakeOver(t.Context(), "h1-1-a", o)
		if err != nil || gone {
			t.Fatal(gone, err)
		}
		for _, d := range ds {
			got = append(got, fmt.Sprintf("%s*%d", d.StreamID, d.Times))
		}
		return got
	}
	if got := take(stream.Takeover{Most: 1, Died: false, Suspect: 2, Suspects: 0}); !slices.Equal(got, []string{ids[0] + "*1"}) {
		t.Errorf("from one that stopped in good order: %v", got)
	}
	if got := take(stream.Takeover{Most: 9, Died: true, Suspect: 2, Suspects: 0}); got != nil {
		t.Errorf("suspects were taken: %v", got)
	}
	if got := take(stream.Takeover{Most: 9, Died: true, Suspect: 2, Suspects: 1}); !slices.Equal(got, []string{ids[1] + "*2"}) {
		t.Errorf("took %v, want the first of two suspects", got)
	}
	if got := take(stream.Takeover{Most: 9, Died: true, Suspect: 3, Suspects: 0}); !slices.Equal(got, []string{ids[2] + "*2"}) {
		t.Errorf("took %v, want the last one, which was not counted as delivered meanwhile", got)
	}
}

// Who has a pending entry is known, also where the entry itself was deleted.
func TestPendingNamesItsHolder(t *testing.T) {
	rdb, h, a, b := team(t)
	ids := add(t, rdb, h, 3)
	read(t, a, 2)
	read(t, b, 1)
	if err := rdb.XDel(t.Context(), h.AlertsKey(), ids[0]).Err(); err != nil {
		t.Fatal(err)
	}
	ds, _, err := b.Idle(t.Context(), 0, "", 10)
	if err != nil || len(ds) != 3 {
		t.Fatal(ds, err)
	}
	for i, want := range []string{"h1-1-a", "h1-1-a", "h1-2-b"} {
		if ds[i].Holder != want || (ds[i].Raw == nil) != (i == 0) {
			t.Errorf("entry %d: held by %q, raw %q; want %s", i, ds[i].Holder, ds[i].Raw, want)
		}
	}
}

// A full Redis refuses to make a group, and says so before it says that there is one. A replica
// that starts then has work all the same: what is closed at the gate is recorded, what is
// settled is trimmed.
func TestEnsureWhileRedisIsFull(t *testing.T) {
	t.Parallel()
	rdb, h, _, b := team(t)
	if err := rdb.ConfigSet(t.Context(), "maxmemory", "1").Err(); err != nil {
		t.Fatal(err)
	}
	if err := b.Ensure(t.Context()); err != nil {
		t.Errorf("the group is there: %v", err)
	}
	if err := stream.NewConsumer(rdb, h, "forensics", "h1-3-c").Ensure(t.Context()); err == nil {
		t.Error("a group that is not there was made in a full Redis")
	}
}
