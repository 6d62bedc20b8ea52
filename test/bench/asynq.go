package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"time"

	"github.com/hibiken/asynq"
	"golang.org/x/sync/errgroup"

	"riposte/stream"
)

const (
	asynqTask        = "alert"
	asynqConcurrency = 64
)

// asynqQueue is hibiken/asynq. Its client has no batch; it is used by many goroutines at
// once, which it is made for.
type asynqQueue struct {
	*lab
	options []asynq.Option // of each task
}

func (q asynqQueue) client() *asynq.Client {
	return asynq.NewClient(asynq.RedisClientOpt{Addr: q.redis.addr, PoolSize: asynqConcurrency})
}

func (q asynqQueue) load(ctx context.Context, n int) error {
	client := q.client()
	defer client.Close()
	alerts := make([]*stream.Alert, n)
	for i := range alerts {
		alerts[i] = q.alert()
	}
	return enqueue(ctx, client, alerts, q.options)
}

func enqueue(ctx context.Context, client *asynq.Client, alerts []*stream.Alert, options []asynq.Option) error {
	if len(alerts) == 1 {
		_, err := client.EnqueueContext(ctx, asynq.NewTask(asynqTask, raw(alerts[0]), options...))
		return err
	}
	together, ctx := errgroup.WithContext(ctx)
	together.SetLimit(asynqConcurrency)
	for _, a := range alerts {
		together.Go(func() error { return enqueue(ctx, client, []*stream.Alert{a}, options) })
	}
	return together.Wait()
}

func (q asynqQueue) worker() *exec.Cmd { return q.act("asynq", q.redis.addr) }

func (q asynqQueue) left(ctx context.Context) (int64, error) {
	pipe := q.rdb.Pipeline()
	pending, active := pipe.LLen(ctx, "asynq:{default}:pending"), pipe.LLen(ctx, "asynq:{default}:active")
	_, err := pipe.Exec(ctx)
	return pending.Val() + active.Val(), err
}

func (q asynqQueue) check(ctx context.Context, n int) error {
	info, err := asynq.NewInspector(asynq.RedisClientOpt{Addr: q.redis.addr}).GetQueueInfo("default")
	if err == nil && (info.ProcessedTotal != n || info.FailedTotal != 0 || info.Size != info.Completed) {
		err = fmt.Errorf("of %d tasks: %+v", n, info)
	}
	return err
}

// asynqWorker runs until it is killed. With the word hold its handler says so and never
// comes back.
func asynqWorker(args []string) error {
	server := asynq.NewServer(asynq.RedisClientOpt{Addr: args[0], PoolSize: asynqConcurrency + 16},
		asynq.Config{Concurrency: asynqConcurrency, LogLevel: asynq.ErrorLevel})
	mux := asynq.NewServeMux()
	mux.HandleFunc(asynqTask, func(context.Context, *asynq.Task) error {
		holdIf(args)
		return nil
	})
	if err := server.Start(mux); err != nil {
		return err
	}
	fmt.Fprintln(os.Stderr, "ready")
	select {}
}

// holdIf is the handler of a worker that is to be killed.
func holdIf(args []string) {
	if len(args) > 1 && args[1] == "hold" {
		fmt.Println("held")
		time.Sleep(time.Hour)
	}
}
