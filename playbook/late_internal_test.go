package playbook

import (
	"testing"
	"time"

	"riposte/stream"
)

// A step that has nothing to act on is in no plan; whatever depends on it is decided all the same.
func TestConditionOverAStepThatDoesNotApply(t *testing.T) {
	book, err := Decode("p.yaml", []byte(`
name: p
match: "true"
steps:
  - {name: block, action: block_ip}
  - {name: note, action: log, if: steps.block.ok}
  - {name: other, action: log, if: not steps.block.ok}
  - name: tell
    action: notify
    with: {channel: webhook, url: "https://example.org/", text: "block: {{ steps.block.outcome }}"}
  - {name: stop, action: terminate_process}
`))
	if err != nil {
		t.Fatal(err)
	}
	a, err := stream.Decode([]byte(`{"id":"x","actionable_pid":4711}`), "1-1") // no address
	if err != nil {
		t.Fatal(err)
	}
	body := (&Planner{Host: "h1", Playbooks: []*Playbook{book}, Mode: Enforce, MaxAge: time.Hour, Zone: time.UTC}).Plan(a, time.Now(), time.Now())
	for i, want := range []string{"note skipped", "other ", "tell ", "stop "} {
		makeOut(&body, i)
		if s := body.Steps[i]; s.Step+" "+s.Verdict != want {
			t.Errorf("%s %s: %s, want %s", s.Step, s.Verdict, s.Reason, want)
		}
	}
}
