package sensor

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v4"

	"riposte/stream"
)

// Publisher takes alerts to where responders find them. stream.Publisher is one.
type Publisher interface {
	// Publish adds alerts, in order. After an error some may have been added and some not;
	// the caller publishes all of them again, which is harmless because the same alert has
	// the same ID. Only stream.ErrMalformed and stream.ErrOtherHost are final: they name
	// alerts that can never be added, and all others have been.
	Publish(ctx context.Context, alerts ...*stream.Alert) error
}

const (
	maxBatch     = 100
	minRetry     = 50 * time.Millisecond
	maxRetry     = 5 * time.Second
	flushTimeout = 2 * time.Second
	// summaryEvery spaces the log lines about what is lost.
	summaryEvery = 5 * time.Second
)

// outbox holds alerts until the publisher has taken them, in order. The detector never
// waits for it: where it is full the oldest alert is dropped, counted and reported,
// because the newest attack is the one that can still be stopped.
type outbox struct {
	publisher Publisher
	log       *slog.Logger
	max       int
	wake      chan struct{} // holds one token when there is something new

	mu        sync.Mutex
	alerts    []*stream.Alert
	published uint64
	dropped   uint64
	early     int    // dropped since a batch was taken: from its front
	reported  uint64 // of dropped: said in the log
}

func newOutbox(p Publisher, max int, log *slog.Logger) *outbox {
	return &outbox{publisher: p, log: log, max: max, wake: make(chan struct{}, 1)}
}

// add takes an alert and never waits.
func (o *outbox) add(a *stream.Alert) {
	o.mu.Lock()
	if len(o.alerts) >= o.max {
		o.alerts = append(o.alerts[:0], o.alerts[1:]...)
		o.dropped++
		o.early++
	}
	o.alerts = append(o.alerts, a)
	o.mu.Unlock()
	select {
	case o.wake <- struct{}{}:
	default:
	}
}

// run publishes until ctx ends, and then tries once more for a moment.
func (o *outbox) run(ctx context.Context) {
	summary := time.NewTicker(summaryEvery)
	defer summary.Stop()
	retry := time.NewTimer(0)
	retry.Stop()
	defer retry.Stop()
	pause := newBackoff()
	var down time.Time // since when nothing could be published; zero: it can
	for ctx.Err() == nil {
		err := o.publish(ctx)
		switch {
		case err != nil && ctx.Err() == nil:
			if down.IsZero() {
				down = time.Now()
				o.log.Warn("cannot publish alerts; watching on and trying again", "err", err, "held", o.pending(), "room", o.max)
			}
			retry.Reset(min(pause.NextBackOff(), maxRetry))
		case err == nil && !down.IsZero():
			o.log.Info("alerts are published again", "after", time.Since(down).Round(time.Millisecond))
			down = time.Time{}
			pause.Reset()
		}
		o.wait(ctx, retry, !down.IsZero(), summary.C)
	}
	o.flush(ctx)
}

// wait returns when there is something to do: after a failure only when the pause is over.
func (o *outbox) wait(ctx context.Context, retry *time.Timer, failed bool, summary <-chan time.Time) {
	wake := o.wake
	if failed {
		wake = nil
	}
	for {
		select {
		case <-ctx.Done():
			return
		case <-wake:
			return
		case <-retry.C:
			return
		case <-summary:
			o.reportDrops()
		}
	}
}

// publish empties the outbox, batch by batch.
func (o *outbox) publish(ctx context.Context) error {
	for {
		batch := o.take()
		if len(batch) == 0 {
			return nil
		}
		unfit := 0
		err := o.publisher.Publish(ctx, batch...)
		switch {
		case errors.Is(err, stream.ErrMalformed), errors.Is(err, stream.ErrOtherHost):
			unfit = leaves(err)
			o.log.Error("alerts that no stream takes were dropped", "err", err)
		case err != nil:
			return err
		}
		o.settle(len(batch), unfit)
	}
}

// take returns the first alerts and leaves them in place until they are settled.
func (o *outbox) take() []*stream.Alert {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.early = 0
	return slices.Clone(o.alerts[:min(len(o.alerts), maxBatch)])
}

// settle removes the alerts of a batch, which have been published, all but the unfit ones.
// Those that were dropped meanwhile are gone already, and were not lost after all.
func (o *outbox) settle(n, unfit int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	early := min(o.early, n)
	o.dropped -= uint64(early)
	o.reported = min(o.reported, o.dropped)
	o.alerts = append(o.alerts[:0], o.alerts[n-early:]...)
	o.published += uint64(n - unfit)
	o.dropped += uint64(unfit)
	o.reported += uint64(unfit)
}

// flush is the last attempt.
func (o *outbox) flush(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), flushTimeout)
	defer cancel()
	err := o.publish(ctx)
	o.reportDrops()
	if err != nil {
		o.log.Error("the sensor ends with alerts it could not publish", "alerts", o.pending(), "err", err)
	}
}

func (o *outbox) reportDrops() {
	o.mu.Lock()
	n, total := o.dropped-o.reported, o.dropped
	o.reported = o.dropped
	o.mu.Unlock()
	if n > 0 {
		o.log.Error("the buffer is full; the oldest alerts were dropped", "dropped", n, "dropped_total", total, "room", o.max)
	}
}

func (o *outbox) pending() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return len(o.alerts)
}

func newBackoff() *backoff.ExponentialBackOff {
	return backoff.NewExponentialBackOff(
		backoff.WithInitialInterval(minRetry),
		backoff.WithMaxInterval(maxRetry),
		backoff.WithMultiplier(2),
		backoff.WithMaxElapsedTime(0), // forever
	)
}

// leaves counts the errors joined in err.
func leaves(err error) int {
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok {
		return 1
	}
	return len(joined.Unwrap())
}
