package playbook_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"riposte/playbook"
	"riposte/stream"
)

const (
	containBook = `
name: contain
match: alert.level in ["HIGH", "CRITICAL"]
steps:
  - {name: stop, action: terminate_process, with: {grace: 3s}, timeout: 20s, retry: {attempts: 2}}
  - {name: block, action: block_ip, with: {ttl: 10m}}
  - {name: note, action: log}
`
	watchBook = `
name: watch
mode: observe
match: alert.process.name == "nc"
steps:
  - {name: stop, action: terminate_process}
`
	noteBook = `
name: note
match: alert.extra.score > 90
steps:
  - {name: note, action: log, with: {path: /var/log/alerts}}
`
)

func decode(t testing.TB, sources ...string) []*playbook.Playbook {
	t.Helper()
	var books []*playbook.Playbook
	for _, src := range sources {
		p, err := playbook.Decode("p.yaml", []byte(src))
		if err != nil {
			t.Fatal(err)
		}
		books = append(books, p)
	}
	return books
}

// planned is a plan in one line a step: what, how, and with which parameters.
func planned(t *testing.T, p *playbook.Planner, alert string, xadd, now time.Time) (steps string, refused string) {
	t.Helper()
	a, err := stream.Decode([]byte(alert), "1-0")
	if err != nil {
		t.Fatal(err)
	}
	body := p.Plan(a, xadd, now)
	var lines []string
	for _, s := range body.Steps {
		lines = append(lines, strings.TrimSpace(fmt.Sprintf("%s/%s %s %s %s%s", s.Playbook, s.Step, s.Action, s.Mode, s.With, s.Reason)))
	}
	return strings.Join(lines, "\n"), body.Refuse
}

func TestPlan(t *testing.T) {
	p := &playbook.Planner{
		Host: "h1", Playbooks: decode(t, containBook, watchBook), Mode: playbook.Enforce,
		MaxAge: 10 * time.Minute, Zone: time.FixedZone("CST", 8*3600),
	}
	const (
		none  = "-/- none enforce no playbook matches, or the alert names nothing to act on"
		until = `"seen_until":"2026-01-01T19:04:05.250001Z"`
		stop  = `contain/stop terminate_process enforce {"pid":7,` + until + `,"grace":"3s"}`
		block = `contain/block block_ip enforce {"address":"192.0.2.7","ttl":"10m","backend":"nftables"}`
		at    = `"timestamp":"2026-01-02T03:04:05.250000"`
	)
	now := time.Date(2026, 1, 1, 19, 4, 6, 0, time.UTC)
	for _, c := range []struct{ what, alert, steps, refused string }{
		{"process", `{"level":"HIGH","actionable_pid":7,` + at + `}`,
			stop + "\n" + `contain/note log enforce {"level":"HIGH","pid":7}`, ""},
		{"address", `{"level":"CRITICAL","source_ip":"192.0.2.7",` + at + `}`,
			block + "\n" + `contain/note log enforce {"level":"CRITICAL","source_ip":"192.0.2.7"}`, ""},
		{"both", `{"level":"HIGH","actionable_pid":7,"source_ip":"192.0.2.7",` + at + `}`,
			stop + "\n" + block + "\n" + `contain/note log enforce {"level":"HIGH","pid":7,"source_ip":"192.0.2.7"}`, ""},
		{"two playbooks, the weaker mode", `{"level":"HIGH","process":{"pid":7,"name":"nc"},` + at + `}`,
			`contain/stop terminate_process enforce {"pid":7,"described_pid":7,"name":"nc",` + until + `,"grace":"3s"}` + "\n" +
				`contain/note log enforce {"level":"HIGH","pid":7}` + "\n" +
				`watch/stop terminate_process observe {"pid":7,"described_pid":7,"name":"nc",` + until + `,"grace":"1s"}`, ""},
		{"unknown level", `{"level":"high","actionable_pid":7,` + at + `}`, none, ""},
		{"nothing to act on", `{"level":"HIGH",` + at + `}`, none, ""},

		{"the host's own name", `{"level":"HIGH","host":"h1","actionable_pid":7,` + at + `}`,
			stop + "\n" + `contain/note log enforce {"host":"h1","level":"HIGH","pid":7}`, ""},
		{"another host", `{"level":"LOW","host":"h2","actionable_pid":7,` + at + `}`,
			none, `the alert is about host "h2", this is "h1"`},
		{"a clock 29 s ahead", `{"level":"LOW","timestamp":"2026-01-02T03:04:35"}`, none, ""},
		{"a clock 31 s ahead", `{"level":"LOW","timestamp":"2026-01-02T03:04:37"}`,
			none, "timestamp 2026-01-02T03:04:37 is 31s in the future; if it was written without a zone, set --timezone to the detector's"},
		{"a zone of its own", `{"level":"LOW","timestamp":"2026-01-01T19:04:05Z"}`, none, ""},
		{"no time", `{"level":"LOW","timestamp":"yesterday"}`, none, `timestamp "yesterday" is not RFC 3339, with or without a zone`},
	} {
		t.Run(c.what, func(t *testing.T) {
			steps, refused := planned(t, p, c.alert, now, now)
			if steps != c.steps || refused != c.refused {
				t.Errorf("\ngot  %s\nrefused %q\nwant %s\nrefused %q", steps, refused, c.steps, c.refused)
			}
		})
	}
}

