package stream_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"riposte/stream"
	"riposte/test/redistest"
)

// watcher is a publisher that watches over what it has published.
type watcher struct {
	*stream.Publisher
	t     *testing.T
	looks atomic.Int64 // that Redis has answered
	log   syncBuffer
}

func (w *watcher) DialHook(next redis.DialHook) redis.DialHook          { return next }
func (w *watcher) ProcessHook(next redis.ProcessHook) redis.ProcessHook { return next }
func (w *watcher) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		err := next(ctx, cmds)
		var answer redis.Error
		answered := err == nil || errors.As(err, &answer)
		if answered && slices.ContainsFunc(cmds, func(c redis.Cmder) bool { return c.Name() == "xinfo" }) {
			w.looks.Add(1)
		}
		return err
	}
}

// watch makes a publisher and has it watch until the test ends.
func watch(t *testing.T, rdb *redis.Client, cfg stream.PublisherConfig) *watcher {
	t.Helper()
	w := &watcher{t: t}
	rdb.AddHook(w)
	cfg.Host, cfg.Log = "h1", slog.New(slog.NewTextHandler(&w.log, nil))
	w.Publisher = publisher(t, rdb, cfg)
	ctx, stop := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { w.Watch(ctx) })
	t.Cleanup(func() { stop(); running.Wait() })
	return w
}

// publish publishes alerts of these IDs.
func (w *watcher) publish(ids ...string) {
	w.t.Helper()
	for _, id := range ids {
		if err := w.Publish(w.t.Context(), &stream.Alert{ID: stream.AlertID(id)}); err != nil {
			w.t.Fatal(err)
		}
	}
}

// looksAgain waits until a look that begins from now on has done its work.
func (w *watcher) looksAgain() {
	w.t.Helper()
	seen := w.looks.Load()
	eventually(w.t, "the publisher looks twice more", func() bool { return w.looks.Load() > seen+1 })
}

// copies counts the entries of each ID in the stream.
func copies(t *testing.T, rdb *redis.Client) string {
	t.Helper()
	n := map[any]int{}
	for _, e := range entries(t, rdb, "h1") {
		n[e.Values["id"]]++
	}
	return strings.TrimPrefix(fmt.Sprint(n), "map")
}

// has waits until the stream holds these copies, and sees that it stays so.
func (w *watcher) has(rdb *redis.Client, want string) {
	w.t.Helper()
	eventually(w.t, "the stream holds "+want, func() bool { return copies(w.t, rdb) == want })
	w.looksAgain()
	if got := copies(w.t, rdb); got != want {
		w.t.Errorf("then it holds %s, want %s as before", got, want)
	}
}

// What Redis forgets while it runs is published again, once for each time it forgets.
func TestPublishedAgainAfterFlush(t *testing.T) {
	t.Parallel()
	rdb := redistest.Start(t).Client()
	w := watch(t, rdb, stream.PublisherConfig{})
	w.publish("a", "b")
	w.has(rdb, "[a:1 b:1]") // in peace nothing is
	for range 2 {
		if err := rdb.FlushAll(t.Context()).Err(); err != nil {
			t.Fatal(err)
		}
		w.has(rdb, "[a:1 b:1]")
	}
	respond(t, rdb)
	w.publish("c")
	w.looksAgain()
	// Others are sooner: the stream then reaches further than it did.
	flush(t, rdb, func(pipe redis.Pipeliner) { addIDs(pipe, "x", "y") })
	w.has(rdb, "[a:1 b:1 c:1 x:1 y:1]")
	// A responder is sooner: the stream is there again, and empty.
	flush(t, rdb, group)
	w.has(rdb, "[a:1 b:1 c:1]")
	// Both are, and what others have added is read.
	flush(t, rdb, func(pipe redis.Pipeliner) {
		group(pipe)
		addIDs(pipe, "x", "y")
	})
	respond(t, rdb)
	w.has(rdb, "[a:1 b:1 c:1 x:1 y:1]")
	if n := strings.Count(w.log.String(), "may have lost"); n != 5 {
		t.Errorf("%d losses are told, want 5:\n%s", n, w.log.String())
	}
}

