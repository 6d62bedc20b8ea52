package main

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"riposte/ledger"
	"riposte/stream"
)

// doubt settles an alert with one step per outcome.
func (f *fleet) doubt(id string, outcomes ...string) {
	f.Helper()
	a, err := stream.Decode([]byte(alertNow(id)), "1-1")
	if err != nil {
		f.Fatal(err)
	}
	l, err := ledger.New(f.rdb, ledger.Config{Host: "h1", Group: "containment", Owner: "r"})
	if err != nil {
		f.Fatal(err)
	}
	body := ledger.Body{Seen: time.Now(), Expires: time.Now().Add(time.Hour)}
	for i := range outcomes {
		body.Steps = append(body.Steps, ledger.Step{Playbook: "p", Step: fmt.Sprint("s", i), Action: "run_script", Mode: "enforce"})
	}
	answers, err := l.Begin(f.ctx, []ledger.Claim{{ID: a.ID, StreamID: f.add("alert", alertNow(id)), Nonce: ledger.NewNonce(), Digest: a.Digest(), Body: body}}, nil)
	if err != nil {
		f.Fatal(err)
	}
	for i, outcome := range outcomes {
		s := &answers[0].Grant.Body.Steps[i]
		s.Outcome, s.Reason, s.Ended = outcome, "because", time.Now()
		if err := l.Record(f.ctx, answers[0].Grant, i); err != nil {
			f.Fatal(err)
		}
	}
}

func TestResolveCommand(t *testing.T) {
	f := newFleet(t)
	if err := f.rdb.XGroupCreateMkStream(f.ctx, "riposte:{h1}:alerts", "containment", "0").Err(); err != nil {
		t.Fatal(err)
	}
	f.doubt("x-1", "unknown", "logged")
	f.doubt("y-1", "unknown", "unknown")
	status := func(says string) {
		t.Helper()
		if r := f.must(0, "status"); strings.Contains(r.out, "UNKNOWN:") != (says != "") || !strings.Contains(r.out, says) {
			t.Errorf("status lacks %q:\n%s", says, r.out)
		}
	}
	status("UNKNOWN: 3 steps")
	for _, args := range [][]string{{}, {"x-1"}, {"x-1", "y-1", "--note", "n"}} {
		f.must(2, append([]string{"ledger", "resolve"}, args...)...)
	}
	if r := f.must(1, "ledger", "resolve", "y", "--note", "n"); !strings.Contains(r.err, "--step: p/s0, p/s1") {
		t.Errorf("stderr %s", r.err)
	}
	if r := f.must(1, "ledger", "resolve", "z", "--note", "n"); !strings.Contains(r.err, "no alert \"z\"") {
		t.Errorf("stderr %s", r.err)
	}
	if r := f.must(0, "ledger", "resolve", "x", "--note", "it did \x1b[2J"); r.out != "x-1  p/s0  noted\n" || r.err != "" {
		t.Errorf("stdout %s, stderr %s", r.out, r.err)
	}
	status("UNKNOWN: 2 steps")
	if r := f.must(0, "ledger", "resolve", "x-1", "--note", "it did not"); !strings.Contains(r.err, `had looked into it already, at `) || !strings.Contains(r.err, `: it did \u001b[2J; your note is in the journal only`) {
		t.Errorf("stderr %s", r.err)
	}
	var told struct {
		ID, Step, Note string
		Earlier        *struct{ By, At, Note string }
	}
	r := f.must(0, "ledger", "resolve", "y-1", "--note", "n", "--step", "p/s1", "-o", "json")
	if err := json.Unmarshal([]byte(r.out), &told); err != nil || told.ID != "y-1" || told.Step != "p/s1" || told.Note != "n" || told.Earlier != nil {
		t.Errorf("%v: %s", err, r.out)
	}
	r = f.must(0, "ledger", "resolve", "y-1", "--note", "more", "--step", "p/s1", "-o", "json")
	if err := json.Unmarshal([]byte(r.out), &told); err != nil || told.Note != "more" || told.Earlier == nil || told.Earlier.By != person() || told.Earlier.Note != "n" {
		t.Errorf("%v: %s", err, r.out)
	}
	f.must(0, "ledger", "resolve", "y-1", "--note", "n")
	status("")

	r = f.must(0, "ledger", "list", "--outcome", "unknown")
	if !strings.Contains(r.out, "s0 unknown (resolved), s1 logged") || !strings.Contains(r.out, "s0 unknown (resolved), s1 unknown (resolved)") {
		t.Errorf("list:\n%s", r.out)
	}
	r = f.must(0, "ledger", "show", "x-1")
	for _, says := range []string{"because; " + person() + " looked into it at ", `it did \u001b[2J`, "p/s0: " + person() + " has looked into it: it did not"} {
		if !strings.Contains(r.out, says) {
			t.Errorf("show lacks %q:\n%s", says, r.out)
		}
	}
	var all []struct {
		ID    string
		Steps []struct {
			Resolved *struct{ By, At, Note string }
		}
	}
	if err := json.Unmarshal([]byte(f.must(0, "ledger", "list", "-o", "json").out), &all); err != nil || len(all) != 2 || all[0].Steps[0].Resolved == nil || all[0].Steps[0].Resolved.By != person() {
		t.Errorf("%v: %+v", err, all)
	}
}
