package main

import (
	"context"
	"fmt"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/redis/go-redis/v9"

	"riposte/stream"
)

// batchSize is how many alerts are published at once, where a batch is.
const batchSize = 100

// publish is how long one publisher's call takes, for one alert and for a batch, and how
// many alerts a second that makes.
func publish(ctx context.Context, l *lab) (rows []Row, err error) {
	for _, n := range []int{1, batchSize} {
		setting := "one at a time"
		if n > 1 {
			setting = fmt.Sprintf("batches of %d", n)
		}
		more, err := l.publishRows(ctx, setting, n)
		if err != nil {
			return rows, err
		}
		rows = append(rows, more...)
	}
	return rows, nil
}

func (l *lab) publishRows(ctx context.Context, setting string, n int) ([]Row, error) {
	rows := []Row{
		{Measurement: "publish", Setting: setting, Unit: "alerts/s"},
		{Measurement: "publish", Setting: setting + ", p50", Unit: "ms"},
		{Measurement: "publish", Setting: setting + ", p99", Unit: "ms"},
	}
	calls := l.size(2000, 20)
	if n > 1 {
		calls = l.size(200, 5)
	}
	for range l.repeat() {
		for _, name := range []string{Riposte, Asynq, Watermill, Floor} {
			took, err := l.published(ctx, name, calls, n)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", name, err)
			}
			total := 0.0
			for _, ms := range took {
				total += ms
			}
			rows[0].add(name, float64(calls*n)/total*1000)
			rows[1].add(name, percentile(took, 0.5))
			rows[2].add(name, percentile(took, 0.99))
		}
	}
	for i := range rows {
		rows[i].compare(Asynq, Watermill, Floor)
		l.say("publish, %s: %v", rows[i].Setting, rows[i].Medians)
	}
	if n > 1 {
		rows[0].note(Asynq, "its client has no batch: 100 calls by 64 goroutines")
		rows[0].note(Watermill, "Publish with 100 messages, which it adds one after the other")
	}
	return rows, nil
}

// published times calls of a contender's publisher, in milliseconds, and counts what came of them.
func (l *lab) published(ctx context.Context, name string, calls, n int) (took []float64, err error) {
	if err := l.reset(ctx); err != nil {
		return nil, err
	}
	call, end, err := l.caller(ctx, name)
	if err != nil {
		return nil, err
	}
	defer end()
	for i := range calls + 1 {
		alerts := make([]*stream.Alert, n)
		for i := range alerts {
			alerts[i] = l.alert()
		}
		began := time.Now()
		if err := call(alerts); err != nil {
			return nil, err
		}
		if i > 0 { // the first call connects
			took = append(took, milliseconds(time.Since(began)))
		}
	}
	var arrived int64
	switch name {
	case Riposte:
		arrived, err = l.rdb.XLen(ctx, host.AlertsKey()).Result()
	case Asynq:
		arrived, err = asynqQueue{lab: l}.left(ctx)
	case Watermill:
		arrived, err = l.rdb.XLen(ctx, watermillTopic).Result()
	default:
		arrived, err = l.rdb.XLen(ctx, floorStream).Result()
	}
	if err == nil && arrived != int64((calls+1)*n) {
		err = fmt.Errorf("published %d alerts, %d have arrived", (calls+1)*n, arrived)
	}
	return took, err
}

// caller is a contender's publisher.
func (l *lab) caller(ctx context.Context, name string) (call func([]*stream.Alert) error, end func(), err error) {
	end = func() {}
	switch name {
	case Riposte:
		pub, err := l.publisher()
		return func(alerts []*stream.Alert) error { return pub.Publish(ctx, alerts...) }, end, err
	case Asynq:
		client := asynqQueue{lab: l}.client()
		return func(alerts []*stream.Alert) error { return enqueue(ctx, client, alerts, nil) }, func() { client.Close() }, nil
	case Watermill:
		pub, err := watermillQueue{l}.publisher()
		return func(alerts []*stream.Alert) error {
			messages := make([]*message.Message, len(alerts))
			for i, a := range alerts {
				messages[i] = envelope(a)
			}
			return pub.Publish(watermillTopic, messages...)
		}, func() { pub.Close() }, err
	}
	return func(alerts []*stream.Alert) error {
		pipe := l.rdb.Pipeline()
		for _, a := range alerts {
			pipe.XAdd(ctx, &redis.XAddArgs{Stream: floorStream, Values: []any{"alert", raw(a)}})
		}
		_, err := pipe.Exec(ctx)
		return err
	}, end, nil
}
