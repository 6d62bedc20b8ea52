package playbook_test

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"riposte/ledger"
	"riposte/playbook"
	"riposte/playbook/gate"
	"riposte/stream"
	"riposte/test/need"
	"riposte/test/redistest"
)

// noted is a playbook whose only effect is a line in a file.
func noted(t *testing.T, more string) (book, file string) {
	t.Helper()
	file = t.TempDir() + "/log"
	return "name: note\nmatch: \"true\"\nsteps:\n  - {name: note, action: log, with: {path: " + file + "}}\n" + more, file
}

func fresh(id string) string {
	return fmt.Sprintf(`{"id":%q,"level":"HIGH","title":"t","timestamp":%q}`, id, time.Now().UTC().Format(time.RFC3339Nano))
}

func audited(t *testing.T, rdb *redis.Client) {
	t.Helper()
	report, err := ledger.NewReader(rdb, host, group).Audit(t.Context(), ledger.AuditConfig{})
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range report.Findings {
		t.Errorf("audit: %s %s: %s", f.Kind, f.Key, f.Text)
	}
}

// waits waits until so many alerts are parked, and nothing else is pending.
func waits(t *testing.T, rdb *redis.Client, n int64) {
	t.Helper()
	until(t, fmt.Sprintf("%d alerts wait", n), func() bool {
		pending, err := rdb.XPending(t.Context(), host.AlertsKey(), string(group)).Result()
		return err == nil && pending.Count == 0 && rdb.ZCard(t.Context(), host.WaitingKey(group)).Val() == n
	})
}

func outcome(t *testing.T, rdb *redis.Client, id stream.AlertID) (string, string) {
	t.Helper()
	_, body := settled(t, rdb, id)
	return body.Steps[0].Outcome, body.Steps[0].Reason
}

// A switch that is off keeps what it names from being begun, and nothing else; what waited
// is begun once it is on again.
func TestPause(t *testing.T) {
	t.Parallel()
	srv := redistest.Start(t)
	rdb := srv.Client()
	book, _ := noted(t, "")
	newReplica(t, srv, "h1-1-a", t.TempDir(), book, nil).start()
	for i, c := range []struct {
		name  ledger.Switch
		board *ledger.Switchboard
		other bool // it is about something else
	}{
		{ledger.HostSwitch, ledger.HostSwitches(rdb, host), false},
		{ledger.GroupSwitch(group), ledger.HostSwitches(rdb, host), false},
		{ledger.PlaybookSwitch("note"), ledger.HostSwitches(rdb, host), false},
		{ledger.FleetSwitch, ledger.FleetSwitches(rdb), false},
		{ledger.GroupSwitch(group), ledger.FleetSwitches(rdb), false},
		{ledger.PlaybookSwitch("note"), ledger.FleetSwitches(rdb), false},
		{ledger.PlaybookSwitch("not"), ledger.HostSwitches(rdb, host), true},
		{ledger.GroupSwitch("forensics"), ledger.FleetSwitches(rdb), true},
		{ledger.HostSwitch, ledger.HostSwitches(rdb, "h2"), true},
	} {
		id := fmt.Sprint("a-", i)
		if _, err := c.board.Pause(t.Context(), c.name, "me", "why"); err != nil {
			t.Fatal(err)
		}
		if strings.HasPrefix(string(c.name), "pause:fleet") || c.board != nil && i >= 3 && i <= 5 {
			seen(t, rdb) // the fleet's switches are looked at several times a second
		}
		publish(t, rdb, fresh(id))
		if !c.other {
			waits(t, rdb, 1)
		} else if got, _ := outcome(t, rdb, stream.AlertID(id)); got != "logged" {
			t.Errorf("%s: %s", c.name, got)
		}
		if was, err := c.board.Resume(t.Context(), c.name); err != nil || !was {
			t.Fatal(was, err)
		}
		if got, _ := outcome(t, rdb, stream.AlertID(id)); got != "logged" {
			t.Errorf("%s, when it was on again: %s", c.name, got)
		}
		waits(t, rdb, 0)
	}
	audited(t, rdb)
}

// seen waits until every replica has looked at the fleet's switches twice.
func seen(t *testing.T, rdb *redis.Client) {
	t.Helper()
	calls := func() int {
		info, err := rdb.Info(t.Context(), "commandstats").Result()
		if err != nil {
			t.Fatal(err)
		}
		_, line, _ := strings.Cut(info, "cmdstat_hkeys:calls=")
		var n int
		fmt.Sscanf(line, "%d", &n)
		return n
	}
	from := calls()
	until(t, "the fleet's switches were looked at", func() bool { return calls() >= from+2 })
}

