package playbook_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"riposte/ledger"
	"riposte/playbook"
	"riposte/stream"
	"riposte/test/redistest"
)

// timed is the last step of a plan for an alert that has some JSON as its field t.
func timed(t *testing.T, steps, said string) ledger.Step {
	t.Helper()
	book := decode(t, "name: p\nmatch: \"true\"\nsteps:\n"+steps)
	planner := &playbook.Planner{Host: host, Playbooks: book, Mode: playbook.Enforce, MaxAge: time.Hour, Zone: time.UTC}
	a, err := stream.Decode([]byte(`{"id":"x","level":"CRITICAL","source_ip":"198.51.100.9","actionable_pid":4711,"t":`+said+`}`), "1-1")
	if err != nil {
		t.Fatal(err)
	}
	body := planner.Plan(a, time.Now(), time.Now())
	return body.Steps[len(body.Steps)-1]
}

// A time may be a template, too. Whatever it becomes stays within the bounds of the field and
// of the step.
func TestTemplatesInTimes(t *testing.T) {
	for field, c := range map[string]struct {
		step     string
		critical string            // what it is for an alert of that level
		becomes  map[string]string // what the plan has of what the alert says
		refused  []string
	}{
		"ttl of block_ip": {"action: block_ip, with: {ttl: TEMPLATE}", "2m",
			map[string]string{"1s": "1s", "24h": "24h", "+1h": "1h", "1h30m0s": "1h30m", "3600000ms": "1h"},
			[]string{"24h1s", "999ms", "1500ms", "0", "0s", "1µs"}},
		"ttl of isolate_host": {"action: isolate_host, with: {ttl: TEMPLATE}", "2m",
			map[string]string{"1m": "1m", "24h": "24h"},
			[]string{"59s", "25h", "0", "0s"}},
		"grace of terminate_process": {"action: terminate_process, with: {grace: TEMPLATE}, timeout: 30s", "2s",
			map[string]string{"0": "0s", "29.9s": "29.9s", "1µs": "1µs"},
			[]string{"30s", "1m", "61s", "-1ns"}}, // no longer than the timeout
	} {
		with := func(template string) string {
			return "  - {name: a, " + strings.Replace(c.step, "TEMPLATE", "'{{ "+template+" }}'", 1) + "}\n"
		}
		has := func(s ledger.Step, span string) bool {
			name, _, _ := strings.Cut(field, " ")
			return s.Verdict == "" && strings.Contains(string(s.With), fmt.Sprintf("%q:%q", name, span))
		}
		if s := timed(t, with(`alert.level == "CRITICAL" ? "`+c.critical+`" : alert.title`), "0"); !has(s, c.critical) {
			t.Errorf("%s: %s %s %s", field, s.Verdict, s.Reason, s.With)
		}
		for said, want := range c.becomes {
			if s := timed(t, with("alert.extra.t"), quoted(said)); !has(s, want) {
				t.Errorf("%s of %q: %s %s %s, want %s", field, said, s.Verdict, s.Reason, s.With, want)
			}
		}
		hostile := []string{`1`, `3600`, `1e9`, `true`, `null`, `["1h"]`, `{"ttl":"1h"}`}
		for _, said := range append(c.refused, "", " ", "1h; rm -rf /", "1h ", " 1h", "1h\n", "1h\x00", "-1h", "--1h", "9999999h", "1e9s", "NaN", "NaNs", "Inf",
			"1", "1d", "１h", "١h", "1һ", "0x1h", "1_0m", "{{ alert.id }}", `{{ "1h" }}`, strings.Repeat("9", 5000)+"h", strings.Repeat("1h", 20000)) {
			hostile = append(hostile, quoted(said))
		}
		for _, said := range hostile {
			if s := timed(t, with("alert.extra.t"), said); s.Verdict != "refused" || s.With != nil || len(s.Reason) > 200 {
				t.Errorf("%s of %.40s: %q %s %s", field, said, s.Verdict, s.Reason, s.With)
			}
		}
	}
}

func quoted(s string) string {
	raw, _ := json.Marshal(s)
	return string(raw)
}

// A time may depend on an earlier outcome.
func TestLateTimes(t *testing.T) {
	t.Parallel()
	srv := redistest.Start(t)
	rdb := srv.Client()
	newReplica(t, srv, "h1-1-a", t.TempDir(), `
name: p
match: "true"
steps:
  - {name: n, action: log}
  - {name: a, action: block_ip, with: {ttl: '{{ steps.n.ok ? alert.extra.t : "1h" }}', address: 198.51.100.9}}
`, func(cfg *playbook.Config) { cfg.Mode = playbook.Observe }).start()
	for said, want := range map[string]string{
		"2h": "observed: would block 198.51.100.9 for 2h ", "48h": "refused: parameters: ttl: 48h0m0s is not", "never": `refused: parameters: ttl: "never" is no time`,
	} {
		id := stream.AlertID("a-" + said)
		publish(t, rdb, fmt.Sprintf(`{"id":%q,"t":%q}`, id, said))
		_, b := settled(t, rdb, id)
		if got := b.Steps[1].Outcome + ": " + b.Steps[1].Reason; !strings.HasPrefix(got, want) {
			t.Errorf("%s: %s, want %s", said, got, want)
		}
	}
}
