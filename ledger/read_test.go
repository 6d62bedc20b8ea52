package ledger_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"riposte/ledger"
	"riposte/stream"
)

func TestListJSON(t *testing.T) {
	w := newWorld(t)
	at := time.Date(2026, 1, 2, 3, 4, 5, 600_000_000, time.FixedZone("", 3600))
	body := ledger.Body{Seen: at, Level: "HIGH", Title: "t", Steps: []ledger.Step{
		{Playbook: "p", Step: "kill", Action: "terminate_process", Mode: "enforce", Attempts: 2, Outcome: "killed", Reason: "why", Epoch: 17, Replica: "r1", Started: at, Ended: at.Add(1234567 * time.Nanosecond)},
		{Playbook: "p", Step: "log", Action: "log", Mode: "enforce", Attempts: 1},
	}}
	w.put("x", "held 1767225600000017 0 r2 n 1 3 0 d 1-1 g", body)
	entries, unreadable, err := w.reader().List(w.ctx)
	w.must(err)
	raw, err := json.Marshal(entries)
	w.must(err)
	const want = `[{"id":"x","host":"h1","group":"containment","state":"held","epoch":1767225600000017,"owner":"r2","attempts":2,"duplicates":3,"flags":[],` +
		`"published":"1970-01-01T00:00:00.001000Z","seen":"2026-01-02T02:04:05.600000Z","level":"HIGH","title":"t","delivery":"1-1","deaths":0,"retries":0,"steps":[` +
		`{"playbook":"p","step":"kill","action":"terminate_process","mode":"enforce","attempts":2,"outcome":"killed","reason":"why","epoch":17,"replica":"r1","started":"2026-01-02T02:04:05.600000Z","ended":"2026-01-02T02:04:05.601234Z"},` +
		`{"playbook":"p","step":"log","action":"log","mode":"enforce","attempts":1,"outcome":"","reason":"","epoch":0,"replica":"","started":null,"ended":null}]}]`
	if string(raw) != want || len(unreadable) != 0 {
		t.Errorf("got  %s\nwant %s\nunreadable %v", raw, want, unreadable)
	}
}

func TestListOrder(t *testing.T) {
	w := newWorld(t)
	if entries, _, err := w.reader().List(w.ctx); err != nil || entries == nil || len(entries) != 0 {
		t.Errorf("empty: %v, %v", entries, err)
	}
	// The time that the alert names is the sender's word, and orders nothing.
	body := func(year int) ledger.Body {
		return ledger.Body{Seen: time.Date(year, 1, 2, 3, 4, 5, 0, time.UTC), Flags: []string{"f"}}
	}
	header := func(published int) string { return fmt.Sprintf("done 1 0 o n 0 0 0 d %d-1 g", published) }
	var want []string
	for i := range 3000 { // many pages of keys
		id := fmt.Sprintf("m%04d", i)
		w.put(id, header(50), body(2000+i%50))
		want = append(want, id)
	}
	w.put("b", header(90), body(2020))
	w.put("a", header(90), body(2030))
	w.put("z", header(8), body(2040))
	want = append(append([]string{"z"}, want...), "a", "b")
	w.must(w.rdb.Set(w.ctx, w.key("bad"), "x", 0).Err())
	w.must(w.rdb.Set(w.ctx, stream.Host("h1").LedgerKey("other", "theirs"), header(1)+"\n{}", 0).Err())
	w.must(w.rdb.Set(w.ctx, stream.Host("h2").LedgerKey("containment", "theirs"), header(1)+"\n{}", 0).Err())
	entries, unreadable, err := w.reader().List(w.ctx)
	w.must(err)
	var got []string
	for _, e := range entries {
		got = append(got, string(e.ID))
	}
	if !slices.Equal(got, want) || !slices.Equal(unreadable, []stream.AlertID{"bad"}) {
		t.Errorf("%d entries, unreadable %v: from %v to %v", len(got), unreadable, got[:3], got[len(got)-3:])
	}
}

