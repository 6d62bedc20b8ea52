package stream_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"riposte/stream"
)

func decode(t *testing.T, raw string) *stream.Alert {
	t.Helper()
	a, err := stream.Decode([]byte(raw), "1-1")
	if err != nil {
		t.Fatalf("Decode(%.200s): %v", raw, err)
	}
	return a
}

// What the original Python detector writes: json.dumps with \u escapes, no ID, no host, a
// local time without a zone.
const fromPython = `{"level": "HIGH", "title": "\u53ef\u7591\u8fdb\u7a0b\u94fe", "description": "d", "details": {"n": 1.50}, ` +
	`"timestamp": "2026-03-01T10:20:30.123456", "actionable_pid": 4711, "source_ip": "203.0.113.9"}`

func TestDecodeOriginalFields(t *testing.T) {
	a := decode(t, fromPython)
	if a.Level != "HIGH" || a.Title != "可疑进程链" || a.Description != "d" || a.SourceIP != "203.0.113.9" || string(a.Details) != `{"n": 1.50}` {
		t.Errorf("fields: %+v", a)
	}
	if pid, ok := a.PID(); !ok || pid != 4711 {
		t.Errorf("PID() = %d, %v", pid, ok)
	}
	if a.Host != "" || a.Given != "" {
		t.Errorf("host %q and given ID %q were made up", a.Host, a.Given)
	}
	if id, err := uuid.Parse(string(a.ID)); err != nil || id.Version() != 5 {
		t.Errorf("ID %q is no UUIDv5", a.ID)
	}
}

func TestDerivedIDIsTheContents(t *testing.T) {
	id := decode(t, fromPython).ID
	same := []string{
		`{"title":"可疑进程链","level":"HIGH","source_ip":"203.0.113.9","actionable_pid":4711,"timestamp":"2026-03-01T10:20:30.123456","details":{"n":1.50},"description":"d"}`,
		"\n\t{\"title\" : \"\\u53EF疑进程链\",\r\n \"level\":\"HIGH\",\"source_ip\":\"203.0.113.9\",\"actionable_pid\":4711,\"timestamp\":\"2026-03-01T10:20:30.123456\",\"details\":{\"n\":1.50},\"description\":\"d\"}\n",
	}
	for _, raw := range same {
		if got := decode(t, raw).ID; got != id {
			t.Errorf("%s\nhas ID %s, want %s", raw, got, id)
		}
	}
	other := []string{
		strings.Replace(fromPython, "4711", "4712", 1),
		strings.Replace(fromPython, "1.50", "1.5", 1), // numbers count as they are written
		strings.Replace(fromPython, "30.123456", "30.123457", 1),
		strings.Replace(fromPython, `"level"`, `"x": null, "level"`, 1),
	}
	for _, raw := range other {
		if decode(t, raw).ID == id {
			t.Errorf("%s\nhas the ID of another alert", raw)
		}
	}
	if big := `{"timestamp":"t","n":9007199254740993}`; decode(t, big).ID == decode(t, strings.Replace(big, "3}", "2}", 1)).ID {
		t.Error("large numbers are rounded before the ID is derived")
	}
}

// The ID must not change from one release to the next, or a copy published before an
// update and one after it are two alerts.
func TestDerivedIDIsStable(t *testing.T) {
	const want = "5995e96c-3bad-5782-9482-ae481f8382f3"
	if got := decode(t, fromPython).ID; got != want {
		t.Errorf("ID %s, want %s", got, want)
	}
}

func TestEntryIDCountsWithoutTimestamp(t *testing.T) {
	raw := []byte(`{"level":"HIGH","actionable_pid":4711}`)
	one, err1 := stream.Decode(raw, "1-1")
	again, err2 := stream.Decode(raw, "1-1")
	two, err3 := stream.Decode(raw, "1-2")
	if err := errors.Join(err1, err2, err3); err != nil {
		t.Fatal(err)
	}
	if one.ID != again.ID {
		t.Error("the same entry has two IDs")
	}
	if one.ID == two.ID {
		t.Error("a second attack passes for a copy of the first")
	}
	raw = []byte(`{"level":"HIGH","timestamp":"2026-03-01T10:20:30","actionable_pid":4711}`)
	one, err1 = stream.Decode(raw, "1-1")
	two, err2 = stream.Decode(raw, "1-2")
	if err := errors.Join(err1, err2); err != nil {
		t.Fatal(err)
	}
	if one.ID != two.ID {
		t.Error("a copy with a timestamp passes for a second attack")
	}
}

