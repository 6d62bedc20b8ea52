package action_test

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode"

	"riposte/playbook/action"
	"riposte/stream"
)

func logEnv(out *bytes.Buffer) action.Env {
	return action.Env{Key: "h1/containment/a-1/default/log", AlertID: "a-1", Out: out}
}

func TestLogLine(t *testing.T) {
	a, err := stream.Decode([]byte(`{"id":"a-1","level":"HIGH","title":"偵測到\u001b[2J\u009b31m\u202e\u007f <x>\n","rule":{"id":"r1","name":"n"},"actionable_pid":4711,"source_ip":"198.51.100.2","details":{"a":1}}`), "1-0")
	if err != nil {
		t.Fatal(err)
	}
	kind, _ := action.Lookup("log")
	raw, err := json.Marshal(kind.Spec().Resolve(a, action.Seen{}))
	if err != nil {
		t.Fatal(err)
	}
	a.Title, a.Level = "changed", "LOW" // what was planned is what is logged
	effect, class, err := action.Decode("log", raw)
	if err != nil || class != action.Idempotent {
		t.Fatal(class, err)
	}
	var out bytes.Buffer
	before := time.Now().Add(-time.Second)
	for range 2 { // never in place: a repetition is a second line under one key
		if _, inPlace, err := effect.Probe(t.Context(), logEnv(&out)); inPlace || err != nil {
			t.Errorf("probe: %t, %v", inPlace, err)
		}
		r, err := effect.Apply(t.Context(), logEnv(&out))
		if err != nil || r.Outcome != action.Logged {
			t.Fatal(r, err)
		}
	}
	lines := strings.SplitAfter(out.String(), "\n")
	if len(lines) != 3 || lines[2] != "" {
		t.Fatalf("want two lines:\n%s", out.String())
	}
	for _, r := range strings.TrimSuffix(lines[0], "\n") {
		if !unicode.IsPrint(r) {
			t.Errorf("%U reaches the terminal: %q", r, lines[0])
		}
	}
	if !strings.Contains(lines[0], "偵測到") {
		t.Errorf("a title that anybody may read is escaped: %s", lines[0])
	}
	var got map[string]any
	if err := json.Unmarshal([]byte(lines[0]), &got); err != nil {
		t.Fatal(err)
	}
	when, err := time.Parse(time.RFC3339Nano, got["time"].(string))
	if err != nil || when.Before(before) || when.After(time.Now()) {
		t.Errorf("time %v, %v", when, err)
	}
	delete(got, "time")
	want := map[string]any{"key": "h1/containment/a-1/default/log", "alert": "a-1", "host": "h1", "level": "HIGH",
		"title": "偵測到\x1b[2J\u009b31m\u202e\x7f <x>\n", "rule": "r1", "pid": 4711.0, "source_ip": "198.51.100.2"}
	wanted, _ := json.Marshal(want)
	if g, _ := json.Marshal(got); string(g) != string(wanted) {
		t.Errorf("got %s\nwant %s", g, wanted)
	}
}

func TestLogBounds(t *testing.T) {
	a := &stream.Alert{Title: strings.Repeat("雪", 1<<18), Level: strings.Repeat("x", 1<<18), SourceIP: strings.Repeat("1", 1<<18)}
	var out bytes.Buffer
	if _, err := new(action.LogSpec).Resolve(a, action.Seen{}).Apply(t.Context(), logEnv(&out)); err != nil {
		t.Fatal(err)
	}
	if out.Len() > 4096 || !strings.Contains(out.String(), "雪...") {
		t.Errorf("%d bytes", out.Len())
	}
}

func TestLogFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "alerts.ndjson")
	var wg sync.WaitGroup
	title := strings.Repeat("x", 1000)
	for range 20 {
		wg.Go(func() {
			e := &action.Log{Path: path, Title: title}
			if r, err := e.Apply(t.Context(), logEnv(nil)); err != nil || r.Reason != path {
				t.Error(r, err)
			}
		})
	}
	wg.Wait()
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSuffix(string(raw), "\n"), "\n")
	if len(lines) != 20 {
		t.Errorf("%d lines", len(lines))
	}
	for _, line := range lines {
		var got struct{ Title string }
		if err := json.Unmarshal([]byte(line), &got); err != nil || got.Title != title {
			t.Errorf("%v: %s", err, line)
		}
	}
	st, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if runtime.GOOS != "windows" && st.Mode() != 0o600 {
		t.Errorf("mode %v", st.Mode())
	}
}

// Where the last line was cut short, one of the next writers ends it, and one only.
func TestLogAfterCutLine(t *testing.T) {
	for range 50 {
		path := filepath.Join(t.TempDir(), "alerts.ndjson")
		const cut = `{"time":"2026-01-02T03:04:05`
		if err := os.WriteFile(path, []byte(cut), 0o600); err != nil {
			t.Fatal(err)
		}
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() {
				if _, err := (&action.Log{Path: path}).Apply(t.Context(), logEnv(nil)); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if lines := logLines(t, path); len(lines) != 9 || lines[0] != cut {
			t.Fatalf("want the line that was cut and 8 more:\n%s", strings.Join(lines, "\n"))
		}
	}
}

// logLines are the lines of a log, of which all but the first must be whole.
func logLines(t *testing.T, path string) []string {
	t.Helper()
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSuffix(string(raw), "\n"), "\n")
	for i, line := range lines {
		if !json.Valid([]byte(line)) && i > 0 {
			t.Errorf("line %d of %d: %q", i+1, len(lines), line)
		}
	}
	return lines
}

// A log is rotated by renaming it: nobody has to tell anybody.
func TestLogRotated(t *testing.T) {
	path := filepath.Join(t.TempDir(), "alerts.ndjson")
	write := func(title string) {
		t.Helper()
		if _, err := (&action.Log{Path: path, Title: title}).Apply(t.Context(), logEnv(nil)); err != nil {
			t.Fatal(err)
		}
	}
	write("before")
	if err := os.Rename(path, path+".1"); err != nil {
		t.Fatal(err)
	}
	write("after")
	write("after")
	for file, want := range map[string]string{path + ".1": "before", path: "after after"} {
		var titles []string
		for _, line := range logLines(t, file) {
			var got struct{ Title string }
			if err := json.Unmarshal([]byte(line), &got); err != nil {
				t.Error(err)
			}
			titles = append(titles, got.Title)
		}
		if got := strings.Join(titles, " "); got != want {
			t.Errorf("%s: %s, want %s", filepath.Base(file), got, want)
		}
	}
}

func TestLogRefusesLinks(t *testing.T) {
	dir := t.TempDir()
	target, link := filepath.Join(dir, "target"), filepath.Join(dir, "link")
	if err := os.Symlink(target, link); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{link, dir} {
		r, err := (&action.Log{Path: path}).Apply(t.Context(), logEnv(nil))
		if reason, ok := action.Reason(err); !ok || !strings.Contains(reason, "not a regular file") || r != (action.Receipt{}) {
			t.Errorf("%s: %v, %v", path, r, err)
		}
	}
	if _, err := os.Lstat(target); err == nil {
		t.Error("written through the link")
	}
	if _, err := (&action.Log{Path: filepath.Join(dir, "no", "such")}).Apply(t.Context(), logEnv(nil)); err == nil {
		t.Error("a missing directory is a success")
	}
}