func TestFind(t *testing.T) {
	w := newWorld(t)
	const header = "done 1 0 o n 0 0 0 d 1-1 g"
	var unknown *ledger.UnknownAlertError
	if _, err := w.reader().Find(w.ctx, "x"); !errors.As(err, &unknown) || len(unknown.Near) != 0 || !strings.Contains(err.Error(), "empty") {
		t.Errorf("empty ledger: %v", err)
	}
	for _, id := range []string{"5995e96c-3bad", "5995e96c-4000", "77aa", "77", "q*", "qq", "cf~d1", "one", "two", "three", "four", "five"} {
		w.put(id, header, plan())
	}
	for given, want := range map[string]stream.AlertID{
		"5995e96c-3bad": "5995e96c-3bad", "5995e96c-3": "5995e96c-3bad", "77": "77", "77a": "77aa", "q*": "q*", "cf": "cf~d1",
	} {
		if e, err := w.reader().Find(w.ctx, given); err != nil || e.ID != want || e.Header.State != ledger.Done {
			t.Errorf("%q: %+v, %v", given, e, err)
		}
	}
	if _, err := w.reader().Find(w.ctx, "5995"); !errors.As(err, &unknown) || !unknown.Several ||
		!slices.Equal(unknown.Near, []stream.AlertID{"5995e96c-3bad", "5995e96c-4000"}) {
		t.Errorf("the beginning of two: %v", err)
	}
	for _, given := range []string{"5995f96c-3bad", "*", ""} {
		_, err := w.reader().Find(w.ctx, given)
		if !errors.As(err, &unknown) || unknown.Several || len(unknown.Near) != 5 {
			t.Errorf("%q: %v", given, err)
		}
		if given != "" && given != "*" && unknown.Near[0] != "5995e96c-3bad" {
			t.Errorf("%q: nearest %v", given, unknown.Near)
		}
	}
}

func TestHistoryTailNext(t *testing.T) {
	w := newWorld(t)
	a, b := w.replica("a"), w.replica("b")
	g := w.take(a, "a", "x")
	w.settle(a, "a", "y")
	g = w.granted(ledger.Resume, b, claim("x", g.StreamID), "a")
	w.must(record(w, b, g, 0, "logged"))
	// Much else happens, in another group.
	pipe := w.rdb.Pipeline()
	for range 2500 {
		pipe.XAdd(w.ctx, &redis.XAddArgs{Stream: w.host.JournalKey(), Values: []any{"id", "x", "group", "forensics", "event", "run", "epoch", "7", "owner", "f"}})
	}
	_, err := pipe.Exec(w.ctx)
	w.must(err)
	w.must(record(w, b, g, 1, "killed"))

	history, err := w.reader().History(w.ctx, "x")
	w.must(err)
	var words []string
	for _, e := range history {
		words = append(words, strings.ReplaceAll(e.Words(), fmt.Sprint(e.Epoch), "E"))
		if at := time.Since(e.At()); at < 0 || at > time.Minute {
			t.Errorf("%+v happened %v ago", e, at)
		}
	}
	want := []string{"granted to a, epoch E", "taken over from a by b, epoch E", "p/one: logged, recorded by b", "p/two: killed, recorded by b"}
	if !slices.Equal(words, want) {
		t.Errorf("history %q", words)
	}
	if none, err := w.reader().History(w.ctx, "nobody"); err != nil || none == nil || len(none) != 0 {
		t.Errorf("%v, %v", none, err)
	}

	events, last, err := w.reader().Tail(w.ctx, 4) // across pages of the other group's
	w.must(err)
	var tail []string
	for _, e := range events {
		tail = append(tail, string(e.ID)+" "+e.Event+" "+e.Outcome)
	}
	if !slices.Equal(tail, []string{"y record logged", "x resume ", "x record logged", "x record killed"}) {
		t.Errorf("tail %q", tail)
	}
	all := ledger.NewReader(w.rdb, w.host, "")
	if events, _, err := all.Tail(w.ctx, 20); err != nil || len(events) != 20 || events[0].Group != "forensics" || events[19].Group != w.group {
		t.Errorf("tail of all groups: %d, %v", len(events), err)
	}

	events, _, err = all.Tail(w.ctx, 2400)
	lines := map[string]bool{}
	for _, e := range events {
		lines[e.Line] = true
	}
	if err != nil || len(events) != 2400 || len(lines) != 2400 {
		t.Errorf("tail of many pages: %d events, %d lines, %v", len(events), len(lines), err)
	}

	if events, next, err := w.reader().Next(w.ctx, last); err != nil || len(events) != 0 || next != last {
		t.Errorf("nothing new: %v, %s after %s, %v", events, next, last, err)
	}
	w.must(w.rdb.XAdd(w.ctx, &redis.XAddArgs{Stream: w.host.JournalKey(), Values: []any{"id", "q", "group", "forensics", "event", "run"}}).Err())
	w.take(a, "a", "z")
	events, next, err := w.reader().Next(w.ctx, last)
	if err != nil || len(events) != 1 || events[0].ID != "z" || next != events[0].Line {
		t.Errorf("new: %+v, %s, %v", events, next, err)
	}
	if events, last, err := ledger.NewReader(w.rdb, "h9", "").Tail(w.ctx, 20); err != nil || len(events) != 0 || last != "0" {
		t.Errorf("no journal: %v, %q, %v", events, last, err)
	}
}

