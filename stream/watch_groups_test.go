package stream_test

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/redis/go-redis/v9"

	"riposte/stream"
	"riposte/test/redistest"
)

// What is lost before the publisher has looked even once is published again, too.
func TestPublishedAgainBeforeALook(t *testing.T) {
	t.Parallel()
	for name, meanwhile := range map[string]func(redis.Pipeliner){
		"nothing":           func(redis.Pipeliner) {},
		"a group":           group,
		"a group and alert": func(pipe redis.Pipeliner) { group(pipe); addIDs(pipe, "x") },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			rdb := redistest.Start(t).Client()
			w := watch(t, rdb, stream.PublisherConfig{})
			w.publish("a", "b")
			flush(t, rdb, meanwhile)
			if looks := w.looks.Load(); looks > 0 {
				t.Errorf("the publisher has looked %d times already", looks)
			}
			eventually(t, "both are published again", func() bool { return strings.Contains(copies(t, rdb), "a:1 b:1") })
		})
	}
}

// What responders and operators do to a stream is no loss.
func TestNotPublishedAgain(t *testing.T) {
	t.Parallel()
	rdb := redistest.Start(t).Client()
	flush(t, rdb, group)
	w := watch(t, rdb, stream.PublisherConfig{})
	key := "riposte:{h1}:alerts"
	for i, what := range []struct {
		done func() error
		left string
	}{
		{func() error { respond(t, rdb); return nil }, "[a0:1]"},
		{func() error { return rdb.XTrimMaxLen(t.Context(), key, 0).Err() }, "[]"},
		{func() error { return rdb.XGroupCreate(t.Context(), key, "forensics", "0").Err() }, "[a2:1]"},
		{func() error { return rdb.XGroupCreate(t.Context(), key, "notify", "$").Err() }, "[a2:1 a3:1]"},
		{func() error { return rdb.XDel(t.Context(), key, entries(t, rdb, "h1")[1].ID).Err() }, "[a2:1 a4:1]"}, // not read
		{func() error { respond(t, rdb); return nil }, "[a2:1 a4:1 a5:1]"},
	} {
		w.publish(fmt.Sprint("a", i))
		w.looksAgain()
		if err := what.done(); err != nil {
			t.Fatal(err)
		}
		w.has(rdb, what.left)
	}
	if said := w.log.String(); said != "" {
		t.Error(said)
	}
}

// flush empties Redis; nobody is sooner than what is done meanwhile.
func flush(t *testing.T, rdb *redis.Client, meanwhile func(redis.Pipeliner)) {
	t.Helper()
	pipe := rdb.TxPipeline()
	pipe.FlushAll(t.Context())
	meanwhile(pipe)
	if _, err := pipe.Exec(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// group makes the group of responders, as the first of them does.
func group(pipe redis.Pipeliner) {
	pipe.XGroupCreateMkStream(context.Background(), "riposte:{h1}:alerts", "containment", "0")
}

func addIDs(pipe redis.Pipeliner, ids ...string) {
	for _, id := range ids {
		pipe.XAdd(context.Background(), &redis.XAddArgs{Stream: "riposte:{h1}:alerts", Values: []any{"id", id, "alert", "{}"}})
	}
}

// respond reads and acks what there is, as responders do.
func respond(t *testing.T, rdb *redis.Client) {
	t.Helper()
	key := "riposte:{h1}:alerts"
	_ = rdb.XGroupCreate(t.Context(), key, "containment", "0").Err() // it may be there
	read, err := rdb.XReadGroup(t.Context(), &redis.XReadGroupArgs{Group: "containment", Consumer: "c", Streams: []string{key, ">"}, Block: -1}).Result()
	if err != nil && err != redis.Nil {
		t.Fatal(err)
	}
	for _, s := range read {
		for _, m := range s.Messages {
			if err := rdb.XAck(t.Context(), key, "containment", m.ID).Err(); err != nil {
				t.Fatal(err)
			}
		}
	}
}
