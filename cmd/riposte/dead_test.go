package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"riposte/ledger"
	"riposte/stream"
)

// poison makes an alert one that has killed as many replicas as it takes to be buried.
// No responder may be running.
func (f *fleet) poison(id string) {
	f.Helper()
	f.die(id, f.add("alert", alertNow(id)))
}

// die has replicas die with an alert that came in an entry.
func (f *fleet) die(id, entry string) {
	f.Helper()
	a, err := stream.Decode([]byte(alertNow(id)), "1-1")
	if err != nil {
		f.Fatal(err)
	}
	body := ledger.Body{Seen: time.Now(), Expires: time.Now().Add(time.Hour), Steps: []ledger.Step{{
		Playbook: "p", Step: "s", Action: "log", Mode: "observe", With: json.RawMessage("{}"), Timeout: time.Second, Retry: ledger.Retry{Attempts: 1, Initial: time.Millisecond, Max: time.Second},
	}}}
	last, names := (*ledger.Grant)(nil), []string{}
	var l *ledger.Ledger
	for i := range 6 {
		name := fmt.Sprint("dead-", i)
		l, err = ledger.New(f.rdb, ledger.Config{Host: "h1", Group: "containment", Owner: name})
		if err != nil {
			f.Fatal(err)
		}
		answers, err := l.Begin(f.ctx, []ledger.Claim{{ID: a.ID, StreamID: entry, Nonce: ledger.NewNonce(), Digest: a.Digest(), Body: body}}, names)
		if err != nil || answers[0].Grant == nil {
			f.Fatalf("%+v, %v", answers, err)
		}
		last, names = answers[0].Grant, append(names, name)
	}
	if err := l.Release(f.ctx, last, "test"); err != nil {
		f.Fatal(err)
	}
}

func lettersOf(t *testing.T, r result) (letters []struct {
	ID, Alert, Reason, Raw string
	Length                 int
}) {
	t.Helper()
	if err := json.Unmarshal([]byte(r.out), &letters); err != nil {
		t.Fatalf("%v\n%s", err, r.out)
	}
	return letters
}

// A poison alert is buried, sent round again by a person, and then carried out: neither
// its old deaths nor the receipt of its burial bury it again.
func TestDeadRetry(t *testing.T) {
	f := newFleet(t)
	f.poison("x")
	stop := f.responder()
	f.settled("x", "dead")
	letters := lettersOf(t, f.must(0, "dead", "list", "-o", "json"))
	if len(letters) != 1 || letters[0].Alert != "x" || !strings.Contains(letters[0].Reason, "poison") || letters[0].Raw != "" {
		t.Fatalf("%+v", letters)
	}
	if r := f.must(0, "dead", "list"); !strings.Contains(r.out, letters[0].ID) || !strings.Contains(r.out, "poison") {
		t.Errorf("%s", r.out)
	}
	for _, id := range []string{"x", letters[0].ID} {
		if r := f.must(0, "dead", "show", id); !strings.Contains(r.out, `raw      {"id":"x","level":"HIGH"`) || !strings.Contains(r.out, letters[0].ID) {
			t.Errorf("%s", r.out)
		}
	}
	// It kills replicas once more: its second burial is a decision of its own.
	stop()
	r := f.must(0, "dead", "retry", "x")
	if !strings.Contains(r.out, "sent round again as alert x") || r.err != "" {
		t.Errorf("stdout %s\nstderr %s", r.out, r.err)
	}
	fields := strings.Fields(r.out)
	f.die("x", fields[len(fields)-1])
	stop = f.responder()
	f.settled("x", "dead")
	stop()
	f.must(0, "ledger", "audit", "--runtime-dir", f.run)
	f.must(0, "dead", "retry", "x")
	if e := f.settled("x", "held"); e.Owner != "-" {
		t.Errorf("%+v", e)
	}
	f.must(1, "dead", "retry", "x")
	f.responder()
	if e := f.settled("x", "done"); len(e.Steps) != 1 || e.Steps[0].Outcome != "observed" {
		t.Errorf("%+v", e)
	}
	if letters := lettersOf(t, f.must(0, "dead", "list", "-o", "json")); letters == nil || len(letters) != 0 {
		t.Errorf("%+v", letters)
	}
	if r := f.must(0, "ledger", "show", "x"); !strings.Contains(r.out, "sent round again by") || !strings.Contains(r.out, "@") {
		t.Errorf("%s", r.out)
	}
	f.must(0, "ledger", "audit", "--runtime-dir", f.run)

}