func TestDecodeRefuses(t *testing.T) {
	deep := func(n int) string { return `{"details":` + strings.Repeat("[", n) + strings.Repeat("]", n) + `}` }
	for name, raw := range map[string]string{
		"nothing":            "",
		"text":               "attack!",
		"null":               "null",
		"number":             "5",
		"array":              `[{"level":"HIGH"}]`,
		"truncated":          fromPython[:60],
		"two documents":      `{"level":"HIGH"}{"level":"LOW"}`,
		"trailing garbage":   `{"level":"HIGH"} x`,
		"deep":               deep(10_000),
		"deep, not closed":   strings.Repeat("[", 10_000),
		"one too deep":       deep(stream.MaxAlertDepth),
		"too large":          `{"title":"` + strings.Repeat("x", 10<<20) + `"}`,
		"one byte too large": `{"title":"` + strings.Repeat("x", stream.MaxAlertBytes-11) + `"}`,
		"PID as string":      `{"actionable_pid":"1234"}`,
		"PID with fraction":  `{"actionable_pid":1234.5}`,
		"PID beyond int64":   `{"actionable_pid":9223372036854775808}`,
		"PID as array":       `{"actionable_pid":[1234]}`,
		"level as number":    `{"level":3}`,
		"rule as string":     `{"rule":"r1"}`,
		"process as array":   `{"process":[]}`,
		"process PID":        `{"process":{"pid":"12"}}`,
		"negative ticks":     `{"process":{"pid":12,"start_ticks":-1}}`,
		"parent":             `{"process":{"pid":12,"parent":7}}`,
		"tags":               `{"rule":{"tags":"t"}}`,
		"ID as number":       `{"id":7}`,
		"ID with space":      `{"id":"a b"}`,
		"ID with newline":    `{"id":"a\n"}`,
		"ID with glob":       `{"id":"*"}`,
		"ID with tilde":      `{"id":"a~0123456789abcdef"}`,
		"ID too long":        `{"id":"` + strings.Repeat("a", 129) + `"}`,
		"host with brace":    `{"host":"a}:ledger:{b"}`,
		"host with space":    `{"host":"web 1"}`,
		"host too long":      `{"host":"` + strings.Repeat("a", 254) + `"}`,
	} {
		if a, err := stream.Decode([]byte(raw), "1-1"); !errors.Is(err, stream.ErrMalformed) {
			t.Errorf("%s: got %+v, %v; want ErrMalformed", name, a, err)
		} else if len(err.Error()) > 400 {
			t.Errorf("%s: the error has %d bytes", name, len(err.Error()))
		}
	}
}

