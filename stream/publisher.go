package stream

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
)

// ErrFull says that a stream takes no more: responders are not keeping up, or Redis has no
// memory left. The caller keeps its alerts and tries again later.
var ErrFull = errors.New("stream is full")

// ErrOtherHost says that an alert names another host than the publisher's. Publishing it
// again cannot help, forwarding it can: see PublisherConfig.Forward.
var ErrOtherHost = errors.New("alert for another host")

// PublisherConfig configures a Publisher.
type PublisherConfig struct {
	// Host is whose stream alerts go to that name no host.
	Host Host
	// Forward sends an alert that names another host to that host's stream. Without it
	// such an alert is ErrOtherHost.
	Forward bool
	// HighWater is the length of a stream beyond which nothing is added; default
	// 1,000,000 entries. The length is looked up at most once a second, so the stream may
	// grow past it by what is published in between.
	HighWater int64
	// Keep is how long what was added is kept, to be published again if Redis loses it;
	// default 2 minutes. It must cover how far a copy that is made the master may be behind
	// the old one: Redis itself drops one that is silent for repl-timeout, 60 s, and
	// Sentinel takes 30 s (down-after-milliseconds) to give up a master that goes on
	// acknowledging. How long nobody answers does not count: see Watch.
	Keep time.Duration
	// KeepBytes bounds what is kept; default 64 MiB, some 60,000 alerts. Beyond it the
	// oldest are given up, counted and logged.
	KeepBytes int
	Log       *slog.Logger // default none
}

// Validate fills in defaults and says what is wrong.
func (c *PublisherConfig) Validate() error {
	if c.HighWater == 0 {
		c.HighWater = 1_000_000
	}
	if c.Keep == 0 {
		c.Keep = 2 * time.Minute
	}
	if c.KeepBytes == 0 {
		c.KeepBytes = 64 << 20
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.HighWater < 0 || c.Keep < 0 || c.KeepBytes < 0 {
		return errors.New("the high-water mark and what is kept must not be negative")
	}
	_, err := ParseHost(string(c.Host))
	return err
}

// Publisher adds alerts to the streams of hosts. It never trims them: only the consumer
// side knows what has been settled. It is safe for concurrent use.
//
// Publishing an alert again is harmless, and is what to do after any error but
// ErrMalformed and ErrOtherHost: the same alert has the same ID, and the ledger settles
// the copy. The exception is an alert with neither ID nor timestamp, whose copy cannot be
// told from a second attack.
//
// What was added it keeps for a while, and Watch publishes it again where Redis has lost
// it. That, and nothing else, brings back what a failover lost.
type Publisher struct {
	rdb redis.UniversalClient
	cfg PublisherConfig

	mu        sync.Mutex
	lengths   map[Host]length
	kept      []*kept // the oldest first, but for those published again
	keptBytes int
	unkept    int // given up before their time
}

// length is what XLEN said, and when.
type length struct {
	entries int64
	at      time.Time
}

// NewPublisher checks the configuration and returns the publisher.
func NewPublisher(rdb redis.UniversalClient, cfg PublisherConfig) (*Publisher, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("publisher: %w", err)
	}
	return &Publisher{rdb: rdb, cfg: cfg, lengths: map[Host]length{}}, nil
}

// Host is the host the publisher publishes for.
func (p *Publisher) Host() Host { return p.cfg.Host }

// Publish adds alerts in one round trip. An alert that no stream may ever take
// (ErrMalformed, ErrOtherHost) is left out and named in the error; the others have been
// added all the same. With any other error some may have been added and some not: the
// caller publishes all of them again.
func (p *Publisher) Publish(ctx context.Context, alerts ...*Alert) error {
	var entries []entry
	var unfit []error
	for _, a := range alerts {
		raw, err := json.Marshal(a)
		if err != nil {
			unfit = append(unfit, fmt.Errorf("alert %s: %w", a.ID, malformed("%v", err)))
			continue
		}
		e, err := p.entry(raw)
		if err != nil {
			unfit = append(unfit, fmt.Errorf("alert %s: %w", a.ID, err))
			continue
		}
		entries = append(entries, e)
	}
	if _, err := p.add(ctx, entries...); err != nil {
		return err
	}
	return errors.Join(unfit...)
}

// PublishRaw adds one alert, byte for byte as it came, and returns the ID under which the
// ledger will know it.
func (p *Publisher) PublishRaw(ctx context.Context, raw []byte) (AlertID, error) {
	e, err := p.entry(bytes.Clone(raw)) // it is kept
	if err != nil {
		return "", err
	}
	added, err := p.add(ctx, e)
	if err != nil {
		return "", err
	}
	if e.id == "" {
		a, err := Decode(raw, added[0].streamID)
		if err != nil {
			return "", err
		}
		return a.ID, nil
	}
	return e.id, nil
}

// MaxDeadBytes is how much of a refused alert is kept.
const MaxDeadBytes = 64 << 10

// DeadLetter is what cannot be an alert of this host, and why.
type DeadLetter struct {
	Reason string
	Raw    []byte // at most the first MaxDeadBytes
	Length int    // of the whole
	SHA256 string // of the whole, in hexadecimal
}

