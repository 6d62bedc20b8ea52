package sensor

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"riposte/stream"
)

// Config configures a Sensor.
type Config struct {
	// Host is whose alerts these are. Required.
	Host stream.Host
	// Source is auto, proc or poll; default auto.
	Source string
	// PollInterval is how often source poll looks, 1 ms to 1 min; default 100 ms.
	PollInterval time.Duration
	// Rules say what is suspicious; nil means Builtin.
	Rules []Rule
	// BufferSize is how many alerts are held while they cannot be published, from 2 to
	// 1,000,000; default 10,000.
	BufferSize int
	// Log takes what the operator has to know; default slog.Default.
	Log *slog.Logger
}

// Validate fills in defaults and says what is wrong.
func (c *Config) Validate() error {
	if c.Source == "" {
		c.Source = SourceAuto
	}
	if c.PollInterval == 0 {
		c.PollInterval = 100 * time.Millisecond
	}
	if c.BufferSize == 0 {
		c.BufferSize = 10_000
	}
	if c.Log == nil {
		c.Log = slog.Default()
	}
	var err error
	if c.Rules == nil {
		if c.Rules, err = Builtin(); err != nil {
			return err
		}
	}
	if _, err := stream.ParseHost(string(c.Host)); err != nil {
		return err
	}
	switch c.Source {
	case SourceAuto, SourceProc, SourcePoll:
	default:
		return unknownSource(c.Source)
	}
	if c.PollInterval < time.Millisecond || c.PollInterval > time.Minute {
		return fmt.Errorf("poll interval %s is not within 1ms and 1m", c.PollInterval)
	}
	if len(c.Rules) == 0 {
		return errors.New("no rules: nothing would ever be suspicious")
	}
	if c.BufferSize < 2 || c.BufferSize > 1_000_000 {
		return fmt.Errorf("buffer size %d is not within 2 and 1000000", c.BufferSize)
	}
	return nil
}

// Stats says what a sensor has done and what it has missed.
type Stats struct {
	Source string // the source taken and why, in words; empty before Ready

	Events  uint64 // processes looked at
	Matched uint64 // alerts raised
	// Vanished counts processes that were gone, or already ran another program, before it
	// could be read what they were.
	Vanished uint64
	// Overruns is how often the kernel had more to say than the source could take. All
	// processes are looked at each time; what lived shorter is lost and uncounted.
	Overruns uint64

	Published uint64 // alerts the publisher has taken
	Dropped   uint64 // alerts given up: the buffer was full, or no stream takes them
	Pending   int    // alerts held
}

// Sensor watches this host and publishes alerts.
type Sensor struct {
	cfg      Config
	detector *detector
	outbox   *outbox
	ready    chan struct{}

	mu     sync.Mutex
	source source
	why    string
}

// New checks the configuration and returns a sensor that does nothing until Run.
func New(cfg Config, publisher Publisher) (*Sensor, error) {
	if publisher == nil {
		return nil, errors.New("sensor: no publisher")
	}
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("sensor: %w", err)
	}
	s := &Sensor{cfg: cfg, outbox: newOutbox(publisher, cfg.BufferSize, cfg.Log), ready: make(chan struct{})}
	var err error
	if s.detector, err = newDetector(cfg.Host, cfg.Rules, s.outbox.add); err != nil {
		return nil, fmt.Errorf("sensor: %w", err)
	}
	return s, nil
}

// Ready is closed when the sensor watches: every process that starts from then on is seen
// as well as its source can. Those that were running have been looked at.
func (s *Sensor) Ready() <-chan struct{} { return s.ready }

// Run watches until ctx ends, then tries for up to 2 s to publish what it still holds, and
// returns nil. It returns an error at once where the source is of no use, and if the source
// fails. It is called once.
func (s *Sensor) Run(ctx context.Context) error {
	source, why, err := openSource(s.cfg.Source, s.cfg.PollInterval, s.cfg.Log)
	if err != nil {
		return fmt.Errorf("sensor: %w", err)
	}
	s.mu.Lock()
	s.source, s.why = source, why
	s.mu.Unlock()

	// The outbox outlives the source, so that it flushes the source's last alert too.
	publishing, stop := context.WithCancel(context.WithoutCancel(ctx))
	var wait sync.WaitGroup
	wait.Go(func() { s.outbox.run(publishing) })
	err = source.run(ctx, func() {
		close(s.ready)
		s.cfg.Log.Info("sensor is ready", "host", s.cfg.Host, "source", why, "rules", len(s.cfg.Rules))
	}, s.detector.handle)
	stop()
	wait.Wait()
	st := s.Stats()
	s.cfg.Log.Info("sensor has stopped", "processes", st.Events, "alerts", st.Matched, "published", st.Published,
		"vanished", st.Vanished, "overruns", st.Overruns, "dropped", st.Dropped, "unpublished", st.Pending)
	if err != nil {
		return fmt.Errorf("sensor: %w", err)
	}
	return nil
}

// Stats may be called at any time.
func (s *Sensor) Stats() Stats {
	st := Stats{Events: s.detector.events.Load(), Matched: s.detector.matched.Load(), Vanished: s.detector.vanished.Load()}
	s.mu.Lock()
	if s.source != nil {
		st.Source, st.Overruns = s.why, s.source.overruns()
	}
	s.mu.Unlock()
	s.outbox.mu.Lock()
	defer s.outbox.mu.Unlock()
	st.Published, st.Dropped, st.Pending = s.outbox.published, s.outbox.dropped, len(s.outbox.alerts)
	return st
}
