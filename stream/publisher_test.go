package stream_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"testing"

	"github.com/redis/go-redis/v9"

	"riposte/stream"
	"riposte/test/redistest"
)

func publisher(t *testing.T, rdb *redis.Client, cfg stream.PublisherConfig) *stream.Publisher {
	t.Helper()
	p, err := stream.NewPublisher(rdb, cfg)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// entries are the fields of all entries of a host's stream.
func entries(t *testing.T, rdb *redis.Client, host stream.Host) []redis.XMessage {
	t.Helper()
	all, err := rdb.XRange(t.Context(), host.AlertsKey(), "-", "+").Result()
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func TestPublisherConfig(t *testing.T) {
	for _, cfg := range []stream.PublisherConfig{{}, {Host: "a b"}, {Host: "h", HighWater: -1}} {
		if _, err := stream.NewPublisher(nil, cfg); err == nil {
			t.Errorf("%+v is accepted", cfg)
		}
	}
	cfg := stream.PublisherConfig{Host: "h"}
	if err := cfg.Validate(); err != nil || cfg.HighWater != 1_000_000 {
		t.Errorf("got %+v, %v", cfg, err)
	}
}

func TestPublishRaw(t *testing.T) {
	t.Parallel()
	rdb := redistest.Start(t).Client()
	pub := publisher(t, rdb, stream.PublisherConfig{Host: "h1"})
	for name, raw := range map[string]string{
		"own ID":           `{"id":"mine","level":"HIGH"}`,
		"timestamp":        fromPython,
		"neither":          ` {"level" : "HIGH", "actionable_pid": 7}`,
		"host of the same": `{"host":"h1","timestamp":"t"}`,
		"unknown fields":   `{"zone":"dmz",  "timestamp":"t2"}`,
	} {
		if err := rdb.FlushAll(t.Context()).Err(); err != nil {
			t.Fatal(err)
		}
		id, err := pub.PublishRaw(t.Context(), []byte(raw))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		all := entries(t, rdb, "h1")
		if len(all) != 1 || all[0].Values["alert"] != raw {
			t.Errorf("%s: %v is not %s, byte for byte", name, all, raw)
			continue
		}
		// The consumer must come to the same ID, and so must it for a raw XADD.
		a, err := stream.Decode([]byte(raw), all[0].ID)
		if err != nil || a.ID != id {
			t.Errorf("%s: published as %s, read as %s, %v", name, id, a.ID, err)
		}
		field, ok := all[0].Values["id"]
		if ok == (name == "neither") || ok && field != string(id) {
			t.Errorf("%s: field id is %v", name, field)
		}
	}
}

func TestPublishRawRefuses(t *testing.T) {
	t.Parallel()
	rdb := redistest.Start(t).Client()
	pub := publisher(t, rdb, stream.PublisherConfig{Host: "h1"})
	for raw, want := range map[string]error{
		"nonsense":                          stream.ErrMalformed,
		`{"actionable_pid":"1234"}`:         stream.ErrMalformed,
		`{"host":"h 2"}`:                    stream.ErrMalformed,
		strings.Repeat(" ", 10<<20):         stream.ErrMalformed,
		`{"host":"h2","actionable_pid":12}`: stream.ErrOtherHost,
	} {
		if _, err := pub.PublishRaw(t.Context(), []byte(raw)); !errors.Is(err, want) {
			t.Errorf("%.40s: got %v, want %v", raw, err, want)
		}
	}
	if n := rdb.DBSize(t.Context()).Val(); n != 0 {
		t.Errorf("%d keys were written", n)
	}
	forward := publisher(t, rdb, stream.PublisherConfig{Host: "h1", Forward: true})
	if _, err := forward.PublishRaw(t.Context(), []byte(`{"host":"h2"}`)); err != nil {
		t.Fatal(err)
	}
	if len(entries(t, rdb, "h2")) != 1 || len(entries(t, rdb, "h1")) != 0 {
		t.Error("a forwarded alert is not in the stream of its host alone")
	}
}

func TestPublishBatch(t *testing.T) {
	t.Parallel()
	rdb := redistest.Start(t).Client()
	pub := publisher(t, rdb, stream.PublisherConfig{Host: "h1", Forward: true})
	pid := int64(7)
	var alerts []*stream.Alert
	for i := range 500 {
		alerts = append(alerts, &stream.Alert{ID: stream.AlertID("a" + strconv.Itoa(i)), Level: "HIGH", ActionablePID: &pid})
	}
	alerts[100].ID = "not an ID"
	alerts[200].Host = "h2"
	alerts[300].Title = strings.Repeat("x", stream.MaxAlertBytes)
	alerts[400].ID = "" // derived
	alerts[400].Timestamp = "2026-03-01T10:20:30"
	err := pub.Publish(t.Context(), alerts...)
	if !errors.Is(err, stream.ErrMalformed) || !strings.Contains(err.Error(), "not an ID") || !strings.Contains(err.Error(), "a300") {
		t.Errorf("got %v, want both unfit alerts named", err)
	}
	all := entries(t, rdb, "h1")
	if len(all) != 497 || len(entries(t, rdb, "h2")) != 1 {
		t.Fatalf("%d and %d entries, want 497 and 1", len(all), len(entries(t, rdb, "h2")))
	}
	for _, e := range all {
		a, err := stream.Decode([]byte(e.Values["alert"].(string)), e.ID)
		if err != nil || string(a.ID) != e.Values["id"] || *a.ActionablePID != 7 {
			t.Fatalf("entry %v: %v", e, err)
		}
	}
	if err := pub.Publish(t.Context()); err != nil {
		t.Errorf("nothing to publish: %v", err)
	}
}

func TestPublishDead(t *testing.T) {
	t.Parallel()
	rdb := redistest.Start(t).Client()
	pub := publisher(t, rdb, stream.PublisherConfig{Host: "h1"})
	raw := bytes.Repeat([]byte("x"), 2<<20)
	if err := pub.PublishDead(t.Context(), stream.NewDeadLetter(raw, "too large")); err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(raw)
	want := map[string]any{"error": "too large", "length": "2097152", "sha256": hex.EncodeToString(sum[:]), "alert": string(raw[:64<<10])}
	got := entries(t, rdb, "h1")[0].Values
	if len(got) != len(want) {
		t.Errorf("%d fields, want %d", len(got), len(want))
	}
	for name := range want {
		if got[name] != want[name] {
			t.Errorf("%s is %.80v", name, got[name])
		}
	}
}

func TestHighWater(t *testing.T) {
	t.Parallel()
	rdb := redistest.Start(t).Client()
	for i := range 10 {
		if err := rdb.XAdd(t.Context(), &redis.XAddArgs{Stream: stream.Host("h1").AlertsKey(), Values: []any{"n", i}}).Err(); err != nil {
			t.Fatal(err)
		}
	}
	alert := &stream.Alert{ID: "a"}
	full := publisher(t, rdb, stream.PublisherConfig{Host: "h1", HighWater: 10, Forward: true})
	if err := full.Publish(t.Context(), alert); !errors.Is(err, stream.ErrFull) {
		t.Errorf("at the mark: got %v, want ErrFull", err)
	}
	if err := full.Publish(t.Context(), &stream.Alert{ID: "a", Host: "h2"}); err != nil {
		t.Errorf("another host's stream has room: %v", err)
	}
	room := publisher(t, rdb, stream.PublisherConfig{Host: "h1", HighWater: 11})
	if err := room.Publish(t.Context(), alert); err != nil {
		t.Errorf("below the mark: %v", err)
	}
	if n := len(entries(t, rdb, "h1")); n != 11 {
		t.Errorf("%d entries, want 11: nothing may be trimmed or added", n)
	}
	// Room is noticed once what is known of the length is older than a second.
	if err := rdb.Del(t.Context(), stream.Host("h1").AlertsKey()).Err(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the publisher sees that there is room", func() bool { return full.Publish(t.Context(), alert) == nil })
}

func TestLengthIsNotAskedEachTime(t *testing.T) {
	t.Parallel()
	rdb := redistest.Start(t).Client()
	hook := &countingHook{counts: map[string]int{}}
	rdb.AddHook(hook)
	pub := publisher(t, rdb, stream.PublisherConfig{Host: "h1"})
	for range 50 {
		if err := pub.Publish(t.Context(), &stream.Alert{ID: "a"}); err != nil {
			t.Fatal(err)
		}
	}
	if hook.counts["xadd"] != 50 || hook.counts["xlen"] > 25 {
		t.Errorf("commands: %v; want far fewer xlen than xadd", hook.counts)
	}
}

// countingHook counts the commands of pipelines.
type countingHook struct{ counts map[string]int }

func (h *countingHook) DialHook(next redis.DialHook) redis.DialHook          { return next }
func (h *countingHook) ProcessHook(next redis.ProcessHook) redis.ProcessHook { return next }
func (h *countingHook) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		for _, c := range cmds {
			h.counts[c.Name()]++
		}
		return next(ctx, cmds)
	}
}

func TestFullMemoryIsFull(t *testing.T) {
	t.Parallel()
	rdb := redistest.Start(t, "--maxmemory", "1", "--maxmemory-policy", "noeviction").Client()
	pub := publisher(t, rdb, stream.PublisherConfig{Host: "h1"})
	if err := pub.Publish(t.Context(), &stream.Alert{ID: "a"}); !errors.Is(err, stream.ErrFull) {
		t.Errorf("got %v, want ErrFull", err)
	}
}

// After an outage the same call goes through, and what was published is there.
func TestPublishAgainAfterOutage(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t, "--appendfsync", "always")
	rdb := s.Client()
	pub := publisher(t, rdb, stream.PublisherConfig{Host: "h1"})
	alert := &stream.Alert{ID: "a"}
	if err := pub.Publish(t.Context(), alert); err != nil {
		t.Fatal(err)
	}
	s.Kill()
	err := pub.Publish(t.Context(), alert)
	if err == nil || errors.Is(err, stream.ErrFull) || errors.Is(err, stream.ErrMalformed) {
		t.Fatalf("without Redis: got %v, want an error to try again after", err)
	}
	s.Restart()
	eventually(t, "published after the outage", func() bool { return pub.Publish(t.Context(), alert) == nil })
	all := entries(t, rdb, "h1")
	if len(all) < 2 {
		t.Errorf("%d entries, want the one before and the one after", len(all))
	}
	for _, e := range all {
		if e.Values["id"] != "a" {
			t.Errorf("entry %v has another ID", e)
		}
	}
}

func TestForwardingToManyHosts(t *testing.T) {
	t.Parallel()
	rdb := redistest.Start(t).Client()
	pub := publisher(t, rdb, stream.PublisherConfig{Host: "h1", Forward: true})
	var alerts []*stream.Alert
	for i := range 1500 { // more than the publisher remembers lengths of
		alerts = append(alerts, &stream.Alert{ID: "a", Host: fmt.Sprintf("host-%d", i)})
	}
	for range 2 {
		if err := pub.Publish(t.Context(), alerts...); err != nil {
			t.Fatal(err)
		}
	}
	if n := rdb.DBSize(t.Context()).Val(); n != 1500 {
		t.Errorf("%d streams, want 1500", n)
	}
}
