package stream_test

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"riposte/stream"
	"riposte/test/redistest"
)

const channel = "high_severity_alerts"

// running is a bridge that runs until the test ends or stop is called.
type running struct {
	t    *testing.T
	rdb  *redis.Client // its own, for hooks
	log  *syncBuffer
	stop func() error
}

func startBridge(t *testing.T, s *redistest.Server, pcfg stream.PublisherConfig, cfg stream.BridgeConfig) *running {
	t.Helper()
	r := &running{t: t, rdb: s.Client(), log: &syncBuffer{}}
	cfg.Log = slog.New(slog.NewTextHandler(r.log, nil))
	bridge, err := stream.NewBridge(r.rdb, publisher(t, r.rdb, pcfg), cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- bridge.Run(ctx) }()
	r.stop = sync.OnceValue(func() error {
		cancel()
		select {
		case err := <-done:
			return err
		case <-time.After(10 * time.Second):
			t.Error("the bridge does not stop")
			return nil
		}
	})
	t.Cleanup(func() { _ = r.stop() })
	r.awaitReady(1)
	return r
}

// awaitReady waits for the nth subscription.
func (r *running) awaitReady(n int) {
	r.t.Helper()
	eventually(r.t, "bridge ready", func() bool { return strings.Count(r.log.String(), "bridge ready") >= n })
}

// publish sends a message that somebody must be subscribed to.
func publish(t *testing.T, rdb *redis.Client, message string) {
	t.Helper()
	n, err := rdb.Publish(t.Context(), channel, message).Result()
	if err != nil || n != 1 {
		t.Fatalf("published to %d subscribers, %v", n, err)
	}
}

// await waits for n entries in a host's stream.
func awaitEntries(t *testing.T, rdb *redis.Client, host stream.Host, n int) []redis.XMessage {
	t.Helper()
	var all []redis.XMessage
	eventually(t, fmt.Sprintf("%d entries", n), func() bool {
		all, _ = rdb.XRange(t.Context(), host.AlertsKey(), "-", "+").Result()
		return len(all) >= n
	})
	if len(all) != n {
		t.Fatalf("%d entries, want %d", len(all), n)
	}
	return all
}

func TestBridge(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t)
	rdb := s.Client()
	bridge := startBridge(t, s, stream.PublisherConfig{Host: "h1"}, stream.BridgeConfig{})

	messages := []string{
		fromPython,
		strings.Replace(fromPython, "30.123456", "30", 1), // isoformat without a fraction
		`{"host":"h1","level":"HIGH"}`,
		`{"host":"h2","level":"HIGH"}`,
		"no alert at all",
		`{"actionable_pid":"1234"}`,
		strings.Repeat("[", 10_000),
		"\xff\x00\xfe",
		`{"title":"` + strings.Repeat("x", 2<<20) + `"}`,
	}
	for _, m := range messages {
		publish(t, rdb, m)
	}
	all := awaitEntries(t, rdb, "h1", len(messages))
	for i, m := range messages {
		got := all[i].Values
		want := m[:min(len(m), stream.MaxDeadBytes)]
		if got["alert"] != want {
			t.Errorf("message %d: field alert is %.60q, want %.60q", i, got["alert"], want)
		}
		_, dead := got["error"]
		if dead != (i >= 3) {
			t.Errorf("message %d: error field %v", i, got["error"])
		}
	}
	for i := range 2 {
		if a := decode(t, messages[i]); all[i].Values["id"] != string(a.ID) {
			t.Errorf("message %d has ID %v, a raw XADD of it would have %s", i, all[i].Values["id"], a.ID)
		}
	}
	if reason := all[3].Values["error"].(string); !strings.Contains(reason, "h2") || !strings.Contains(reason, "h1") || !strings.Contains(reason, "--forward") {
		t.Errorf("another host's alert: %s", reason)
	}
	if last := all[len(all)-1].Values; last["length"] != fmt.Sprint(len(messages[8])) || len(last["sha256"].(string)) != 64 {
		t.Errorf("the large one: length %v, sha256 %v", last["length"], last["sha256"])
	}
	if err := bridge.stop(); err != nil {
		t.Errorf("stopped: %v", err)
	}
	if n, _ := rdb.PubSubNumSub(t.Context(), channel).Result(); n[channel] != 0 {
		t.Errorf("%d subscribers after the stop", n[channel])
	}
}

func TestBridgeForwards(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t)
	rdb := s.Client()
	startBridge(t, s, stream.PublisherConfig{Host: "h1", Forward: true}, stream.BridgeConfig{})
	publish(t, rdb, `{"host":"h2","level":"HIGH"}`)
	publish(t, rdb, `{"level":"HIGH"}`)
	awaitEntries(t, rdb, "h1", 1)
	if all := awaitEntries(t, rdb, "h2", 1); all[0].Values["error"] != nil {
		t.Errorf("got %v", all[0].Values)
	}
}

