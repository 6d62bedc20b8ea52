package stream

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v4"
	"github.com/redis/go-redis/v9"
)

// BridgeConfig configures a Bridge.
type BridgeConfig struct {
	Channel string // Pub/Sub channel; default high_severity_alerts
	Log     *slog.Logger
	// MaxHeld and MaxHeldBytes bound the alerts that were received and could not be added
	// yet; defaults 10,000 and 64 MiB. What comes on top is dropped, counted and logged.
	MaxHeld      int
	MaxHeldBytes int
	// KeepAlive is the time between pings on an idle subscription; default 5 s. One that
	// is silent for three of them is taken for dead.
	KeepAlive time.Duration
}

// Validate fills in defaults and says what is wrong.
func (c *BridgeConfig) Validate() error {
	if c.Channel == "" {
		c.Channel = "high_severity_alerts"
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.MaxHeld == 0 {
		c.MaxHeld = 10_000
	}
	if c.MaxHeldBytes == 0 {
		c.MaxHeldBytes = 64 << 20
	}
	if c.KeepAlive == 0 {
		c.KeepAlive = 5 * time.Second
	}
	if c.MaxHeld < 0 || c.MaxHeldBytes < 0 || c.KeepAlive < 0 {
		return errors.New("bounds must not be negative")
	}
	return nil
}

// Bridge carries alerts from a Pub/Sub channel to the streams, for detectors that know
// nothing else. What arrives and is no alert of this host becomes a dead letter.
//
// Pub/Sub keeps nothing: what is published while the bridge is not subscribed is lost,
// and nobody can count it. From the moment a message has arrived the bridge holds it
// until Redis has it.
type Bridge struct {
	rdb *redis.Client
	pub *Publisher
	cfg BridgeConfig

	mu      sync.Mutex
	held    []parcel // waiting for the next attempt
	count   int      // of the waiting and of those being sent
	bytes   int      // likewise
	dropped int      // since all that was held has last been added
	arrived chan struct{}
}

// parcel is what one message became: an alert to publish, or a dead letter.
type parcel struct {
	raw  []byte
	dead DeadLetter // where raw is nil
}

func (m parcel) size() int { return len(m.raw) + len(m.dead.Raw) }

// NewBridge checks the configuration and returns the bridge. One bridge a host is enough;
// two publish the same alerts twice, which the ledger settles.
func NewBridge(rdb *redis.Client, pub *Publisher, cfg BridgeConfig) (*Bridge, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("bridge: %w", err)
	}
	return &Bridge{rdb: rdb, pub: pub, cfg: cfg, arrived: make(chan struct{}, 1)}, nil
}

// Run carries alerts until ctx is done, through any outage of Redis, and returns nil. What
// is held then is tried once more, for two seconds; the error says what did not get there.
func (b *Bridge) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	wg.Go(func() { b.receive(ctx) })
	b.send(ctx)
	wg.Wait()

	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
	defer cancel()
	if err := b.flush(last); err != nil {
		return fmt.Errorf("%d alerts received and not added to Redis are lost: %w", b.holding(), err)
	}
	return nil
}

// receive stays subscribed.
func (b *Bridge) receive(ctx context.Context) {
	wait, level := patience(), slog.LevelWarn
	ready := func() {
		wait.Reset()
		level = slog.LevelWarn
	}
	for ctx.Err() == nil {
		err := b.subscription(ctx, ready)
		if ctx.Err() != nil {
			return
		}
		b.cfg.Log.Log(ctx, level, "not subscribed; what is published now is lost, Pub/Sub keeps nothing",
			"channel", b.cfg.Channel, "err", err)
		level = slog.LevelDebug // said once an outage
		pause(ctx, wait.NextBackOff())
	}
}

// subscription subscribes, calls ready when that stands, and takes in messages until the
// connection breaks. It returns why.
func (b *Bridge) subscription(ctx context.Context, ready func()) error {
	sub := b.rdb.Subscribe(ctx, b.cfg.Channel)
	defer sub.Close()
	// A read is not interrupted by its context, but by closing its connection.
	defer context.AfterFunc(ctx, func() { _ = sub.Close() })()

	pings, stop := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer stop()
	for {
		// With the pings there is always something to read. A read that times out has
		// perhaps eaten half a message, so its connection is done with in any case.
		msg, err := sub.ReceiveTimeout(ctx, 3*b.cfg.KeepAlive)
		if err != nil {
			return err
		}
		switch m := msg.(type) {
		case *redis.Subscription:
			ready()
			b.cfg.Log.Info("bridge ready: subscribed", "channel", m.Channel, "host", string(b.pub.Host()))
			wg.Go(func() { b.keepAlive(pings, sub) })
		case *redis.Message:
			b.hold([]byte(m.Payload))
		}
	}
}