// What is no alert comes back as a letter of another entry, and leaves nothing behind.
func TestDeadRetryOfNoAlert(t *testing.T) {
	f := newFleet(t)
	f.responder()
	entry := f.add("alert", "attack\x1b[2J\xff")
	f.settled("entry~"+entry, "dead")
	if r := f.must(0, "dead", "show", "entry~"+entry); !strings.Contains(r.out, `raw      "attack\x1b[2J\xff"`) || strings.Contains(r.out, "\x1b") {
		t.Errorf("%q", r.out)
	}
	r := f.must(0, "dead", "retry", "entry~"+entry)
	if !strings.Contains(r.err, "it will be buried again unless") {
		t.Errorf("stderr %s", r.err)
	}
	fields := strings.Fields(r.out) // ... as alert entry~ID, entry ID
	again := fields[len(fields)-1]
	f.settled("entry~"+again, "dead")
	letters := lettersOf(t, f.must(0, "dead", "list", "-o", "json"))
	if len(letters) != 1 || letters[0].Alert != "entry~"+again || again == entry {
		t.Errorf("%+v", letters)
	}
	f.must(0, "ledger", "audit", "--runtime-dir", f.run)

	// Of several, each is tried, and what cannot be is said.
	r = f.must(1, "dead", "retry", "nobody", letters[0].ID, "1-1", "-o", "json")
	var told []struct{ ID, Alert, Entry, Warning, Error string }
	if err := json.Unmarshal([]byte(r.out), &told); err != nil || len(told) != 3 || strings.Count(r.err, "no dead letter") != 2 {
		t.Fatalf("%v: stdout %s\nstderr %s", err, r.out, r.err)
	}
	if a, b := told[0], told[1]; a.ID != "nobody" || !strings.Contains(a.Error, "no dead letter") || a.Entry != "" ||
		b.ID != letters[0].ID || b.Alert != "entry~"+b.Entry || b.Entry == "" || !strings.Contains(b.Warning, "buried again unless") || b.Error != "" {
		t.Errorf("%+v", told)
	}
	f.must(2, "dead", "retry")

	// Cut short by its publisher, of whose bytes it keeps the length and the hash.
	big := f.add("error", "malformed alert: 2097152 bytes", "length", 2097152, "sha256", "5ha", "alert", strings.Repeat("x", 64<<10))
	f.settled("entry~"+big, "dead")
	if r := f.must(1, "dead", "retry", "entry~"+big); !strings.Contains(r.err, "only the first 65536 of its 2097152 bytes") {
		t.Errorf("stderr %s", r.err)
	}
	if r := f.must(0, "dead", "show", "entry~"+big, "-o", "json"); !strings.Contains(r.out, `"sha256": "5ha"`) {
		t.Errorf("%.500s", r.out)
	}
}

// An alert whose time was up stays old.
func TestDeadRetryTooLate(t *testing.T) {
	f := newFleet(t)
	f.poison("x")
	f.responder()
	f.settled("x", "dead")
	key := "riposte:{h1}:ledger:containment:x"
	raw, err := f.rdb.Get(f.ctx, key).Bytes()
	if err != nil {
		t.Fatal(err)
	}
	_, body, err := ledger.ParseEntry(raw)
	if err != nil {
		t.Fatal(err)
	}
	body.Expires = time.Now().Add(-time.Hour)
	old, err := json.Marshal(body)
	if err != nil {
		t.Fatal(err)
	}
	header, _, _ := bytes.Cut(raw, []byte("\n"))
	if err := f.rdb.Set(f.ctx, key, slices.Concat(header, []byte("\n"), old), 0).Err(); err != nil {
		t.Fatal(err)
	}
	if r := f.must(0, "dead", "retry", "x"); !strings.Contains(r.err, "its time was up 60 min ago") {
		t.Errorf("stderr %s", r.err)
	}
	if e := f.settled("x", "done"); e.Steps[0].Outcome != "expired" {
		t.Errorf("%+v", e)
	}
}
