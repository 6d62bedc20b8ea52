package e2e_test

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"testing"
)

// TestBridgeBadInput publishes on the channel what cannot be an alert of this host: each
// ends where an operator sees it, with all there is to know about it. Nothing is touched,
// for the responder only observes.
func TestBridgeBadInput(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.responder("observe")
	bridge := s.bridge()
	messages := []struct{ what, raw, reason string }{
		{"not JSON", "format c:", "malformed alert: not a JSON object"},
		{"nothing", "", "malformed alert: not a JSON object"},
		{"10 MB", `{"level":"HIGH","title":"` + strings.Repeat("A", 10<<20) + `"}`, "bytes, more than 1048576"},
		{"depth 10,000", `{"details":` + strings.Repeat("[", 10_000) + strings.Repeat("]", 10_000) + `}`, "nested deeper than 32"},
		{"a PID as text", `{"level":"HIGH","actionable_pid":"1234"}`, `field "actionable_pid"`},
		{"a bad ID", `{"id":"a b","level":"HIGH","actionable_pid":0}`, `alert ID "a b"`},
		{"another host's", `{"host":"h2","level":"HIGH","actionable_pid":0}`, "alert for another host: it names h2, this is h1; --forward sends it there"},
	}
	for _, m := range messages {
		if n, err := s.rdb.Publish(t.Context(), "high_severity_alerts", m.raw).Result(); n != 1 || err != nil {
			t.Fatalf("%d are subscribed, %v", n, err)
		}
	}
	s.drained(int64(len(messages)))
	letters := s.deadLetters()
	for _, m := range messages {
		sum := sha256.Sum256([]byte(m.raw))
		found := false
		for _, l := range letters {
			if l.sha256 != hex.EncodeToString(sum[:]) {
				continue
			}
			found = true
			if !strings.Contains(l.reason, m.reason) || l.length != len(m.raw) || l.raw != m.raw[:min(len(m.raw), 64<<10)] {
				t.Errorf("%s: reason %s, length %d; want %s, %d", m.what, l.reason, l.length, m.reason, len(m.raw))
			}
		}
		if !found {
			t.Errorf("%s: no dead letter has its SHA-256", m.what)
		}
	}
	if len(letters) != len(messages) {
		t.Errorf("%d dead letters of %d messages", len(letters), len(messages))
	}

	// It goes on, and an alert without a host is of the bridge's.
	s.rdb.Publish(t.Context(), "high_severity_alerts", `{"id":"after-all-that","level":"HIGH","actionable_pid":0}`)
	s.drained(int64(len(messages)) + 1)
	if e := s.entry("after-all-that"); e.Host != "h1" || !strings.HasPrefix(e.outcomes(), "terminate refused") {
		t.Errorf("%+v", e)
	}
	bridge.stop()
}

// TestBridgeForward sends other hosts' alerts where they belong.
func TestBridgeForward(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.bridge("--forward", "--channel", "alarms")
	const raw = `{"host":"h2","level":"HIGH","actionable_pid":4711,"timestamp":"2026-01-02T03:04:05"}`
	s.rdb.Publish(t.Context(), "alarms", raw)
	var found []string
	until(t, func() string { return fmt.Sprintf("is in the stream of h2: %v", found) }, func() bool {
		all, err := s.rdb.XRange(t.Context(), "riposte:{h2}:alerts", "-", "+").Result()
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range all {
			found = append(found, m.Values["alert"].(string))
		}
		return len(found) > 0
	})
	if !slices.Equal(found, []string{raw}) || s.rdb.Exists(t.Context(), host.AlertsKey()).Val() != 0 {
		t.Errorf("%v", found)
	}
}
