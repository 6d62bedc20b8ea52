package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill-redisstream/pkg/redisstream"
	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/redis/go-redis/v9"
	"golang.org/x/sync/errgroup"

	"riposte/stream"
)

const (
	watermillTopic, watermillGroup = "watermill", "watermill"
	// One subscription handles one message after the other, so a process has several.
	watermillSubscriptions = 16
)

// watermillQueue is ThreeDotsLabs/watermill-redisstream.
type watermillQueue struct{ *lab }

func (q watermillQueue) publisher() (*redisstream.Publisher, error) {
	return redisstream.NewPublisher(redisstream.PublisherConfig{Client: redis.NewClient(&redis.Options{Addr: q.redis.addr})}, nil)
}

func envelope(a *stream.Alert) *message.Message {
	return message.NewMessage(watermill.NewUUID(), raw(a))
}

func (q watermillQueue) load(ctx context.Context, n int) error {
	pub, err := q.publisher()
	if err != nil {
		return err
	}
	defer pub.Close()
	together, _ := errgroup.WithContext(ctx)
	together.SetLimit(watermillSubscriptions)
	for range n {
		together.Go(func() error { return pub.Publish(watermillTopic, envelope(q.alert())) })
	}
	return together.Wait()
}

func (q watermillQueue) worker() *exec.Cmd { return q.act("watermill", q.redis.addr) }

func (q watermillQueue) left(ctx context.Context) (int64, error) {
	return unacked(ctx, q.rdb, watermillTopic, watermillGroup)
}

func (q watermillQueue) check(ctx context.Context, n int) error {
	return allRead(ctx, q.rdb, watermillTopic, n)
}

// watermillWorker runs until it is killed.
func watermillWorker(args []string) error {
	sub, err := redisstream.NewSubscriber(redisstream.SubscriberConfig{
		Client: redis.NewClient(&redis.Options{Addr: args[0], PoolSize: 4 * watermillSubscriptions}), ConsumerGroup: watermillGroup,
	}, nil)
	if err != nil {
		return err
	}
	for range watermillSubscriptions {
		messages, err := sub.Subscribe(context.Background(), watermillTopic)
		if err != nil {
			return err
		}
		go func() {
			for m := range messages {
				holdIf(args)
				m.Ack()
			}
		}()
	}
	fmt.Fprintln(os.Stderr, "ready")
	select {}
}
