package main

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"riposte/stream"
	"riposte/test/redistest"
)

// What the original Python detector writes.
const pythonAlert = `{"level": "HIGH", "title": "\u53ef\u7591\u8fdb\u7a0b\u94fe", "timestamp": "2026-03-01T10:20:30.123456", "actionable_pid": 4711}`

func TestPublish(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t)
	rdb := s.Client()
	dir := t.TempDir()
	file := filepath.Join(dir, "alerts.json")
	content := pythonAlert + "\nnonsense\n[" + pythonAlert + ",\n{\"host\":\"h2\"}]\n{\"actionable_pid\":\"1234\"}\n" + `{"title":"` + strings.Repeat("x", 10<<20) + `"}` + "\n{\"id\":\"last\"}"
	if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	want, err := stream.Decode([]byte(pythonAlert), "")
	if err != nil {
		t.Fatal(err)
	}

	r := cli(t, "", "publish", "--redis", s.URL, "--host", "h1", file)
	if r.code != 1 {
		t.Errorf("exit %d, want 1: some were not published", r.code)
	}
	for _, says := range []string{file + ":2: ", file + ":4: ", file + ":5: ", file + ":6: ", "10485772 bytes", "4 not published, 3 published"} {
		if !strings.Contains(r.err, says) {
			t.Errorf("stderr lacks %q:\n%s", says, r.err)
		}
	}
	if n := strings.Count(r.out, string(want.ID)); n != 2 || !strings.Contains(r.out, "last") || strings.Count(r.out, "\n") != 4 {
		t.Errorf("stdout:\n%s", r.out)
	}
	all, err := rdb.XRange(t.Context(), "riposte:{h1}:alerts", "-", "+").Result()
	if err != nil || len(all) != 3 || all[0].Values["alert"] != pythonAlert || all[0].Values["id"] != string(want.ID) || all[1].Values["id"] != string(want.ID) {
		t.Errorf("stream: %v, %v", all, err)
	}

	r = cli(t, "{\"id\":\"a\",\"host\":\"h2\"}\n", "RIPOSTE_HOST=h1", "publish", "--redis", s.URL, "--forward", "-o", "json")
	var results []publishResult
	if err := json.Unmarshal([]byte(r.out), &results); err != nil || r.code != 0 || len(results) != 1 || results[0] != (publishResult{ID: "a", File: "-", Line: 1}) {
		t.Errorf("exit %d, stdout %s, stderr %s", r.code, r.out, r.err)
	}
	if n := rdb.XLen(t.Context(), "riposte:{h2}:alerts").Val(); n != 1 {
		t.Errorf("%d entries were forwarded, want 1", n)
	}

	r = cli(t, "", "publish", "--redis", s.URL, "--host", "h1", "-o", "json")
	if r.code != 1 || strings.TrimSpace(r.out) != "[]" || !strings.Contains(r.err, "nothing to publish") {
		t.Errorf("nothing: exit %d, stdout %q, stderr %q", r.code, r.out, r.err)
	}
	r = cli(t, pythonAlert, "publish", "--redis", s.URL, "--host", "h1", "/does/not/exist", "-")
	if r.code != 1 || !strings.Contains(r.err, "/does/not/exist") || !strings.Contains(r.out, string(want.ID)) {
		t.Errorf("a missing file: exit %d, stdout %q, stderr %q", r.code, r.out, r.err)
	}
}

// Where Redis takes nothing, the command stops and says what was done.
func TestPublishStopsWhereRedisDoes(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t, "--maxmemory", "1", "--maxmemory-policy", "noeviction")
	r := cli(t, "{}\n{}\n", "publish", "--redis", s.URL, "--host", "h1")
	if r.code != 1 || strings.Count(r.err, "OOM") != 1 || !strings.Contains(r.err, "-:1: ") || !strings.Contains(r.err, "0 alerts were published") {
		t.Errorf("exit %d, stderr %q", r.code, r.err)
	}
}

// Whatever publishes for long watches over what it has published.
func TestPublishersPublishAgain(t *testing.T) {
	t.Parallel()
	for _, command := range []string{"publish", "bridge"} {
		t.Run(command, func(t *testing.T) {
			t.Parallel()
			s := redistest.Start(t)
			rdb := s.Client()
			in, detector := io.Pipe()
			ctx, stop := context.WithCancel(t.Context())
			defer stop()
			var code int
			var out, errw bytes.Buffer
			done := make(chan struct{})
			go func() {
				defer close(done)
				code = run(ctx, []string{command, "--redis", s.URL, "--host", "h1"}, func(string) (string, bool) { return "", false }, in, &out, &errw)
			}()
			has := func() bool { return rdb.XLen(t.Context(), "riposte:{h1}:alerts").Val() == 1 }
			if command == "publish" {
				if _, err := io.WriteString(detector, pythonAlert+"\n\n"); err != nil {
					t.Fatal(err)
				}
			} else {
				await(t, "the bridge has subscribed", func() bool {
					return rdb.Publish(t.Context(), "high_severity_alerts", pythonAlert).Val() == 1
				})
			}
			await(t, "the alert is in the stream", has)
			s.FlushAll()
			await(t, "the alert is in the stream again", has)
			stop()
			detector.Close()
			<-done
			if code != 0 || !strings.Contains(errw.String(), "published again") {
				t.Errorf("exit %d, stderr %s", code, errw.String())
			}
		})
	}
}

// await waits until something is true, or fails the test after 20 s.
func await(t *testing.T, what string, is func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !is() {
		select {
		case <-ctx.Done():
			t.Fatalf("never happened: %s", what)
		case <-tick.C:
		}
	}
}