func TestWords(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		event ledger.Event
		words string
	}{
		{ledger.Event{Event: "resume", Owner: "b", From: "-", Epoch: 7}, "granted again to b, epoch 7"},
		{ledger.Event{Event: "resume", Owner: "b", From: "b", Epoch: 7}, "begun anew by b, epoch 7"},
		{ledger.Event{Event: "poison", Owner: "b", Epoch: 7}, "granted to b, epoch 7, only to be buried: too many replicas died with it"},
		{ledger.Event{Event: "retry", Owner: "b", Step: "p/s", Reason: "no luck"}, "p/s failed and will be tried again by b: no luck"},
		{ledger.Event{Event: "late", Owner: "b", Epoch: 7, Step: "p/s", Outcome: "killed"}, "p/s: killed came too late from b, whose epoch 7 did not stand any more; not counted"},
		{ledger.Event{Event: "late", Owner: "b", Epoch: 7, Outcome: "dead"}, "burial: dead came too late from b, whose epoch 7 did not stand any more; not counted"},
		{ledger.Event{Event: "release", Owner: "b", Reason: "stop"}, "handed back by b: stop"},
		{ledger.Event{Event: "bury", Owner: "b", Reason: "poison"}, "buried as a dead letter by b: poison"},
		{ledger.Event{Event: "revive", Owner: "me@h", Entry: "1-1"}, "sent round again by me@h, as stream entry 1-1"},
		{ledger.Event{Event: "park", Owner: "b", Reason: "approval"}, "set aside by b: approval"},
		{ledger.Event{Event: "wake", Owner: "b", Entry: "1-1"}, "sent round again by b, as stream entry 1-1"},
		{ledger.Event{Event: "approve", Owner: "me@h", Entry: "1-1"}, "approved by me@h, and sent round again as stream entry 1-1"},
		{ledger.Event{Event: "deny", Owner: "me@h", Entry: "1-1"}, "denied by me@h, and sent round again as stream entry 1-1"},
		{ledger.Event{Event: "undo", Owner: "me@h", Entry: "1-1", Reason: "no"}, "me@h wants it undone; sent round again as stream entry 1-1: no"},
		{ledger.Event{Event: "plan", Owner: "b", Step: "p/s", Reason: "block 203.0.113.7"}, "p/s: made out by b: block 203.0.113.7"},
		{ledger.Event{Event: "lapse", Step: "p/s", Reason: "its time was over at noon"}, "p/s: its time was over at noon"},
		{ledger.Event{Event: "else", Owner: "b"}, "else by b"},
	} {
		if got := c.event.Words(); got != c.words {
			t.Errorf("%+v: %q", c.event, got)
		}
	}
}