func (b *Bridge) keepAlive(ctx context.Context, sub *redis.PubSub) {
	tick := time.NewTicker(b.cfg.KeepAlive)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			if sub.Ping(ctx) != nil { // the reader will see it, too
				return
			}
		}
	}
}

// hold keeps a message until it is sent.
func (b *Bridge) hold(raw []byte) {
	m := parcel{raw: raw}
	if len(raw) > MaxAlertBytes {
		m = parcel{dead: NewDeadLetter(raw, malformed("%d bytes, more than %d", len(raw), MaxAlertBytes).Error())}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.count >= b.cfg.MaxHeld || b.bytes+m.size() > b.cfg.MaxHeldBytes {
		if b.dropped++; b.dropped == 1 {
			b.cfg.Log.Error("alerts are being dropped: Redis does not take them and the bridge can hold no more",
				"held", b.count, "bytes", b.bytes)
		}
		return
	}
	b.held = append(b.held, m)
	b.count++
	b.bytes += m.size()
	select {
	case b.arrived <- struct{}{}:
	default: // it has been said
	}
}

func (b *Bridge) holding() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.count
}

// send empties what is held, and backs off while Redis does not take it.
func (b *Bridge) send(ctx context.Context) {
	wait := patience()
	failing := false
	for {
		select {
		case <-ctx.Done():
			return
		case <-b.arrived:
		}
		for {
			err := b.flush(ctx)
			if err == nil || ctx.Err() != nil {
				break
			}
			if !failing {
				b.cfg.Log.Warn("alerts are held back, will be tried again", "held", b.holding(), "err", err)
			}
			failing = true
			pause(ctx, wait.NextBackOff())
		}
		if failing && ctx.Err() == nil {
			failing = false
			b.cfg.Log.Info("all alerts held back have been added")
		}
		wait.Reset()
	}
}

// flush tries each held message once, in order. One stream that is full does not hold up
// the others; any other failure ends the attempt. It returns nil when nothing is held.
func (b *Bridge) flush(ctx context.Context) error {
	b.mu.Lock()
	batch := b.held
	b.held = nil
	b.mu.Unlock()

	var kept []parcel
	var failure error
	bytes := 0
	for i, m := range batch {
		err := b.deliver(ctx, m)
		if err == nil {
			bytes += m.size()
			continue
		}
		failure = err
		if !errors.Is(err, ErrFull) {
			kept = append(kept, batch[i:]...)
			break
		}
		kept = append(kept, m)
	}

	b.mu.Lock()
	defer b.mu.Unlock()
	b.held = append(kept, b.held...) // what has arrived meanwhile is newer
	b.count -= len(batch) - len(kept)
	b.bytes -= bytes
	if failure == nil && b.dropped > 0 {
		b.cfg.Log.Error("alerts were dropped", "count", b.dropped)
		b.dropped = 0
	}
	return failure
}

// deliver publishes one message, as an alert if it is one.
func (b *Bridge) deliver(ctx context.Context, m parcel) error {
	if m.raw == nil {
		return b.pub.PublishDead(ctx, m.dead)
	}
	id, err := b.pub.PublishRaw(ctx, m.raw)
	switch {
	case err == nil:
		b.cfg.Log.Debug("alert added", "id", string(id))
		return nil
	case errors.Is(err, ErrOtherHost), errors.Is(err, ErrMalformed):
		b.cfg.Log.Warn("sent to the dead letters", "reason", err)
		return b.pub.PublishDead(ctx, NewDeadLetter(m.raw, err.Error()))
	}
	return err
}

// patience is a backoff without end: from 50 ms to a second, with jitter.
func patience() *backoff.ExponentialBackOff {
	return backoff.NewExponentialBackOff(
		backoff.WithInitialInterval(50*time.Millisecond), backoff.WithMaxInterval(time.Second), backoff.WithMaxElapsedTime(0))
}

// pause waits for a time, or for ctx.
func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}
