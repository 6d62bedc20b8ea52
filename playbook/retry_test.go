package playbook_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"riposte/playbook"
	"riposte/stream"
	"riposte/test/redistest"
)

// hook is a web server that answers every message alike, and counts them by their paths.
func hook(t *testing.T, status int, after string) (url string, asked func(path string) int) {
	t.Helper()
	var mu sync.Mutex
	count := map[string]int{}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		mu.Lock()
		count[req.URL.Path]++
		mu.Unlock()
		w.Header().Set("Retry-After", after)
		w.WriteHeader(status)
	}))
	t.Cleanup(s.Close)
	return s.URL, func(path string) int { mu.Lock(); defer mu.Unlock(); return count[path] }
}

// What a web server refuses for good is not sent again. One that asks to be left alone for a
// year gets no more than the playbook gives: neither of the worker, nor of the alert.
func TestRetryIsThePlaybooks(t *testing.T) {
	t.Parallel()
	srv := redistest.Start(t)
	rdb := srv.Client()
	gone, askedGone := hook(t, http.StatusNotFound, "")
	busy, askedBusy := hook(t, http.StatusTooManyRequests, "31536000")
	send := func(name, url, retry string) string {
		return fmt.Sprintf("name: %[1]s\nmatch: alert.title == %[1]q\nsteps: [{name: send, action: notify, with: {channel: webhook, url: %[2]s/%[1]s}, retry: %[3]s}]\n", name, url, retry)
	}
	r := newReplica(t, srv, "h1-1-a", t.TempDir(), send("gone", gone, "{attempts: 100, initial: 1ms}"), func(cfg *playbook.Config) {
		cfg.Concurrency = 1
		cfg.Playbooks = append(cfg.Playbooks, decode(t, send("short", busy, "{attempts: 3, initial: 1ms, max: 1ms}"), send("long", busy, "{attempts: 3, initial: 1ms, max: 1h}")+"expires: 4s\n")...)
	})
	r.start()
	publish(t, rdb, `{"id":"a-long","title":"long"}`)
	until(t, "the server is busy", func() bool { return askedBusy("/long") > 0 })
	for _, c := range []struct {
		title, outcome, reason string
		attempts               int
		asked                  func(string) int
	}{
		{"gone", "failed", "HTTP status 404; it would be answered the same again", 1, askedGone},
		{"short", "failed", "after 3 attempts: ", 3, askedBusy},
		{"long", "expired", "it was begun, is not in place, and is too old to be repeated", 2, nil}, // two: one and a look
	} {
		if c.title != "long" {
			publish(t, rdb, fmt.Sprintf(`{"id":"a-%s","title":"%[1]s"}`, c.title))
		}
		_, b := settled(t, rdb, stream.AlertID("a-"+c.title))
		if s := b.Steps[0]; s.Outcome != c.outcome || !strings.Contains(s.Reason, c.reason) || s.Attempts != c.attempts {
			t.Errorf("%s: %s after %d attempts: %s", c.title, s.Outcome, s.Attempts, s.Reason)
		}
		if c.asked != nil && c.asked("/"+c.title) != c.attempts {
			t.Errorf("%s: asked %d times", c.title, c.asked("/"+c.title))
		}
	}
	if n := askedBusy("/long"); n != 1 {
		t.Errorf("long: asked %d times", n)
	}
}