// A condition that cannot be decided is no yes, and does not pass unseen either.
func TestPlanUndecidedCondition(t *testing.T) {
	p := &playbook.Planner{Host: "h1", Playbooks: decode(t, noteBook), Mode: playbook.Observe, MaxAge: time.Minute, Zone: time.UTC}
	now := time.Now()
	for alert, want := range map[string]string{
		`{"score":95}`:     `note/note log observe {"path":"/var/log/alerts"}`,
		`{"score":90}`:     "-/- none observe no playbook matches",
		`{"score":"high"}`: "note/- none observe match could not be evaluated: invalid operation: string > int",
		`{}`:               "note/- none observe match could not be evaluated: invalid operation: <nil> > int",
	} {
		steps, refused := planned(t, p, alert, now, now)
		if !strings.HasPrefix(steps, want) || strings.Count(steps, " none ") > 1 || refused != "" {
			t.Errorf("%s: %s, refused %q; want %s", alert, steps, refused, want)
		}
	}
}

// An alert that says no time was seen when it was published, and expires from then.
func TestPlanTimes(t *testing.T) {
	p := &playbook.Planner{Host: "h1", Playbooks: decode(t, containBook), Mode: playbook.Enforce, MaxAge: 10 * time.Minute, Zone: time.UTC}
	xadd := time.Date(2026, 1, 2, 3, 4, 5, 6e6, time.UTC)
	for _, c := range []struct{ timestamp, seen, expires string }{
		{``, "03:04:05.006", "03:14:05.007"},
		{`"timestamp":"2026-01-02T03:04:01.5",`, "03:04:01.500", "03:14:01.600"},
		{`"timestamp":"2026-01-02T03:04:01",`, "03:04:01.000", "03:14:02.000"}, // any moment of its second
		{`"timestamp":"2026-01-02 03:04:01+02:00",`, "01:04:01.000", "01:14:02.000"},
		{`"timestamp":"soon",`, "03:04:05.006", "03:14:05.007"},
	} {
		a, err := stream.Decode([]byte(`{`+c.timestamp+`"level":"HIGH","actionable_pid":7}`), "1-0")
		if err != nil {
			t.Fatal(err)
		}
		body := p.Plan(a, xadd, xadd)
		seen, expires := body.Seen.UTC().Format("15:04:05.000"), body.Expires.UTC().Format("15:04:05.000")
		if seen != c.seen || expires != c.expires {
			t.Errorf("%s seen %s, expires %s; want %s, %s", c.timestamp, seen, expires, c.seen, c.expires)
		}
	}
}

// A detector whose clock is fast has not seen a process that is still to come.
func TestPlanSeesNoFuture(t *testing.T) {
	p := &playbook.Planner{Host: "h1", Playbooks: decode(t, containBook), Mode: playbook.Enforce, MaxAge: 10 * time.Minute, Zone: time.UTC}
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	a, err := stream.Decode([]byte(`{"timestamp":"2026-01-02T03:04:30","level":"HIGH","actionable_pid":7}`), "1-0")
	if err != nil {
		t.Fatal(err)
	}
	body := p.Plan(a, now, now)
	if with := string(body.Steps[0].With); body.Refuse != "" || !strings.Contains(with, `"seen_until":"2026-01-02T03:04:05Z"`) {
		t.Errorf("refused %q, %s", body.Refuse, with)
	}
}

// Whatever time somebody wrote, the plan can be written: one that cannot would come back,
// and hang each replica in turn.
func TestPlanCanBeWritten(t *testing.T) {
	p := &playbook.Planner{Host: "h1", Playbooks: decode(t, containBook), Mode: playbook.Enforce, MaxAge: 10 * time.Minute, Zone: time.UTC}
	far := time.UnixMilli(1 << 62)
	for _, timestamp := range []string{"9999-12-31T23:59:59Z", "2025-01-01T00:00:00+24:00", "2025-01-01T00:00:00+23:60", "0000-01-01T00:00:00", ""} {
		for _, xadd := range []time.Time{time.Now(), far, {}} {
			body := p.Plan(&stream.Alert{ID: "x", Level: "HIGH", Timestamp: timestamp, SourceIP: "192.0.2.1"}, xadd, time.Now())
			if _, err := json.Marshal(body); err != nil {
				t.Errorf("timestamp %q, published %v: %v", timestamp, xadd, err)
			}
		}
	}
}

// What somebody else wrote is kept in the ledger in bounded size, and cut at a character.
func TestPlanBoundsText(t *testing.T) {
	p := &playbook.Planner{Host: "h1", Playbooks: decode(t, containBook), Mode: playbook.Enforce, MaxAge: time.Minute, Zone: time.UTC}
	title := strings.Repeat("\u4e00", 5000) // 3 bytes each in UTF-8
	a, err := stream.Decode([]byte(`{"level":"HIGH","title":"`+title+`","rule":{"id":"`+title+`"},"source_ip":"`+title+`"}`), "1-0")
	if err != nil {
		t.Fatal(err)
	}
	body := p.Plan(a, time.Now(), time.Now())
	if want := strings.Repeat("\u4e00", 66) + "..."; body.Title != want {
		t.Errorf("title of %d bytes: %.20s", len(body.Title), body.Title)
	}
	if len(body.Rule) > 103 || len(body.Steps) != 2 || len(body.Steps[0].With) > 400 {
		t.Errorf("rule of %d bytes, steps %+v", len(body.Rule), body.Steps)
	}
	if body := p.Plan(&stream.Alert{ID: "x", Level: title}, time.Now(), time.Now()); len(body.Level) > 43 {
		t.Errorf("level of %d bytes", len(body.Level))
	}
}
