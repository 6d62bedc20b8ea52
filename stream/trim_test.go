package stream_test

import (
	"fmt"
	"math"
	"slices"
	"testing"

	"github.com/redis/go-redis/v9"
	"pgregory.net/rapid"

	"riposte/stream"
	"riposte/test/redistest"
)

// reading is what a group must still find: indices of entries.
type reading struct {
	next    int // the first it has not read
	pending map[int]bool
}

// Whatever groups read, ack and leave behind, and whatever is deleted under them, trimming
// drops nothing that one of them has yet to read or to ack.
func TestTrimDropsNothingUnacked(t *testing.T) {
	t.Parallel()
	rdb := redistest.Start(t, "--stream-node-max-entries", "1").Client() // every entry counts: a stream is cut by whole nodes
	const host = stream.Host("h1")
	key := host.AlertsKey()
	dropped, rounds := int64(0), 0
	rapid.Check(t, func(rt *rapid.T) {
		ctx := t.Context()
		must := func(err error) {
			rt.Helper()
			if err != nil && err != redis.Nil {
				rt.Fatal(err)
			}
		}
		must(rdb.FlushAll(ctx).Err())
		// IDs as Redis gives them, and such as only a stranger would write.
		ms := rapid.SampledFrom([]uint64{1_700_000_000_000, 1<<53 - 2, math.MaxUint64 - 1000}).Draw(rt, "ms")
		seq := rapid.SampledFrom([]uint64{0, 1<<53 - 2}).Draw(rt, "seq")
		var ids []string
		gone := map[int]bool{} // deleted
		groups := map[string]*reading{}
		consumer := func(g string) *stream.Consumer { return stream.NewConsumer(rdb, host, stream.Group(g), "h1-1-a") }
		group := func(rt *rapid.T) string {
			names := make([]string, 0, len(groups))
			for g := range groups {
				names = append(names, g)
			}
			if len(names) == 0 {
				rt.Skip("no group")
			}
			slices.Sort(names)
			return rapid.SampledFrom(names).Draw(rt, "group")
		}
		add := func(rt *rapid.T) {
			for range rapid.IntRange(1, 5).Draw(rt, "entries") {
				if seq++; rapid.Bool().Draw(rt, "next ms") {
					ms++
					seq = 0
				}
				id := fmt.Sprintf("%d-%d", ms, seq)
				must(rdb.XAdd(ctx, &redis.XAddArgs{Stream: key, ID: id, Values: []any{"alert", "{}"}}).Err())
				ids = append(ids, id)
			}
		}
		create := func(g string) {
			must(consumer(g).Ensure(ctx))
			// It starts at 0, and gets what is left.
			left, err := rdb.XRangeN(ctx, key, "-", "+", 1).Result()
			must(err)
			next := len(ids)
			if len(left) > 0 {
				next = slices.Index(ids, left[0].ID)
			}
			groups[g] = &reading{next: next, pending: map[int]bool{}}
		}
		add(rt)
		create("containment")
		rt.Repeat(map[string]func(*rapid.T){
			"add": add,
			"create": func(rt *rapid.T) {
				g := rapid.SampledFrom([]string{"containment", "forensics", "notify"}).Draw(rt, "new group")
				if groups[g] != nil {
					rt.Skip("it is there")
				}
				create(g)
			},
			"destroy": func(rt *rapid.T) {
				g := group(rt)
				must(rdb.XGroupDestroy(ctx, key, g).Err())
				delete(groups, g)
			},
			"read": func(rt *rapid.T) {
				g := group(rt)
				got, err := rdb.XReadGroup(ctx, &redis.XReadGroupArgs{
					Group: g, Consumer: "h1-1-a", Streams: []string{key, ">"}, Count: rapid.Int64Range(1, 20).Draw(rt, "most"), Block: -1,
				}).Result()
				must(err)
				for _, s := range got {
					for _, m := range s.Messages {
						i := slices.Index(ids, m.ID)
						groups[g].pending[i], groups[g].next = true, i+1
					}
				}
			},
			"ack": func(rt *rapid.T) {
				g := group(rt)
				for i := range ids {
					if groups[g].pending[i] && rapid.IntRange(0, 19).Draw(rt, "ack") > 0 {
						must(rdb.XAck(ctx, key, g, ids[i]).Err())
						delete(groups[g].pending, i)
					}
				}
			},
			"delete": func(rt *rapid.T) {
				if len(ids) == 0 {
					rt.Skip("nothing to delete")
				}
				i := rapid.IntRange(0, len(ids)-1).Draw(rt, "entry")
				must(rdb.XDel(ctx, key, ids[i]).Err())
				gone[i] = true
			},
			"trim": func(rt *rapid.T) {
				n, err := consumer("containment").Trim(ctx, 0, rapid.SampledFrom([]int{0, 3, 1000}).Draw(rt, "most"))
				must(err)
				dropped, rounds = dropped+n, rounds+1
				all, err := rdb.XRange(ctx, key, "-", "+").Result()
				must(err)
				there := map[string]bool{}
				for _, m := range all {
					there[m.ID] = true
				}
				for i, id := range ids {
					for g, r := range groups {
						if (i >= r.next || r.pending[i]) && !gone[i] && !there[id] {
							rt.Fatalf("%s was dropped, and group %s has pending %v of it, and next to read %d of %v", id, g, r.pending[i], r.next, ids)
						}
					}
					if len(groups) == 0 && !gone[i] && !there[id] && n > 0 {
						rt.Fatalf("%s was dropped, and there is no group", id)
					}
				}
			},
		})
	})
	if dropped < 20 {
		t.Errorf("only %d entries were dropped in %d rounds; this proves little", dropped, rounds)
	}
	t.Logf("%d entries were dropped in %d rounds", dropped, rounds)
}
