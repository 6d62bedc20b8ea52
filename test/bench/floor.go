package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"time"

	"github.com/redis/go-redis/v9"
)

const floorStream, floorGroup = "floor", "floor"

// floorQueue is what Redis itself costs: read a hundred, ack a hundred, do nothing.
type floorQueue struct{ *lab }

func (q floorQueue) load(ctx context.Context, n int) error {
	if err := q.rdb.XGroupCreateMkStream(ctx, floorStream, floorGroup, "0").Err(); err != nil {
		return err
	}
	for n > 0 {
		pipe := q.rdb.Pipeline()
		for range min(n, 100) {
			pipe.XAdd(ctx, &redis.XAddArgs{Stream: floorStream, Values: []any{"alert", raw(q.alert())}})
		}
		if _, err := pipe.Exec(ctx); err != nil {
			return err
		}
		n -= min(n, 100)
	}
	return nil
}

func (q floorQueue) worker() *exec.Cmd { return q.act("floor", q.redis.addr) }

func (q floorQueue) left(ctx context.Context) (int64, error) {
	return unacked(ctx, q.rdb, floorStream, floorGroup)
}

func (q floorQueue) check(ctx context.Context, n int) error {
	return allRead(ctx, q.rdb, floorStream, n)
}

func floorWorker(args []string) error {
	ctx := context.Background()
	rdb := redis.NewClient(&redis.Options{Addr: args[0]})
	fmt.Fprintln(os.Stderr, "ready")
	for {
		streams, err := rdb.XReadGroup(ctx, &redis.XReadGroupArgs{
			Group: floorGroup, Consumer: fmt.Sprint(os.Getpid()), Streams: []string{floorStream, ">"}, Count: 100, Block: time.Second,
		}).Result()
		if errors.Is(err, redis.Nil) {
			continue
		}
		if err != nil {
			return err
		}
		ids := make([]string, len(streams[0].Messages))
		for i, m := range streams[0].Messages {
			ids[i] = m.ID
		}
		if err := rdb.XAck(ctx, floorStream, floorGroup, ids...).Err(); err != nil {
			return err
		}
	}
}

// unacked is how many entries of a stream a group has yet to read or to ack.
func unacked(ctx context.Context, rdb *redis.Client, stream, group string) (int64, error) {
	groups, err := rdb.XInfoGroups(ctx, stream).Result()
	if err != nil {
		return 0, err
	}
	for _, g := range groups {
		if g.Name == group {
			return max(g.Lag, 0) + g.Pending, nil
		}
	}
	return rdb.XLen(ctx, stream).Result() // nobody has come yet
}

// allRead says that the only group of a stream has read n entries and acked them.
func allRead(ctx context.Context, rdb *redis.Client, stream string, n int) error {
	groups, err := rdb.XInfoGroups(ctx, stream).Result()
	if err == nil && (len(groups) != 1 || groups[0].EntriesRead != int64(n) || groups[0].Lag != 0 || groups[0].Pending != 0) {
		err = fmt.Errorf("of %d entries of %s: %+v", n, stream, groups)
	}
	return err
}
