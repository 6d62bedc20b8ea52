package stream_test

import (
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"riposte/stream"
	"riposte/test/redistest"
)

// A replica that finds nothing to do is seen in XINFO CONSUMERS, and saying so takes
// nothing from the stream.
func TestAlive(t *testing.T) {
	t.Parallel()
	rdb := redistest.Start(t).Client()
	ctx, key := t.Context(), stream.Host("h1").AlertsKey()
	c := stream.NewConsumer(rdb, "h1", "containment", "h1-7-ab")
	if err := c.Ensure(ctx); err != nil {
		t.Fatal(err)
	}
	idle := func() time.Duration {
		infos, err := rdb.XInfoConsumers(ctx, key, "containment").Result()
		if err != nil || len(infos) != 1 || infos[0].Name != "h1-7-ab" || infos[0].Pending != 0 {
			t.Fatalf("consumers are %+v, %v", infos, err)
		}
		return infos[0].Idle
	}
	alive := func() {
		if err := c.Alive(ctx, "h1", time.UnixMilli(1234)); err != nil {
			t.Fatal(err)
		}
	}
	alive()
	eventually(t, "the consumer has been idle for a while", func() bool { return idle() > 50*time.Millisecond })
	before := idle()
	alive()
	if after := idle(); after >= before {
		t.Errorf("idle for %v before the sign of life and %v after it", before, after)
	}
	if err := rdb.XAdd(ctx, &redis.XAddArgs{Stream: key, Values: []any{"alert", "{}"}}).Err(); err != nil {
		t.Fatal(err)
	}
	alive()
	groups, err := rdb.XInfoGroups(ctx, key).Result()
	if err != nil || groups[0].Lag != 1 || groups[0].Pending != 0 {
		t.Errorf("groups are %+v, %v; want the entry unread", groups, err)
	}
	hosts, err := stream.Hosts(ctx, rdb)
	if err != nil || len(hosts) != 1 || !hosts[0].LastSeen.Equal(time.UnixMilli(1234)) {
		t.Errorf("hosts are %+v, %v", hosts, err)
	}
}
