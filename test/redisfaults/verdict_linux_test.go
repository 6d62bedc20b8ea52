package redisfaults

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"time"

	"riposte/ledger"
	"riposte/playbook/action"
	"riposte/playbook/judge"
	"riposte/stream"
	"riposte/test/table"
)

// verdict is what a scenario came to.
type verdict struct {
	judge.Verdict
	again   int // outcomes recorded again, because their first record was lost
	unknown map[stream.AlertID]bool
	rows    map[action.Class]*table.Row
}

// judge hands everything over to the judge, and looks into the files that effects left.
func (s *site) judge() verdict {
	s.t.Helper()
	events, err := judge.ReadFile(s.file("trace.jsonl"))
	if err != nil {
		s.t.Fatal(err)
	}
	trial := judge.Trial{Events: events, LastAlive: map[string]time.Time{}, Exits: map[string]time.Time{}}
	for _, r := range s.replicas {
		trial.LastAlive[r.name()] = r.exit
	}
	v := verdict{unknown: map[stream.AlertID]bool{}, rows: map[action.Class]*table.Row{}}
	for _, class := range classes {
		v.rows[class] = &table.Row{Group: "redis", Fault: s.fault, Class: string(class)}
	}
	byID, byKey := map[string]*alert{}, map[string]*alert{}
	for _, a := range s.alerts {
		trial.Alerts = append(trial.Alerts, a.trial())
		byID[string(a.ID)], byKey[a.key()] = a, a
		if a.decoy != nil {
			if exit, dead := a.decoy.dead(); dead {
				trial.Exits[a.decoy.name] = exit
			}
		}
	}
	v.Verdict = trial.Judge()
	for _, l := range v.Lost {
		v.rows[byID[l.ID].class].Lost++
	}
	for _, d := range v.Doubled {
		v.rows[byKey[d.Begin.Key].class].Doubled++
	}
	begun, records := map[string]int{}, map[string]int{}
	for _, e := range events {
		switch e.Event {
		case judge.Begin:
			begun[e.Key]++
		case judge.Recorded:
			if records[e.Key]++; records[e.Key] > 1 {
				v.again++
			}
		}
	}
	s.count(&v)
	s.compare(&v, begun)
	return v
}

// entry is one of the ledger, as riposte ledger list shows it.
type entry struct {
	ID    stream.AlertID
	State ledger.State
	Steps []struct{ Outcome, Reason string }
}

// count counts the alerts in the ledger.
func (s *site) count(v *verdict) {
	s.t.Helper()
	entries := map[stream.AlertID]entry{}
	var all []entry
	if err := json.Unmarshal(s.ask("ledger", "list", "-o", "json"), &all); err != nil {
		s.t.Fatal(err)
	}
	for _, e := range all {
		entries[e.ID] = e
	}
	for _, a := range s.alerts {
		row := v.rows[a.class]
		row.Accepted++ // drain has waited for all
		e, known := entries[a.ID]
		switch {
		case known && e.State == ledger.Done:
			row.Settled++
		case known && e.State == ledger.Dead:
			row.Dead++
		case known:
			row.Pending++
		}
		for _, st := range e.Steps {
			if st.Outcome == string(action.Unknown) {
				row.Unknown++
				v.unknown[a.ID] = true
			} else if !expected[a.class][action.Outcome(st.Outcome)] {
				s.t.Errorf("%s is recorded as %s: %s", a.key(), st.Outcome, st.Reason)
			}
		}
	}
}

// expected are the outcomes of effects that happened.
var expected = map[action.Class]map[action.Outcome]bool{
	action.Verifiable: {action.Terminated: true, action.Killed: true, action.AlreadyGone: true},
	action.Idempotent: {action.Logged: true},
	action.AtMostOnce: {action.Ran: true},
}

// compare looks at what the effects left in files.
func (s *site) compare(v *verdict, begun map[string]int) {
	s.t.Helper()
	ran, logged := s.lines("script.out"), s.lines("effects.log")
	for _, a := range s.alerts {
		row := v.rows[a.class]
		switch n := ran[a.key()]; {
		case a.class != action.AtMostOnce:
		case n > 1:
			v.Doubled = append(v.Doubled, judge.Doubled{Rule: judge.Second, Begin: judge.Event{Key: a.key()}, Why: fmt.Sprintf("the script left %d lines", n)})
			row.Doubled++
		case n == 0 && !v.unknown[a.ID]:
			s.t.Errorf("lost: the script left no line of %s", a.key())
		}
		switch n := logged[a.key()]; {
		case a.class != action.Idempotent:
		case n == 0:
			s.t.Errorf("lost: no line in the log for %s", a.key())
		case n > begun[a.key()]:
			s.t.Errorf("%d lines in the log for %s, begun %d times", n, a.key(), begun[a.key()])
		}
	}
}

// lines counts the lines of a file by key.
func (s *site) lines(name string) map[string]int {
	s.t.Helper()
	raw, err := os.ReadFile(s.file(name))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		s.t.Fatal(err)
	}
	n := map[string]int{}
	for line := range bytes.Lines(raw) {
		key := string(bytes.TrimSpace(line))
		var l struct{ Key string }
		if json.Unmarshal(line, &l) == nil {
			key = l.Key
		}
		n[key]++
	}
	return n
}

// innocent wants nothing lost and nothing doubled, and says so in the table.
func (s *site) innocent(v verdict, cost string) {
	s.t.Helper()
	for _, l := range v.Lost {
		s.t.Errorf("lost %s", l)
	}
	for _, d := range v.Doubled {
		s.t.Errorf("doubled: %s", d)
	}
	for _, class := range classes {
		v.rows[class].Cost = cost
		table.Add(s.t, *v.rows[class])
	}
	s.t.Logf("riposte ledger audit: %s", s.ask(append([]string{"ledger", "audit"}, s.folders()...)...))
}

// guilty wants doubled effects: the fault is one that the gate stands against.
func (s *site) guilty(v verdict) {
	s.t.Helper()
	rules := map[judge.Rule]int{}
	for _, d := range v.Doubled {
		rules[d.Rule]++
	}
	s.t.Logf("without the gate: %d effects doubled: %v", len(v.Doubled), rules)
	if len(v.Doubled) == 0 {
		s.t.Error("no gate, and no doubled effect was found: this test proves nothing")
	}
}

// cost is what it took to make up for writes that Redis had acknowledged and lost.
func (s *site) cost(v verdict, vanished int) string {
	return fmt.Sprintf("%d alerts vanished, %d published again; %d outcomes recorded again from receipts; %d unknown",
		vanished, s.publisher.again(), v.again, len(v.unknown))
}

// ask runs riposte itself, which must find nothing wrong.
func (s *site) ask(args ...string) []byte {
	s.t.Helper()
	var stderr bytes.Buffer
	cmd := exec.Command(s.binary, append(args, "--redis", s.redis.URL, "--host", host)...)
	cmd.Env, cmd.Stderr = []string{}, &stderr
	out, err := cmd.Output()
	if err != nil {
		s.t.Errorf("riposte %v: %v\n%s%s", args, err, out, stderr.String())
	}
	return out
}