// A breaker lets its number through, trips for good, has somebody told, and lets as many
// through again once it was reset.
func TestBreaker(t *testing.T) {
	t.Parallel()
	for _, per := range []string{"host", "fleet"} {
		t.Run(per, func(t *testing.T) {
			t.Parallel()
			srv := redistest.Start(t)
			rdb := srv.Client()
			book, file := noted(t, fmt.Sprintf("limits:\n  breakers:\n    - {per: %s, most: 3, within: 1h}\n", per))
			book = strings.Replace(book, `"true"`, `alert.source != "riposte"`, 1)
			name := "note"
			if per == "host" {
				name = "fleet" // it may be called so
				book = strings.Replace(book, "name: note", "name: fleet", 1)
			}
			runtime := t.TempDir()
			for _, replica := range []string{"h1-1-a", "h1-1-b"} {
				newReplica(t, srv, replica, runtime, book, nil).start()
			}
			for i := range 10 {
				publish(t, rdb, fresh(fmt.Sprint("a-", i)))
			}
			effects := func(n int) {
				t.Helper()
				until(t, "those that do not wait are through", func() bool {
					return rdb.XPending(t.Context(), host.AlertsKey(), string(group)).Val().Count == 0
				})
				if got := lines(t, file); got != n {
					t.Errorf("%d effects, want %d", got, n)
				}
			}
			waits(t, rdb, 7)
			effects(3)
			told := 0
			for _, m := range rdb.XRange(t.Context(), host.AlertsKey(), "-", "+").Val() {
				if text, _ := m.Values["alert"].(string); strings.Contains(text, `"riposte-breaker"`) {
					told++
				}
			}
			if told != 1 {
				t.Errorf("somebody was told %d times", told)
			}
			board := ledger.HostSwitches(rdb, host)
			if per == "fleet" {
				board = ledger.FleetSwitches(rdb)
			}
			if was, err := board.Reset(t.Context(), name); err != nil || !was {
				t.Fatal(was, err)
			}
			waits(t, rdb, 4)
			effects(6)
			audited(t, rdb)
		})
	}
}

func lines(t *testing.T, file string) int {
	t.Helper()
	raw, err := os.ReadFile(file)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	return strings.Count(string(raw), "\n")
}

// In mode approve nothing is done until a person says so, and never after a no.
func TestApproval(t *testing.T) {
	t.Parallel()
	srv := redistest.Start(t)
	rdb := srv.Client()
	book, file := noted(t, "mode: approve\n")
	newReplica(t, srv, "h1-1-a", t.TempDir(), book, nil).start()
	reader := ledger.NewReader(rdb, host, group)
	for id, yes := range map[string]bool{"yes": true, "no": false} {
		publish(t, rdb, fresh(id))
		waits(t, rdb, 1)
		before := lines(t, file)
		if _, err := reader.Decide(t.Context(), stream.AlertID(id), yes, "me@here", "because"); err != nil {
			t.Fatal(err)
		}
		got, reason := outcome(t, rdb, stream.AlertID(id))
		switch {
		case yes && (got != "logged" || lines(t, file) != before+1):
			t.Errorf("approved: %s %s", got, reason)
		case !yes && (got != "denied" || reason != "denied by me@here: because" || lines(t, file) != before):
			t.Errorf("denied: %s %s", got, reason)
		}
		if _, err := reader.Decide(t.Context(), stream.AlertID(id), !yes, "you", "else"); err == nil || !strings.Contains(err.Error(), "me@here has said") {
			t.Errorf("a second answer: %v", err)
		}
	}
	// Nobody answers: as if the time for it were over.
	publish(t, rdb, fresh("late"))
	waits(t, rdb, 1)
	rdb.ZAdd(t.Context(), host.WaitingKey(group), redis.Z{Score: 1, Member: "late"})
	if got, reason := outcome(t, rdb, "late"); got != "denied" || reason != "nobody approved it in time" {
		t.Errorf("nobody answered: %s %s", got, reason)
	}
	audited(t, rdb)
}