// A group that is gone has lost what it had read, once it is back.
func TestPublishedAgainWhereAGroupIsGone(t *testing.T) {
	t.Parallel()
	rdb := redistest.Start(t).Client()
	for _, group := range []string{"containment", "forensics"} {
		if err := rdb.XGroupCreateMkStream(t.Context(), "riposte:{h1}:alerts", group, "0").Err(); err != nil {
			t.Fatal(err)
		}
	}
	w := watch(t, rdb, stream.PublisherConfig{})
	w.publish("a")
	w.has(rdb, "[a:1]")
	if err := rdb.XGroupDestroy(t.Context(), "riposte:{h1}:alerts", "forensics").Err(); err != nil {
		t.Fatal(err)
	}
	w.has(rdb, "[a:2]")
	w.publish("b")
	w.has(rdb, "[a:2 b:1]")
	if !strings.Contains(w.log.String(), "group forensics is gone") {
		t.Error(w.log.String())
	}
}

// An alert published again is the same alert: under the same ID, with the same actionable
// fields, of the same time, however little of that it bears itself.
func TestPublishedAgainIsTheSame(t *testing.T) {
	t.Parallel()
	rdb := redistest.Start(t).Client()
	w := watch(t, rdb, stream.PublisherConfig{Forward: true})
	raws := []string{
		`{"id":"mine","level":"HIGH","actionable_pid":7}`,
		`{"id":"mine-2","level":"HIGH","timestamp":"2026-03-01T10:20:30"}`,
		fromPython,
		` {"level" : "HIGH", "actionable_pid": 7, "zone": "dm<z>"}`,
		`{"level":"LOW","timestamp":"","process":{"pid":9}}`,
		`{"id":"a","host":"h2"}`,
		`{"details":"` + strings.Repeat("<", stream.MaxAlertBytes-20) + `"}`, // there is no room for more
	}
	type seen struct {
		id     stream.AlertID
		digest string
		from   time.Time
	}
	look := func() (all []seen) {
		for _, e := range append(entries(t, rdb, "h1"), entries(t, rdb, "h2")...) {
			given, _ := e.Values["id"].(string)
			d := stream.Delivery{StreamID: e.ID, Raw: []byte(e.Values["alert"].(string)), GivenID: given}
			a, id, err := d.Alert()
			if err != nil {
				t.Fatal(err)
			}
			from := d.When().UTC()
			if a.Timestamp != "" {
				if from, _, err = a.When(time.UTC); err != nil {
					t.Fatal(err)
				}
			}
			all = append(all, seen{id, a.Digest(), from})
		}
		return all
	}
	var ids []stream.AlertID
	for _, raw := range raws {
		id, err := w.PublishRaw(t.Context(), []byte(raw))
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, id)
	}
	if err := w.PublishDead(t.Context(), stream.NewDeadLetter([]byte("nonsense"), "not JSON")); err != nil {
		t.Fatal(err)
	}
	letter := entries(t, rdb, "h1")[6]
	if err := rdb.XDel(t.Context(), "riposte:{h1}:alerts", letter.ID).Err(); err != nil {
		t.Fatal(err)
	}
	first := look()
	for i, s := range []int{0, 1, 2, 3, 4, 6, 5} { // the one of h2 comes last
		if first[i].id != ids[s] {
			t.Fatalf("published as %v, read as %v", ids, first)
		}
	}
	for range 2 { // again, and again what was published again
		if err := rdb.FlushAll(t.Context()).Err(); err != nil {
			t.Fatal(err)
		}
		eventually(t, "all are published again", func() bool {
			return rdb.XLen(t.Context(), "riposte:{h1}:alerts").Val() == 7 && rdb.XLen(t.Context(), "riposte:{h2}:alerts").Val() == 1
		})
		again := entries(t, rdb, "h1")[6]
		if fmt.Sprint(again.Values) != fmt.Sprint(letter.Values) {
			t.Errorf("the dead letter is %v, want %v", again.Values, letter.Values)
		}
		if err := rdb.XDel(t.Context(), "riposte:{h1}:alerts", again.ID).Err(); err != nil {
			t.Fatal(err)
		}
		second := look()
		for i := range first {
			large := i == 5
			if second[i].id != first[i].id || second[i].digest != first[i].digest || second[i].from != first[i].from && !large {
				t.Errorf("%v has become %v", first[i], second[i])
			}
		}
	}
}

