package redisfaults

import (
	"context"
	"errors"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"riposte/stream"
)

// publisher publishes alerts at a steady pace, as the sensor does: what it is told is full
// or away it tries again, and what Redis acknowledged and lost is published again by
// stream.Publisher itself.
type publisher struct {
	out   *stream.Publisher
	added receipts

	mu    sync.Mutex
	due   []*stream.Alert         // to be published
	acked map[stream.AlertID]bool // by Redis, at least once
	full  int                     // times the stream took no more
}

func newPublisher(rdb *redis.Client) (*publisher, error) {
	p := &publisher{acked: map[stream.AlertID]bool{}}
	rdb.AddHook(&p.added)
	var err error
	p.out, err = stream.NewPublisher(rdb, stream.PublisherConfig{Host: host})
	return p, err
}

const (
	pace  = 20 * time.Millisecond
	batch = 50
)

// run publishes all alerts, spread over a time, and goes on watching until ctx ends.
func (p *publisher) run(ctx context.Context, alerts []*stream.Alert, over time.Duration) {
	var watch sync.WaitGroup
	defer watch.Wait()
	watch.Go(func() { p.out.Watch(ctx) })
	tick := time.NewTicker(pace)
	defer tick.Stop()
	begun := time.Now()
	for sent := 0; ; {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		n := min(len(alerts), int(int64(len(alerts))*int64(time.Since(begun))/int64(over)))
		p.mu.Lock()
		p.due = append(p.due, alerts[sent:n]...)
		p.mu.Unlock()
		sent = n
		p.publish(ctx)
	}
}

func (p *publisher) publish(ctx context.Context) {
	p.mu.Lock()
	send := p.due[:min(batch, len(p.due))]
	p.mu.Unlock()
	if len(send) == 0 {
		return
	}
	err := p.out.Publish(ctx, send...)
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case err == nil:
		for _, a := range send {
			p.acked[a.ID] = true
		}
		p.due = p.due[len(send):]
	case errors.Is(err, stream.ErrFull):
		p.full++
	}
}

// accepted are the alerts that Redis has acknowledged so far.
func (p *publisher) accepted() map[stream.AlertID]bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return maps.Clone(p.acked)
}

// refused is how often the stream was full.
func (p *publisher) refused() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.full
}

// again is how many alerts were published more than once, each time counted.
func (p *publisher) again() int { return len(p.added.entries()) - len(p.accepted()) }

// receipts are the stream entries that a client was told it has added. An alert published
// again is another entry, so what was lost stays missed.
type receipts struct {
	mu  sync.Mutex
	ids []string
}

func (r *receipts) entries() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.ids)
}

func (r *receipts) saw(cmds ...redis.Cmder) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, cmd := range cmds {
		if added, ok := cmd.(*redis.StringCmd); ok && cmd.Name() == "xadd" && cmd.Err() == nil {
			r.ids = append(r.ids, added.Val())
		}
	}
}

// DialHook implements redis.Hook.
func (r *receipts) DialHook(next redis.DialHook) redis.DialHook { return next }

// ProcessHook implements redis.Hook.
func (r *receipts) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		err := next(ctx, cmd)
		r.saw(cmd)
		return err
	}
}

// ProcessPipelineHook implements redis.Hook.
func (r *receipts) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		err := next(ctx, cmds)
		r.saw(cmds...)
		return err
	}
}