// NewDeadLetter keeps as much of raw as may be kept.
func NewDeadLetter(raw []byte, reason string) DeadLetter {
	sum := sha256.Sum256(raw)
	return DeadLetter{reason, bytes.Clone(raw[:min(len(raw), MaxDeadBytes)]), len(raw), hex.EncodeToString(sum[:])}
}

// PublishDead adds a dead letter to the host's stream, with the reason in the field error,
// so that a responder buries it where an operator sees it.
func (p *Publisher) PublishDead(ctx context.Context, d DeadLetter) error {
	_, err := p.add(ctx, entry{host: p.cfg.Host, raw: d.Raw, letter: &d})
	return err
}

// entry is a stream entry to be.
type entry struct {
	host   Host
	id     AlertID // empty where the stream entry's ID decides
	raw    []byte
	letter *DeadLetter // of which raw is the beginning; nil for an alert
}

func (e entry) fields() []any {
	switch {
	case e.letter != nil:
		return []any{"error", e.letter.Reason, "length", e.letter.Length, "sha256", e.letter.SHA256, "alert", e.raw}
	case e.id != "":
		return []any{"id", string(e.id), "alert", e.raw}
	}
	return []any{"alert", e.raw}
}

// entry decides where an alert goes and under which ID.
func (p *Publisher) entry(raw []byte) (entry, error) {
	a, err := Decode(raw, "")
	if err != nil {
		return entry{}, err
	}
	e := entry{host: p.cfg.Host, raw: raw}
	if host := Host(a.Host); host != "" && host != p.cfg.Host {
		if !p.cfg.Forward {
			return entry{}, fmt.Errorf("%w: it names %s, this is %s; --forward sends it there", ErrOtherHost, host, p.cfg.Host)
		}
		e.host = host
	}
	if a.Given != "" || a.Timestamp != "" {
		e.id = a.ID
	}
	return e, nil
}

// receipt is Redis's acknowledgement of an entry.
type receipt struct {
	streamID string
	history  string // the master's replication ID, empty where it does not tell
}

// add sends entries in one pipeline and keeps them.
func (p *Publisher) add(ctx context.Context, entries ...entry) ([]receipt, error) {
	receipts, err := p.send(ctx, entries)
	if err == nil {
		p.keep(entries, receipts)
	}
	return receipts, err
}

// send adds entries in one pipeline. In it Redis is asked first which history they become
// part of: of several connections some may lead to a master that was deposed.
func (p *Publisher) send(ctx context.Context, entries []entry) ([]receipt, error) {
	if len(entries) == 0 {
		return nil, nil
	}
	if err := p.room(ctx, entries); err != nil {
		return nil, err
	}
	pipe := p.rdb.Pipeline()
	info := pipe.Info(ctx, "replication")
	cmds := make([]*redis.StringCmd, len(entries))
	for i, e := range entries {
		cmds[i] = pipe.XAdd(ctx, &redis.XAddArgs{Stream: e.host.AlertsKey(), Values: e.fields()})
	}
	_, _ = pipe.Exec(ctx) // may be INFO's refusal, which is no failure
	receipts := make([]receipt, len(cmds))
	for i, cmd := range cmds {
		switch err := cmd.Err(); {
		case redis.IsOOMError(err):
			return nil, fmt.Errorf("%w: %w; Redis is at its maxmemory", ErrFull, err)
		case err != nil:
			return nil, fmt.Errorf("add %d alerts to Redis: %w", len(entries), err)
		}
		receipts[i] = receipt{cmd.Val(), history(info.Val())}
	}
	return receipts, nil
}

// lengthTTL is how long the length of a stream is believed.
const lengthTTL = time.Second

// room is ErrFull where a stream the entries go to is beyond the high-water mark.
func (p *Publisher) room(ctx context.Context, entries []entry) error {
	ask := map[Host]*redis.IntCmd{}
	pipe := p.rdb.Pipeline()
	p.mu.Lock()
	known := make(map[Host]length, 1)
	for _, e := range entries {
		if l, ok := p.lengths[e.host]; ok && time.Since(l.at) < lengthTTL {
			known[e.host] = l
		} else if ask[e.host] == nil {
			ask[e.host] = pipe.XLen(ctx, e.host.AlertsKey())
		}
	}
	p.mu.Unlock()

	if len(ask) > 0 {
		if _, err := pipe.Exec(ctx); err != nil {
			return fmt.Errorf("length of the stream of alerts: %w", err)
		}
		now := time.Now()
		for host, cmd := range ask {
			known[host] = length{cmd.Val(), now}
		}
		p.mu.Lock()
		if len(p.lengths) > 1000 { // a stranger may name any number of hosts
			clear(p.lengths)
		}
		maps.Copy(p.lengths, known)
		p.mu.Unlock()
	}
	for host, l := range known {
		if l.entries >= p.cfg.HighWater {
			return fmt.Errorf("%w: %d entries in %s, the limit is %d; see riposte status --host %s",
				ErrFull, l.entries, host.AlertsKey(), p.cfg.HighWater, host)
		}
	}
	return nil
}