// A person may answer after a reboot, whose gate is another. What nobody had begun before is done
// then, also where it must not be done twice; what somebody had begun stays unknown, and what had
// ended is not asked about.
func TestApprovalAtAnotherGate(t *testing.T) {
	t.Parallel()
	mkdir := need.Binary(t, "mkdir") // which fails the second time
	for _, c := range []struct {
		before  string // what a replica of mode enforce did before it died
		parked  bool
		want    string
		effects int
	}{
		{"nothing", true, "ran", 1},
		{"began", true, "unknown", 0},
		{"closed", false, "ran", 0},
	} {
		t.Run(c.before, func(t *testing.T) {
			t.Parallel()
			srv, gateDir := redistest.Start(t), t.TempDir()
			rdb, made := srv.Client(), t.TempDir()+"/made"
			book := "name: note\nmatch: \"true\"\nsteps: [{name: first, action: run_script, with: {argv: [" + mkdir + ", " + made + "]}}]\n"
			approve := func(c *playbook.Config) { c.Mode = playbook.Approve }
			if err := os.Chmod(gateDir, 0o700); err != nil {
				t.Fatal(err)
			}
			g, token := heldByTheDead(t, rdb, gateDir, book, 0, nil)
			if c.before != "nothing" {
				pass, err := g.Enter(gate.Step{Key: stream.StepKey(host, group, "a-1", "note", "first"), Durable: true}, token)
				if err == nil {
					err = pass.Begin()
				}
				if err == nil && c.before == "closed" {
					err = pass.Close("ran", "by the dead")
				}
				if err != nil {
					t.Fatal(err)
				}
				pass.Leave()
			}
			stop := newReplica(t, srv, "h1-2-asks", gateDir, book, approve).start()
			if c.parked {
				waits(t, rdb, 1)
				stop()
				newReplica(t, srv, "h1-3-later", t.TempDir(), book, approve).start()
				if _, err := ledger.NewReader(rdb, host, group).Decide(t.Context(), "a-1", true, "me@here", "because"); err != nil {
					t.Fatal(err)
				}
			}
			if got, reason := outcome(t, rdb, "a-1"); got != c.want {
				t.Errorf("%s: %s, want %s", got, reason, c.want)
			}
			if _, err := os.Stat(made); (err == nil) != (c.effects == 1) {
				t.Errorf("the script: %v, want %d runs", err, c.effects)
			}
			audited(t, rdb)
		})
	}
}

// What was done is taken back by a further step of the same entry, once.
func TestUndo(t *testing.T) {
	t.Parallel()
	srv := redistest.Start(t)
	rdb := srv.Client()
	book, _ := noted(t, "")
	newReplica(t, srv, "h1-1-a", t.TempDir(), book, nil).start()
	publish(t, rdb, fresh("a"))
	settled(t, rdb, "a")
	reader := ledger.NewReader(rdb, host, group)
	none := func(b *ledger.Body) error { _, err := playbook.Revert(b, ""); return err }
	if err := reader.Reopen(t.Context(), "a", "me", "why", none); err == nil || !strings.Contains(err.Error(), "nothing of it stands") {
		t.Errorf("a line of a log was taken back: %v", err)
	}
	another := func(b *ledger.Body) error {
		b.Steps = append(b.Steps, ledger.Step{Playbook: "note", Step: "note~undo", Undoes: "note", Action: "log", Mode: "enforce",
			With: b.Steps[0].With, Timeout: time.Second, Retry: ledger.Retry{Attempts: 1}})
		return nil
	}
	if err := reader.Reopen(t.Context(), "a", "me", "why", another); err != nil {
		t.Fatal(err)
	}
	until(t, "it is undone", func() bool {
		e, err := reader.Entry(t.Context(), "a")
		return err == nil && e.Header.State == ledger.Done && len(e.Body.Steps) == 2 && e.Body.Steps[1].Outcome == "logged"
	})
	waits(t, rdb, 0)
	audited(t, rdb)
}

// A step that goes wrong ends its playbook, where it says so, and only its own.
func TestOnError(t *testing.T) {
	t.Parallel()
	srv := redistest.Start(t)
	rdb := srv.Client()
	good := t.TempDir() + "/log"
	const bad = "{name: bad, action: log, with: {path: /nowhere/at/all}, retry: {attempts: 1}"
	for i, c := range []struct{ onError, want string }{
		{"", "failed logged skipped logged"},
		{", on_error: continue", "failed logged skipped logged"},
		{", on_error: stop", "failed skipped skipped skipped"},
		{", on_error: undo", "failed skipped skipped skipped"},
	} {
		book := "name: p\nmatch: \"true\"\nsteps:\n  - " + bad + c.onError + "}\n  - {name: good, action: log, with: {path: " + good + "}}\n" +
			"  - {name: told, action: log, with: {path: " + good + "}, if: steps.bad.ok}\n" +
			"  - {name: sorry, action: log, with: {path: " + good + "}, if: 'steps.bad.outcome == \"failed\" && alert.level == \"HIGH\"'}\n"
		stop := newReplica(t, srv, fmt.Sprint("h1-1-", i), t.TempDir(), book, nil).start()
		id := stream.AlertID(fmt.Sprint("a-", i))
		publish(t, rdb, fresh(string(id)))
		_, body := settled(t, rdb, id)
		var got []string
		for _, s := range body.Steps {
			got = append(got, s.Outcome)
		}
		if strings.Join(got, " ") != c.want {
			t.Errorf("on_error %q: %v, want %s: %+v", c.onError, got, c.want, body.Steps)
		}
		stop()
	}
	audited(t, rdb)
}