// A stream that takes no more takes nothing again either; what is lost waits.
func TestPublishedAgainWhenThereIsRoom(t *testing.T) {
	t.Parallel()
	rdb := redistest.Start(t).Client()
	flush(t, rdb, group)
	w := watch(t, rdb, stream.PublisherConfig{HighWater: 3})
	w.publish("a", "b")
	w.looksAgain()
	key := "riposte:{h1}:alerts"
	pipe := rdb.TxPipeline()
	pipe.Del(t.Context(), key)
	for range 3 {
		pipe.XAdd(t.Context(), &redis.XAddArgs{Stream: key, Values: []any{"id", "x", "alert", "{}"}})
	}
	if _, err := pipe.Exec(t.Context()); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the loss is seen", func() bool { return strings.Contains(w.log.String(), "cannot be published again now") })
	w.looksAgain()
	if got := copies(t, rdb); got != "[x:3]" {
		t.Errorf("beyond the high-water mark %s", got)
	}
	if err := rdb.XTrimMaxLen(t.Context(), key, 1).Err(); err != nil {
		t.Fatal(err)
	}
	w.has(rdb, "[a:1 b:1 x:1]")
	if n := strings.Count(w.log.String(), "cannot be published again now"); n != 1 {
		t.Errorf("said %d times that it cannot", n)
	}
}

// A user who may not ask for it goes without, and is told so once.
func TestWatchWithoutPermission(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		rights string
		again  string // after FLUSHALL, which makes no other master
		told   int
	}{
		{"", "[]", 1},
		{"+info", "[]", 1},
		{"+xinfo|groups", "[a:1]", 1},
		{"+info +xinfo|groups", "[a:1]", 0},
	} {
		t.Run(c.rights, func(t *testing.T) {
			t.Parallel()
			s := redistest.Start(t)
			admin := s.Client()
			words := []any{"ACL", "SETUSER", "sensor", "reset", "on", "nopass", "~riposte:{h1}:alerts", "-@all", "+xadd", "+xlen"}
			for _, right := range strings.Fields(c.rights) {
				words = append(words, right)
			}
			if err := admin.Do(t.Context(), words...).Err(); err != nil {
				t.Fatal(err)
			}
			rdb, err := stream.Open(stream.Options{URL: strings.Replace(s.URL, "//", "//sensor:x@", 1)})
			if err != nil {
				t.Fatal(err)
			}
			defer rdb.Close()
			w := watch(t, rdb, stream.PublisherConfig{})
			w.publish("a")
			w.looksAgain()
			if err := admin.FlushDB(t.Context()).Err(); err != nil {
				t.Fatal(err)
			}
			w.has(admin, c.again)
			if n := strings.Count(w.log.String(), "does not tell"); n != c.told {
				t.Errorf("told %d times, want %d:\n%s", n, c.told, w.log.String())
			}
		})
	}
}

// What is kept is bounded: the oldest is given up, and that is told.
func TestKeptIsBounded(t *testing.T) {
	t.Parallel()
	rdb := redistest.Start(t).Client()
	w := watch(t, rdb, stream.PublisherConfig{KeepBytes: 3 << 10})
	for i := range 20 {
		w.publish(fmt.Sprint("a", i))
	}
	w.looksAgain()
	if err := rdb.FlushAll(t.Context()).Err(); err != nil {
		t.Fatal(err)
	}
	w.has(rdb, "[a15:1 a16:1 a17:1 a18:1 a19:1]")
	if !strings.Contains(w.log.String(), "given_up=15") {
		t.Error(w.log.String())
	}
}

// What was published long ago is not published again.
func TestKeptForItsTime(t *testing.T) {
	t.Parallel()
	rdb := redistest.Start(t).Client()
	const keep = 3 * time.Second
	w := watch(t, rdb, stream.PublisherConfig{Keep: keep})
	w.publish("old")
	long := time.NewTimer(keep)
	<-long.C
	w.publish("new")
	seen := w.looks.Load()
	eventually(t, "the publisher looks", func() bool { return w.looks.Load() > seen })
	if err := rdb.FlushAll(t.Context()).Err(); err != nil {
		t.Fatal(err)
	}
	w.has(rdb, "[new:1]")
}
