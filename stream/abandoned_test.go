package stream_test

import (
	"slices"
	"testing"
	"time"

	"riposte/stream"
)

// An abandoned group is one of which nobody has been seen. Only then, and only of what is old,
// something is read in its place.
func TestAbandoned(t *testing.T) {
	rdb, h, a, b := team(t)
	ctx := t.Context()
	ids := add(t, rdb, h, 4) // a minute ago
	look := func(after time.Duration, most int) stream.Estate {
		t.Helper()
		e, err := b.Abandoned(ctx, after, most)
		if err != nil {
			t.Fatal(err)
		}
		return e
	}
	has := func(e stream.Estate, want ...string) {
		t.Helper()
		if got := idsOf(e.Entries); !slices.Equal(got, want) {
			t.Errorf("left are %v, want %v", got, want)
		}
	}
	has(look(time.Hour, 10)) // nobody was ever seen, and nothing is old
	read(t, a, 2)
	has(look(30*time.Second, 10)) // a was just seen
	if infos, err := rdb.XInfoGroups(ctx, h.AlertsKey()).Result(); err != nil || infos[0].LastDeliveredID != ids[1] {
		t.Errorf("something was read in place of a living group: %v, %v", infos, err)
	}

	const after = 100 * time.Millisecond
	eventually(t, "a is silent", func() bool { return look(after, 1).Entries != nil })
	if e := look(after, 3); e.Silence < after || e.Silence > time.Minute || e.Entries[0].Times != 1 {
		t.Errorf("%+v", e)
	} else {
		has(e, ids[:3]...)
	}
	has(look(after, 3), ids[:3]...) // nobody has acked them
	if err := rdb.XDel(ctx, h.AlertsKey(), ids[0]).Err(); err != nil {
		t.Fatal(err)
	}
	e := look(after, 10)
	has(e, ids...)
	if e.Entries[0].Raw != nil || string(e.Entries[3].Raw) != `{"n":3}` {
		t.Errorf("%+v", e.Entries)
	}

	// It stays as a consumer while something is pending under its name, and no longer.
	names := func(want ...string) {
		t.Helper()
		if got, err := b.Consumers(ctx); err != nil || !slices.Equal(got, want) {
			t.Errorf("consumers %v, %v, want %v", got, err, want)
		}
	}
	names("h1-1-a", "h1-2-b")
	if err := rdb.XAck(ctx, h.AlertsKey(), "containment", ids[2:]...).Err(); err != nil {
		t.Fatal(err)
	}
	has(look(after, 10), ids[:2]...)
	names("h1-1-a")
	if e := look(after, 10); e.Silence < after {
		t.Errorf("its own sign of life counts: %+v", e)
	}
	other := b.For("nobody", "h1-2-b")
	if e, err := other.Abandoned(ctx, after, 10); err != nil || e.Entries != nil {
		t.Errorf("of a group that does not exist: %v, %v", e, err)
	}
	if groups, err := other.Groups(ctx); err != nil || !slices.Equal(groups, []stream.Group{"containment"}) {
		t.Errorf("groups %v, %v", groups, err)
	}
	if err := stream.NewConsumer(rdb, h, "young", "h1-3-c").Ensure(ctx); err != nil {
		t.Fatal(err)
	}
	if e, err := b.For("young", "h1-2-b").Abandoned(ctx, 50*time.Second, 1); err != nil || e.Silence >= 0 || len(e.Entries) != 1 || e.Entries[0].StreamID != ids[1] {
		t.Errorf("of a group without consumers: %+v, %v", e, err)
	}
}