// A template is filled in from the alert, or from an earlier outcome, and what comes out is
// taken for what the field is.
func TestTemplates(t *testing.T) {
	book := decode(t, `
name: p
match: "true"
steps:
  - name: a
    action: block_ip
    with: {address: "{{ alert.extra.attacker }}"}
`)
	planner := &playbook.Planner{Host: host, Playbooks: book, Mode: playbook.Enforce, MaxAge: time.Hour, Zone: time.UTC}
	for attacker, want := range map[string]string{
		`"203.0.113.7"`:               "203.0.113.7",
		`"203.0.113.7; rm -rf /"`:     "refused",
		`"{{ alert.source_ip }}"`:     "refused",
		`["203.0.113.7","127.0.0.1"]`: "refused",
		`{"a":1}`:                     "refused",
		`7`:                           "refused",
	} {
		a, err := stream.Decode([]byte(`{"id":"x","source_ip":"198.51.100.9","attacker":`+attacker+`}`), "1-1")
		if err != nil {
			t.Fatal(err)
		}
		body := planner.Plan(a, time.Now(), time.Now())
		step := body.Steps[0]
		got := step.Verdict
		if got == "" {
			got = string(step.With)
		}
		if !strings.Contains(got, want) || strings.Contains(got, "198.51.100.9") {
			t.Errorf("%s became %s %s, want %s", attacker, got, step.Reason, want)
		}
	}
}

// A playbook that is new, or has changed, only observes its first matches.
func TestWarmUp(t *testing.T) {
	t.Parallel()
	srv := redistest.Start(t)
	rdb := srv.Client()
	book, file := noted(t, "limits:\n  warm_up: {matches: 3}\n")
	runtime := t.TempDir()
	for _, name := range []string{"h1-1-a", "h1-1-b"} {
		newReplica(t, srv, name, runtime, book, nil).start()
	}
	for i := range 5 {
		id := stream.AlertID(fmt.Sprint("a-", i))
		publish(t, rdb, fresh(string(id)))
		want := "logged"
		if i < 3 {
			want = "observed"
		}
		if got, reason := outcome(t, rdb, id); got != want || i < 3 && !strings.Contains(reason, "warms up") {
			t.Errorf("alert %d: %s: %s", i, got, reason)
		}
	}
	if n := lines(t, file); n != 2 {
		t.Errorf("%d effects, want 2", n)
	}
	newReplica(t, srv, "h1-1-c", runtime, book+"# changed\n", func(c *playbook.Config) { c.Group = "other" }).start()
	until(t, "the changed playbook begins anew", func() bool {
		raw, err := rdb.Get(t.Context(), host.LedgerKey("other", "a-4")).Bytes()
		if err != nil {
			return false
		}
		_, body, err := ledger.ParseEntry(raw)
		return err == nil && body.Steps[0].Outcome == "logged" && strings.HasPrefix(rdb.HGet(t.Context(), host.ControlKey(), "warm:other/note").Val(), playbookHash(t, book+"# changed\n"))
	})
	audited(t, rdb)
}

// An attacker does not silence a message by what he puts into it.
func TestTemplatesInMessages(t *testing.T) {
	book := decode(t, `
name: p
match: "true"
steps:
  - name: a
    action: notify
    with: {channel: webhook, url: "https://example.org/", subject: "{{ alert.title }}", text: "{{ alert.description }}"}
`)
	planner := &playbook.Planner{Host: host, Playbooks: book, Mode: playbook.Enforce, MaxAge: time.Hour, Zone: time.UTC}
	for _, title := range []string{"a\r\nBcc: me", strings.Repeat("long ", 2000), "\x00\x1b[2J"} {
		a := &stream.Alert{ID: "x", Title: title, Description: title}
		step := planner.Plan(a, time.Now(), time.Now()).Steps[0]
		if step.Verdict != "" || strings.Contains(string(step.With), `\r`) && strings.Contains(step.Reason, "subject") {
			t.Errorf("%.20q: %s %s", title, step.Verdict, step.Reason)
		}
	}
}

func playbookHash(t *testing.T, src string) string {
	t.Helper()
	return decode(t, src)[0].Hash
}
