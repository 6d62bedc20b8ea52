package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"riposte/stream"
	"riposte/test/redistest"
)

func TestStatus(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t)
	rdb := s.Client()
	ctx := t.Context()

	if r := cli(t, "", "status", "--redis", s.URL); r.code != 0 || r.out != "" || !strings.Contains(r.err, "No host is known") {
		t.Errorf("empty: exit %d, stdout %q, stderr %q", r.code, r.out, r.err)
	}
	if r := cli(t, "", "status", "--redis", s.URL, "-o", "json"); r.code != 0 || strings.TrimSpace(r.out) != "[]" {
		t.Errorf("empty: exit %d, stdout %q", r.code, r.out)
	}

	for _, h := range []stream.Host{"h1", "h2"} {
		if err := rdb.XAdd(ctx, &redis.XAddArgs{Stream: h.AlertsKey(), Values: []any{"alert", "{}"}}).Err(); err != nil {
			t.Fatal(err)
		}
	}
	if err := rdb.XGroupCreate(ctx, "riposte:{h1}:alerts", "containment", "0").Err(); err != nil {
		t.Fatal(err)
	}
	if err := rdb.XAdd(ctx, &redis.XAddArgs{Stream: "riposte:{h1}:dead:containment", Values: []any{"reason", "\x1b[2J"}}).Err(); err != nil {
		t.Fatal(err)
	}
	if err := rdb.Set(ctx, "riposte:{h1}:ledger:containment:a", "done 1\n{\"unresolved\":1}", 0).Err(); err != nil {
		t.Fatal(err)
	}
	gate := fmt.Sprintf("g1 %d unfenced containment", time.Now().Add(time.Hour).UnixMicro())
	if err := rdb.HSet(ctx, "riposte:{h1}:control", "gate:h1-1-a", gate).Err(); err != nil {
		t.Fatal(err)
	}
	r := cli(t, "", "status", "--redis", s.URL)
	for _, says := range []string{
		"host h1: 1 alerts in the stream", "host h2: 1 alerts in the stream", "UNREAD", "containment  1", "done 1",
		"1 dead letter, the last because: \\u001b[2J", "no responder has asked for work", "- UNFENCED: h1-1-a may", "- containment: UNKNOWN: 1 step may or may not", "no responder has ever read it",
	} {
		if !strings.Contains(r.out, says) {
			t.Errorf("stdout lacks %q:\n%s", says, r.out)
		}
	}
	if r.code != 0 || strings.Contains(r.out, "\x1b") {
		t.Errorf("exit %d, stdout %q", r.code, r.out)
	}
	for _, args := range [][]string{{"status", "--host", "h2"}, {"RIPOSTE_HOST=h2", "status"}} {
		if r := cli(t, "", append(args, "--redis", s.URL)...); r.code != 0 || strings.Contains(r.out, "h1") || !strings.Contains(r.out, "host h2") {
			t.Errorf("%v: exit %d, stdout %q", args, r.code, r.out)
		}
	}
	var all []stream.HostStatus
	r = cli(t, "", "status", "--redis", s.URL, "--host", "h1", "-o", "json")
	if err := json.Unmarshal([]byte(r.out), &all); err != nil || len(all) != 1 || all[0].Host != "h1" || *all[0].Groups[0].Lag != 1 {
		t.Errorf("JSON: %v\n%s", err, r.out)
	}
	if r := cli(t, "", "status", "--redis", s.URL, "--host", "web-9"); r.code != 1 || !strings.Contains(r.err, "known are h1, h2") {
		t.Errorf("unknown host: exit %d, stderr %q", r.code, r.err)
	}
}

// The bridge as its user runs it: ready, an alert, an end by signal.
func TestBridgeCommand(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t)
	rdb := s.Client()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var errw lockedBuffer
	done := make(chan int, 1)
	go func() {
		none := func(string) (string, bool) { return "", false }
		done <- run(ctx, []string{"bridge", "--redis", s.URL, "--host", "h1", "--channel", "ch"}, none, strings.NewReader(""), &bytes.Buffer{}, &errw)
	}()
	until := func(what string, is func() bool) {
		t.Helper()
		tick := time.NewTicker(5 * time.Millisecond)
		defer tick.Stop()
		limit := time.After(10 * time.Second)
		for !is() {
			select {
			case <-tick.C:
			case <-limit:
				t.Fatalf("never happened: %s; stderr %s", what, errw.String())
			}
		}
	}
	until("ready", func() bool { return strings.Contains(errw.String(), "bridge ready") })
	if n := rdb.Publish(ctx, "ch", pythonAlert).Val(); n != 1 {
		t.Fatalf("%d subscribers", n)
	}
	until("the alert is in the stream", func() bool { return rdb.XLen(ctx, "riposte:{h1}:alerts").Val() == 1 })
	cancel()
	select {
	case code := <-done:
		if code != 0 {
			t.Errorf("exit %d after being told to stop; stderr %s", code, errw.String())
		}
	case <-time.After(10 * time.Second):
		t.Error("the bridge does not stop")
	}
}

type lockedBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}