// Redis goes away and comes back, twice; in between an alert goes through.
func TestBridgeSurvivesOutages(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t, "--appendfsync", "always")
	rdb := s.Client()
	bridge := startBridge(t, s, stream.PublisherConfig{Host: "h1"}, stream.BridgeConfig{})
	for i := range 2 {
		s.Kill()
		eventually(t, "the loss is told", func() bool { return strings.Count(bridge.log.String(), "Pub/Sub keeps nothing") > i })
		s.Restart()
		bridge.awaitReady(i + 2)
		publish(t, rdb, fmt.Sprintf(`{"id":"a%d"}`, i))
		awaitEntries(t, rdb, "h1", i+1)
	}
	if n := strings.Count(bridge.log.String(), "Pub/Sub keeps nothing"); n != 2 {
		t.Errorf("the loss was told %d times, want once for each outage", n)
	}
}

// A subscription whose other end has silently gone is replaced.
func TestBridgeNoticesSilence(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t)
	rdb := s.Client()
	bridge := startBridge(t, s, stream.PublisherConfig{Host: "h1"}, stream.BridgeConfig{KeepAlive: 100 * time.Millisecond})
	if err := rdb.Do(t.Context(), "CLIENT", "PAUSE", "2000", "ALL").Err(); err != nil {
		t.Fatal(err)
	}
	bridge.awaitReady(2)
	publish(t, rdb, `{"id":"a"}`)
	awaitEntries(t, rdb, "h1", 1)
}

// An idle but healthy subscription is left alone.
func TestBridgeKeepsIdleSubscription(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t)
	rdb := s.Client()
	bridge := startBridge(t, s, stream.PublisherConfig{Host: "h1"}, stream.BridgeConfig{KeepAlive: 20 * time.Millisecond})
	pings := func() int {
		var n int
		for line := range strings.Lines(rdb.Info(t.Context(), "commandstats").Val()) {
			_, _ = fmt.Sscanf(line, "cmdstat_ping:calls=%d", &n)
		}
		return n
	}
	eventually(t, "20 pings", func() bool { return pings() >= 20 })
	publish(t, rdb, `{"id":"a"}`)
	awaitEntries(t, rdb, "h1", 1)
	if n := strings.Count(bridge.log.String(), "bridge ready"); n != 1 {
		t.Errorf("subscribed %d times", n)
	}
}

// While Redis takes no entries what has arrived is held, in order; beyond the bound it is
// dropped and counted.
func TestBridgeHoldsAndDrops(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t)
	rdb := s.Client()
	bridge := startBridge(t, s, stream.PublisherConfig{Host: "h1"}, stream.BridgeConfig{MaxHeld: 5})
	fail := func(on bool) {
		t.Helper()
		flag := "+xadd"
		if on {
			flag = "-xadd"
		}
		if err := rdb.Do(t.Context(), "ACL", "SETUSER", "default", flag).Err(); err != nil {
			t.Fatal(err)
		}
	}
	fail(true)
	for i := range 8 {
		publish(t, rdb, fmt.Sprintf(`{"id":"a%d"}`, i))
	}
	eventually(t, "the drop is told", func() bool { return strings.Contains(bridge.log.String(), "being dropped") })
	fail(false)
	all := awaitEntries(t, rdb, "h1", 5)
	for i, e := range all {
		if want := fmt.Sprintf("a%d", i); e.Values["id"] != want {
			t.Errorf("entry %d is %v, want %s", i, e.Values["id"], want)
		}
	}
	eventually(t, "the drops are counted", func() bool { return strings.Contains(bridge.log.String(), "count=3") })
	publish(t, rdb, `{"id":"later"}`)
	awaitEntries(t, rdb, "h1", 6)
}

// One host's full stream does not hold up the alerts of another.
func TestBridgeFullStreamHoldsUpNobodyElse(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t)
	rdb := s.Client()
	if err := rdb.XAdd(t.Context(), &redis.XAddArgs{Stream: stream.Host("full").AlertsKey(), Values: []any{"n", 0}}).Err(); err != nil {
		t.Fatal(err)
	}
	bridge := startBridge(t, s, stream.PublisherConfig{Host: "h1", Forward: true, HighWater: 1}, stream.BridgeConfig{})
	publish(t, rdb, `{"host":"full","id":"a"}`)
	publish(t, rdb, `{"host":"h1","id":"b"}`)
	awaitEntries(t, rdb, "h1", 1)
	if log := bridge.log.String(); !strings.Contains(log, "held back") || !strings.Contains(log, "stream is full") {
		t.Errorf("the full stream is not told:\n%s", log)
	}
	// And once there is room it gets there, too.
	if err := rdb.Del(t.Context(), stream.Host("full").AlertsKey()).Err(); err != nil {
		t.Fatal(err)
	}
	awaitEntries(t, rdb, "full", 1)
}

func TestBridgeTellsWhatIsLostAtTheEnd(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t)
	rdb := s.Client()
	bridge := startBridge(t, s, stream.PublisherConfig{Host: "h1"}, stream.BridgeConfig{})
	if err := rdb.Do(t.Context(), "ACL", "SETUSER", "default", "-xadd").Err(); err != nil {
		t.Fatal(err)
	}
	publish(t, rdb, `{"id":"a"}`)
	eventually(t, "the alert is held", func() bool { return strings.Contains(bridge.log.String(), "held back") })
	if err := bridge.stop(); err == nil || !strings.Contains(err.Error(), "1 alerts") {
		t.Errorf("got %v, want the loss of one alert", err)
	}
}

// syncBuffer is a log that can be read while it is written.
type syncBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}
