package playbook_test

import (
	"strings"
	"testing"
	"time"

	"riposte/playbook"
	"riposte/stream"
)

// Every field of an alert can be named in a condition, and what the alert leaves out has
// a value that says so.
func TestMatch(t *testing.T) {
	const full = `{"id":"a-1","host":"h1","source":"falco","level":"HIGH","title":"t","description":"d","details":{"n":[1,"x"]},
		"timestamp":"2026-01-02T03:04:05Z","actionable_pid":7,"source_ip":"192.0.2.7","score":9,
		"rule":{"id":"r1","name":"rn","author":"ra","tags":["attack.t1059"]},
		"process":{"pid":7,"start_ticks":5,"boot_id":"b","pid_ns":4,"name":"nc","exe":"/bin/nc","cmdline":"nc -e sh","uid":0,
			"parent":{"pid":6,"start_ticks":3,"name":"nginx","exe":"/usr/sbin/nginx"}}}`
	const bare = `{"level":"LOW"}`
	for _, c := range []struct {
		alert, condition string
		want             bool
	}{
		{full, `alert.id == "a-1" and alert.host == "h1" and alert.source == "falco" and alert.level == "HIGH"`, true},
		{full, `alert.title == "t" and alert.description == "d" and alert.timestamp startsWith "2026"`, true},
		{full, `alert.actionable_pid == 7 and alert.source_ip == "192.0.2.7"`, true},
		{full, `alert.rule.id == "r1" and alert.rule.name == "rn" and alert.rule.author == "ra" and "attack.t1059" in alert.rule.tags`, true},
		{full, `alert.process.pid == 7 and alert.process.start_ticks == 5 and alert.process.boot_id == "b" and alert.process.pid_ns == 4`, true},
		{full, `alert.process.name == "nc" and alert.process.exe == "/bin/nc" and alert.process.cmdline contains "-e" and alert.process.uid == 0`, true},
		{full, `alert.process.parent.pid == 6 and alert.process.parent.start_ticks == 3 and alert.process.parent.name == "nginx" and alert.process.parent.exe endsWith "nginx"`, true},
		{full, `alert.details.n[1] == "x" and alert.extra.score == 9`, true},
		{full, `alert.level in ["LOW", "MEDIUM"]`, false},
		{full, `"level" in alert.extra`, false}, // what Riposte knows is no extra
		{bare, `alert.actionable_pid == 0 and alert.process.pid == 0 and alert.process.uid == -1 and alert.process.parent.name == ""`, true},
		{bare, `alert.details == nil and alert.extra.score == nil and len(alert.rule.tags) == 0`, true},
		{`{"process":{"pid":7}}`, `alert.actionable_pid == 7 and alert.process.uid == -1`, true},
		{`{"actionable_pid":7}`, `alert.actionable_pid == 7 and alert.process.pid == 0`, true},
		{`{"level":"high"}`, `alert.level in ["HIGH", "CRITICAL"]`, false}, // levels are compared as written
	} {
		p := &playbook.Planner{Host: "h1", MaxAge: time.Minute, Zone: time.UTC, Mode: playbook.Observe,
			Playbooks: decode(t, "name: p\nmatch: '"+c.condition+"'\nsteps: [{name: note, action: log}]\n")}
		a, err := stream.Decode([]byte(c.alert), "1-0")
		if err != nil {
			t.Fatal(err)
		}
		step := p.Plan(a, time.Now(), time.Now()).Steps[0]
		if got := step.Action == "log"; got != c.want || strings.Contains(step.Reason, "evaluated") {
			t.Errorf("%s of %s: %t, want %t (%s)", c.condition, c.alert, got, c.want, step.Reason)
		}
	}
}