func TestDecodeAccepts(t *testing.T) {
	for name, raw := range map[string]string{
		"empty":            `{}`,
		"as deep as can":   `{"details":` + strings.Repeat("[", 31) + strings.Repeat("]", 31) + `}`,
		"brackets in text": `{"title":"` + strings.Repeat(`[{\"\\`, 100) + `"}`,
		"as large as can":  `{"title":"` + strings.Repeat("x", stream.MaxAlertBytes-12) + `"}`,
		"lone surrogate":   `{"title":"\udcff"}`,
		"nulls":            `{"id":null,"host":null,"actionable_pid":null,"process":null,"rule":null,"details":null}`,
		"longest ID":       `{"id":"` + strings.Repeat("a", 128) + `"}`,
		"PID 0":            `{"actionable_pid":0}`,
		"PID -1":           `{"actionable_pid":-1}`,
		"PID 2^31":         `{"actionable_pid":2147483648}`,
	} {
		if _, err := stream.Decode([]byte(raw), "1-1"); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestPID(t *testing.T) {
	for raw, want := range map[string]int64{
		`{"actionable_pid":0}`:                        0,
		`{"actionable_pid":-1}`:                       -1,
		`{"actionable_pid":7,"process":{"pid":8}}`:    7,
		`{"process":{"pid":8}}`:                       8,
		`{"process":{"pid":8},"actionable_pid":null}`: 8,
	} {
		if pid, ok := decode(t, raw).PID(); !ok || pid != want {
			t.Errorf("%s: PID() = %d, %v", raw, pid, ok)
		}
	}
	for _, raw := range []string{`{}`, `{"process":{"name":"x"}}`, `{"Actionable_PID":7}`, `{"process":{"PID":7}}`} {
		if pid, ok := decode(t, raw).PID(); ok {
			t.Errorf("%s: names PID %d", raw, pid)
		}
	}
}

// A second reader of the same bytes must not see another process: names count exactly, the
// last of several wins.
func TestNamesAreExact(t *testing.T) {
	a := decode(t, `{"process":{"pid":7,"PID":8,"Pid":9,"parent":{"pid":5,"PID":6}},"rule":{"id":"a","ID":"b"},"HOST":"other"}`)
	if a.Process.PID != 7 || a.Process.Parent.PID != 5 || a.Rule.ID != "a" || a.Host != "" {
		t.Errorf("got process %d, parent %d, rule %s, host %q", a.Process.PID, a.Process.Parent.PID, a.Rule.ID, a.Host)
	}
	if a := decode(t, `{"actionable_pid":1,"actionable_pid":7}`); *a.ActionablePID != 7 {
		t.Errorf("got %d of two", *a.ActionablePID)
	}
}

func TestUnknownFieldsAreKept(t *testing.T) {
	a := decode(t, `{"id":"a","zone":{"dmz":[1,2]},"level":"HIGH","Level":"x"}`)
	raw, err := json.Marshal(a)
	if err != nil {
		t.Fatal(err)
	}
	if want := `{"Level":"x","id":"a","level":"HIGH","zone":{"dmz":[1,2]}}`; string(raw) != want {
		t.Errorf("got %s, want %s", raw, want)
	}
}

func TestMarshalRoundTrip(t *testing.T) {
	full := `{"actionable_pid":7,"description":"d","details":[1],"host":"h","id":"i","level":"HIGH",` +
		`"process":{"pid":7,"start_ticks":18446744073709551615,"boot_id":"b","pid_ns":4026531836,"name":"n","exe":"/e","cmdline":"c","uid":0,` +
		`"parent":{"pid":1,"start_ticks":2,"name":"p","exe":"/p"}},` +
		`"rule":{"id":"r","name":"rn","author":"a","tags":["t"]},"source":"s","source_ip":"::1","timestamp":"t","title":"<&>"}`
	a := decode(t, full)
	raw, err := json.Marshal(a)
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.NewReplacer(`\u003c`, "<", `\u003e`, ">", `\u0026`, "&").Replace(string(raw)); got != full {
		t.Errorf("got  %s\nwant %s", got, full)
	}
}

func TestDigest(t *testing.T) {
	base := `{"id":"i","level":"HIGH","title":"t","timestamp":"2026-03-01T10:20:30","actionable_pid":7,"source_ip":"1.2.3.4","host":"h",` +
		`"rule":{"id":"r"},"process":{"pid":7,"start_ticks":12,"boot_id":"3b","pid_ns":5,"name":"n","exe":"/e"}}`
	digest := decode(t, base).Digest()
	if len(digest) != 16 {
		t.Errorf("digest %q", digest)
	}
	for _, same := range [][2]string{{`"title":"t"`, `"title":"u"`}, {"10:20:30", "10:20:31"}, {`"id":"i"`, `"id":"j"`}} {
		if got := decode(t, strings.Replace(base, same[0], same[1], 1)).Digest(); got != digest {
			t.Errorf("%s changes the digest", same[1])
		}
	}
	seen := map[string]string{digest: base}
	for _, other := range [][2]string{
		{`"actionable_pid":7`, `"actionable_pid":8`}, {`"pid":7`, `"pid":8`},
		{`"start_ticks":12,"boot_id":"3b"`, `"start_ticks":1,"boot_id":"23b"`}, // must not run into each other
		{`"start_ticks":12`, `"start_ticks":13`}, {`"boot_id":"3b"`, `"boot_id":"3c"`}, {`"pid_ns":5`, `"pid_ns":6`},
		{`"name":"n"`, `"name":"m"`}, {`"exe":"/e"`, `"exe":"/f"`},
		{"1.2.3.4", "1.2.3.5"}, {`"host":"h"`, `"host":"g"`}, {`"rule":{"id":"r"}`, `"rule":{"id":"s"}`},
		{`"level":"HIGH"`, `"level":"LOW"`},
		{`"source_ip":"1.2.3.4","host":"h","rule":{"id":"r"}`, `"source_ip":"1.2.3.4\u0000h","rule":{"id":"r"}`},
	} {
		raw := strings.Replace(base, other[0], other[1], 1)
		if raw == base && !strings.Contains(other[0], "source_ip") {
			t.Fatalf("%s is not in the alert", other[0])
		}
		d := decode(t, raw).Digest()
		if before, ok := seen[d]; ok && raw != base {
			t.Errorf("%s has the digest of %s", raw, before)
		}
		seen[d] = raw
	}
}

func TestWhen(t *testing.T) {
	shanghai, err := time.LoadLocation("Asia/Shanghai")
	if err != nil {
		t.Fatal(err)
	}
	at := func(s string) time.Time {
		v, err := time.Parse(time.RFC3339Nano, s)
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	for _, c := range []struct {
		timestamp, from string
		width           time.Duration
	}{
		{"2026-03-01T10:20:30Z", "2026-03-01T10:20:30Z", time.Second},
		{"2026-03-01T10:20:30.5+02:00", "2026-03-01T08:20:30.5Z", 100 * time.Millisecond},
		{"2026-03-01T10:20:30", "2026-03-01T02:20:30Z", time.Second},
		{"2026-03-01T10:20:30.123456", "2026-03-01T02:20:30.123456Z", time.Microsecond},
		{"2026-03-01 10:20:30", "2026-03-01T02:20:30Z", time.Second},
		{"2026-03-01 10:20:30.25", "2026-03-01T02:20:30.25Z", 10 * time.Millisecond},
		{"2026-03-01 10:20:30+00:00", "2026-03-01T10:20:30Z", time.Second},
		{"2026-03-01T10:20:30,125", "2026-03-01T02:20:30.125Z", time.Millisecond},
		{"2026-03-01T10:20:30.123456789Z", "2026-03-01T10:20:30.123456789Z", time.Nanosecond},
		{"2026-03-01T10:20:30.12345678912Z", "2026-03-01T10:20:30.123456789Z", time.Nanosecond},
	} {
		from, until, err := (&stream.Alert{Timestamp: c.timestamp}).When(shanghai)
		if err != nil || !from.Equal(at(c.from)) || until.Sub(from) != c.width {
			t.Errorf("%s: %v to %v, %v; want %s and %v", c.timestamp, from, until, err, c.from, c.width)
		}
	}
	for _, bad := range []string{"", "now", "2026-03-01", "1772360430", "2026-13-01T00:00:00", "2026-03-01T25:00:00", "2026-03-01T10:20:30 Europe/Berlin", strings.Repeat("9", 1000)} {
		if from, _, err := (&stream.Alert{Timestamp: bad}).When(shanghai); err == nil {
			t.Errorf("%q is read as %v", bad, from)
		} else if len(err.Error()) > 300 {
			t.Errorf("the error about %.20q has %d bytes", bad, len(err.Error()))
		}
	}
}

func FuzzDecode(f *testing.F) {
	f.Add(fromPython)
	f.Add(`{"id":"i","host":"h","process":{"pid":1,"parent":{"pid":2}},"rule":{"tags":["a"]},"x":[1e400]}`)
	f.Add(`{"title":"\ud800\u0000<\/","actionable_pid":-0,"Level":1,"level":"a","level":"b"}`)
	f.Add(strings.Repeat("[", 40))
	f.Add(`{"details":{"a":{"b":[[[[]]]]}}}`)
	f.Add("\xff{\"\x00")
	f.Fuzz(func(t *testing.T, raw string) {
		a, err := stream.Decode([]byte(raw), "1-1")
		if err != nil {
			if !errors.Is(err, stream.ErrMalformed) {
				t.Fatalf("not ErrMalformed: %v", err)
			}
			return
		}
		if a.Given != "" {
			if _, err := stream.ParseAlertID(string(a.ID)); err != nil || a.Given != a.ID {
				t.Fatalf("given ID %q, ID %q", a.Given, a.ID)
			}
		}
		_, _, _ = a.When(time.UTC)
		// What is written again means the same.
		again, err := json.Marshal(a)
		if err != nil {
			t.Fatalf("Marshal: %v", err)
		}
		b, err := stream.Decode(again, "1-1")
		if err != nil {
			if len(again) > stream.MaxAlertBytes {
				return // escapes made it longer
			}
			t.Fatalf("decode %s again: %v", again, err)
		}
		if a.ID != b.ID || a.Digest() != b.Digest() || !slices.Equal(slices.Sorted(maps.Keys(a.Extra)), slices.Sorted(maps.Keys(b.Extra))) {
			t.Fatalf("%s\nbecame %s", fmt.Sprintf("%+v", a), again)
		}
	})
}
