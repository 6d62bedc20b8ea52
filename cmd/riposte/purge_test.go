package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
)

// bury puts dead letters of an age into the stream of them.
func (f *fleet) letter(alert string, age time.Duration) (id string) {
	f.Helper()
	id = fmt.Sprintf("%d-0", time.Now().Add(-age).UnixMilli())
	err := f.rdb.XAdd(f.ctx, &redis.XAddArgs{Stream: "riposte:{h1}:dead:containment", ID: id,
		Values: []any{"id", alert, "entry", "1-1", "reason", "poison", "epoch", "5", "replica", "r", "length", "2", "raw", "{}"}}).Err()
	if err != nil {
		f.Fatal(err)
	}
	return id
}

func TestDeadPurge(t *testing.T) {
	f := newFleet(t)
	oldest := f.letter("a", 72*time.Hour)
	f.letter("b", 48*time.Hour)
	f.letter("c", time.Hour)
	f.letter("d", time.Minute)
	letters := func() string {
		var names []string
		for _, l := range lettersOf(t, f.must(0, "dead", "list", "-o", "json")) {
			names = append(names, l.Alert)
		}
		return strings.Join(names, " ")
	}
	for _, args := range [][]string{{}, {"a", "--all"}, {"--all", "--older-than", "1h"}, {"--older-than", "-1h"}, {"--older-than", "soon"}} {
		f.must(2, append([]string{"dead", "purge"}, args...)...)
	}
	if r := f.must(1, "dead", "purge", "c", "nobody"); !strings.Contains(r.err, "no dead letter") || letters() != "a b c d" {
		t.Errorf("left %q; %s", letters(), r.err)
	}
	if r := f.must(0, "dead", "purge", oldest); r.out != oldest+"  purged, alert a\n" || letters() != "b c d" {
		t.Errorf("left %q; %s", letters(), r.out)
	}
	r := f.must(0, "dead", "purge", "c", "c", "-o", "json")
	var told []struct {
		ID, Alert, Error string
		Purged           bool
	}
	if err := json.Unmarshal([]byte(r.out), &told); err != nil || len(told) != 2 || !strings.Contains(r.err, "was gone already") {
		t.Fatalf("twice: %v: %s, %s", err, r.out, r.err)
	}
	if a, b := told[0], told[1]; a.Alert != "c" || !a.Purged || b.ID != a.ID || b.Purged || a.Error+b.Error != "" {
		t.Errorf("twice: %+v", told)
	}
	f.must(0, "dead", "purge", "--older-than", "30m")
	if letters() != "d" {
		t.Errorf("left %q", letters())
	}
	if r := f.must(0, "dead", "purge", "--older-than", "30m"); r.out != "" {
		t.Errorf("nothing to do: %s", r.out)
	}
	if r := f.must(0, "dead", "purge", "--older-than", "30m", "-o", "json"); r.out != "[]\n" {
		t.Errorf("nothing to do: %q", r.out)
	}
	f.must(0, "dead", "purge", "--all")
	if letters() != "" {
		t.Errorf("left %q", letters())
	}
	r = f.must(0, "ledger", "tail")
	if n := strings.Count(r.out, "dead letter purged by "+person()+"; it had been buried: poison"); n != 4 {
		t.Errorf("%d in the journal:\n%s", n, r.out)
	}
}

func TestPurgeAsks(t *testing.T) {
	t.Parallel()
	for answer, want := range map[string]bool{"y\n": true, "YES \n": true, "y": true, "": false, "\n": false, "n\n": false, "yo\n": false} {
		var errw bytes.Buffer
		p := &purge{booking: &booking{app: &app{in: strings.NewReader(answer), errw: &errw}}}
		if ok, err := p.confirm("Really?"); ok != want || err != nil || errw.String() != "Really? [y/N] " {
			t.Errorf("%q: %v, %v, %q", answer, ok, err, errw.String())
		}
	}
	file, err := os.Open("purge_test.go")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if terminal(file) || terminal(strings.NewReader("")) {
		t.Error("no terminal is asked")
	}
}
