package ledger_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"riposte/ledger"
	"riposte/stream"
)

// delivery is the stream entry of an ID, as a responder would see it.
func (w *world) delivery(entry string) stream.Delivery {
	w.Helper()
	found, err := w.rdb.XRange(w.ctx, w.host.AlertsKey(), entry, entry).Result()
	w.must(err)
	if len(found) != 1 {
		w.Fatalf("no entry %s", entry)
	}
	text := func(name string) string { s, _ := found[0].Values[name].(string); return s }
	return stream.Delivery{StreamID: entry, Raw: []byte(text("alert")), GivenID: text("id"), Problem: text("error")}
}

// again begins a delivery as a responder would: under the ID it has.
func (w *world) again(l *ledger.Ledger, entry string) (stream.AlertID, ledger.Answer) {
	w.Helper()
	w.read("again")
	a, id, err := w.delivery(entry).Alert()
	w.must(err)
	return id, w.begin(l, ledger.Claim{ID: id, StreamID: entry, Nonce: ledger.NewNonce(), Digest: a.Digest(), Body: plan()})
}

func (w *world) letter(id string) ledger.Letter {
	w.Helper()
	l, err := w.reader().Letter(w.ctx, id)
	w.must(err)
	return l
}

func (w *world) letters() (n int64) { return w.rdb.XLen(w.ctx, w.host.DeadKey(w.group)).Val() }

// clean has the audit find nothing.
func (w *world) clean() *ledger.Report {
	w.Helper()
	report, err := w.reader().Audit(w.ctx, ledger.AuditConfig{})
	w.must(err)
	for _, f := range report.Findings {
		w.Errorf("audit: %s %s: %s", f.Kind, f.Key, f.Text)
	}
	return report
}

func TestRevive(t *testing.T) {
	w := newWorld(t)
	a := w.replica("a")
	g := w.take(a, "a", "x")
	w.must(record(w, a, g, 0, "killed"))
	g = w.granted(ledger.Resume, a, claim("x", g.StreamID), "a")
	w.must(a.Bury(w.ctx, g, letter(alertJSON("x", 4711), "poison")))
	buried, _ := w.entry("x")

	l := w.letter("x")
	if same := w.letter(l.LetterID); same.Alert != "x" || same.LetterID != l.LetterID {
		t.Errorf("by its own ID: %+v", same)
	}
	sent, err := w.reader().Revive(w.ctx, l, "me@here")
	w.must(err)
	if sent.Alert != "x" || sent.Entry == "" || !sent.Expires.Equal(plan().Expires) || sent.Problem != "" {
		t.Errorf("%+v", sent)
	}
	if h, b := w.entry("x"); h.State != ledger.Held || h.Owner != "-" || h.Deaths != 0 || !h.Lease.IsZero() || b.Retries != 1 || b.Steps[0].Outcome != "killed" {
		t.Errorf("revived: %+v, %+v", h, b)
	}
	if ttl := w.rdb.TTL(w.ctx, w.key("x")).Val(); ttl != -1 {
		t.Errorf("time to live of a held entry: %v", ttl)
	}
	if w.letters() != 0 {
		t.Error("the letter is still there")
	}
	w.clean()

	// Whoever held it before its burial does not hold it again.
	w.wantLost(record(w, a, g, 1, "killed"))
	w.wantLost(a.Bury(w.ctx, g, letter("", "late")))

	// Once more, by somebody who saw the letter too.
	if sent, err := w.reader().Revive(w.ctx, l, "you"); !errors.Is(err, ledger.ErrNotRevivable) {
		t.Errorf("twice: %+v, %v", sent, err)
	}

	id, answer := w.again(a, sent.Entry)
	if id != "x" || answer.Verdict != ledger.Resume || answer.Grant.Token.Epoch <= buried.Token.Epoch {
		t.Fatalf("%s: %+v", id, answer)
	}
	if body := answer.Grant.Body; body.Retries != 1 || body.Steps[0].Outcome != "killed" || body.Steps[1].Outcome != "" {
		t.Errorf("a step with a record would be run again, or one without would not: %+v", body)
	}
	w.must(record(w, a, answer.Grant, 1, "logged"))
	w.wantEvents("x", "run record resume bury revive late late resume record")
	report := w.clean()
	if c := report.Counts; c.Settled != 1 || c.Accepted != 1 || c.Dead != 0 || c.Letters != 0 || c.Pending != 0 {
		t.Errorf("%+v", c)
	}
}

// Two people at once: it is sent once.
func TestReviveConcurrently(t *testing.T) {
	w := newWorld(t)
	a := w.replica("a")
	w.bury(a, "a", "x")
	l := w.letter("x")
	var all sync.WaitGroup
	var mu sync.Mutex
	sent := 0
	for i := range 8 {
		all.Go(func() {
			_, err := w.reader().Revive(w.ctx, l, fmt.Sprint("p", i))
			mu.Lock()
			defer mu.Unlock()
			if err == nil {
				sent++
			} else if !errors.Is(err, ledger.ErrNotRevivable) {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if n := w.rdb.XLen(w.ctx, w.host.AlertsKey()).Val(); sent != 1 || n != 2 {
		t.Errorf("sent %d times, %d entries in the stream", sent, n)
	}
}

// What has changed since it was read is left alone.
func TestReviveOfWhatHasChanged(t *testing.T) {
	w := newWorld(t)
	a := w.replica("a")
	for name, change := range map[string]func(id string){
		"letter": func(id string) { w.must(w.rdb.XDel(w.ctx, w.host.DeadKey(w.group), w.letter(id).LetterID).Err()) },
		"entry":  func(id string) { w.begin(a, claim(id, w.deliver("a", id))) }, // a duplicate is counted
		"gone":   func(id string) { w.must(w.rdb.Del(w.ctx, w.key(id)).Err()) },
	} {
		w.bury(a, "a", name)
		l := w.letter(name)
		var was, entries any
		r := w.interrupted("mget", func() {
			change(name)
			was, entries = w.rdb.Get(w.ctx, w.key(name)).Val(), w.rdb.XLen(w.ctx, w.host.AlertsKey()).Val()
		})
		if sent, err := r.Revive(w.ctx, l, "me"); !errors.Is(err, ledger.ErrNotRevivable) {
			t.Errorf("%s: %+v, %v", name, sent, err)
		}
		if is := w.rdb.Get(w.ctx, w.key(name)).Val(); is != was || w.rdb.XLen(w.ctx, w.host.AlertsKey()).Val() != entries {
			t.Errorf("%s: something was written: %s, was %s", name, is, was)
		}
	}
}

// An alert under the ID of another keeps the ID it got then, also when that other one's
// entry is gone.
func TestReviveConflict(t *testing.T) {
	for _, gone := range []bool{false, true} {
		t.Run(fmt.Sprintf("gone=%v", gone), func(t *testing.T) {
			w := newWorld(t)
			a := w.replica("a")
			w.settle(a, "a", "x")
			raw := alertJSON("x", 4712)
			id := stream.AlertID("x").Conflicting(digest(raw))
			c := claim("x", w.add("id", "x", "alert", raw))
			c.ID, c.Digest = id, digest(raw)
			w.read("a")
			w.must(a.Bury(w.ctx, w.granted(ledger.Run, a, c), letter(raw, "poison")))
			if gone {
				w.must(w.rdb.Del(w.ctx, w.key("x")).Err())
			}
			sent, err := w.reader().Revive(w.ctx, w.letter(string(id)), "me")
			w.must(err)
			under, answer := w.again(a, sent.Entry)
			if sent.Alert != id || under != id || answer.Verdict != ledger.Resume {
				t.Errorf("sent as %s, begun as %s: %+v; want %s", sent.Alert, under, answer, id)
			}
		})
	}
}

// An alert without ID and timestamp has its ID from its stream entry, and keeps it.
func TestReviveDerivedID(t *testing.T) {
	w := newWorld(t)
	a := w.replica("a")
	raw := `{"level":"HIGH","actionable_pid":4711}`
	entry := w.add("alert", raw)
	id, answer := w.again(a, entry)
	w.must(a.Bury(w.ctx, answer.Grant, letter(raw, "poison")))
	sent, err := w.reader().Revive(w.ctx, w.letter(string(id)), "me")
	w.must(err)
	if under, answer := w.again(a, sent.Entry); under != id || answer.Verdict != ledger.Resume {
		t.Errorf("%s: %+v; want %s", under, answer, id)
	}
	w.clean()
}

// What is no alert is a new one each time it comes: the entry of the old stream entry
// stays dead, and expires.
func TestReviveOfNoAlert(t *testing.T) {
	w := newWorld(t)
	a := w.replica("a")
	unusable := func(fields ...any) (entry string) {
		entry = w.add(fields...)
		w.read("a")
		c := ledger.Claim{ID: stream.EntryID(entry), StreamID: entry, Nonce: ledger.NewNonce(), Digest: "-", Body: plan()}
		w.must(a.Bury(w.ctx, w.granted(ledger.Run, a, c), w.delivery(entry).DeadLetter("no alert")))
		return entry
	}
	entry := unusable("alert", "attack!\xff")
	sent, err := w.reader().Revive(w.ctx, w.letter("entry~"+entry), "me")
	w.must(err)
	if sent.Alert != stream.EntryID(sent.Entry) || !strings.Contains(sent.Problem, "malformed") || w.letters() != 0 {
		t.Errorf("%+v, %d letters", sent, w.letters())
	}
	if d := w.delivery(sent.Entry); string(d.Raw) != "attack!\xff" {
		t.Errorf("sent %q", d.Raw)
	}
	if h, _ := w.entry("entry~" + entry); h.State != ledger.Dead {
		t.Errorf("the old entry is %s: whom would it wait for?", h.State)
	}
	w.clean()

	// What its publisher refused, and this version takes.
	raw := alertJSON("y", 4711)
	entry = unusable("error", "alert for another host", "length", len(raw), "alert", raw)
	sent, err = w.reader().Revive(w.ctx, w.letter("entry~"+entry), "me")
	w.must(err)
	if id, answer := w.again(a, sent.Entry); id != "y" || sent.Alert != "y" || answer.Verdict != ledger.Run || sent.Problem != "" {
		t.Errorf("%s: %+v", id, answer)
	}

	// What killed all who touched it, before they could begin: with no time of its own it
	// keeps the time at which it came, or it would name whoever has its PID by now.
	entry = unusable("id", "given", "alert", `{"level":"HIGH","actionable_pid":4711,"more":[1]}`)
	l := w.letter("entry~" + entry)
	sent, err = w.reader().Revive(w.ctx, l, "me")
	w.must(err)
	alert, id, err := w.delivery(sent.Entry).Alert()
	w.must(err)
	from, until, err := alert.When(time.UTC)
	if want := (stream.Delivery{StreamID: entry}).When(); err != nil || !from.Equal(want) || until.Sub(from) != time.Millisecond {
		t.Errorf("seen from %v to %v, %v; want %v", from, until, err, want)
	}
	if id != "given" || sent.Alert != "given" || string(alert.Extra["more"]) != "[1]" || alert.Digest() != digest(`{"level":"HIGH","actionable_pid":4711}`) {
		t.Errorf("%s: %+v", id, alert)
	}
	w.clean()
}

// The ledger forgets, the letters do not: then it is a new alert, of the old time.
func TestReviveAfterRetention(t *testing.T) {
	w := newWorld(t)
	a := w.replica("a")
	w.bury(a, "a", "x")
	w.must(w.rdb.Del(w.ctx, w.key("x")).Err())
	sent, err := w.reader().Revive(w.ctx, w.letter("x"), "me")
	w.must(err)
	if id, answer := w.again(a, sent.Entry); id != "x" || answer.Verdict != ledger.Run || w.letters() != 0 {
		t.Errorf("%s: %+v, %d letters", id, answer, w.letters())
	}

	// One that came under an ID of another's keeps that as well, with its time put in.
	raw := `{"level":"HIGH","actionable_pid":4712}`
	id := stream.AlertID("y").Conflicting(digest(raw))
	c := claim("y", w.add("id", "y", "alert", raw))
	c.ID, c.Digest = id, digest(raw)
	w.read("a")
	w.must(a.Bury(w.ctx, w.granted(ledger.Run, a, c), letter(raw, "poison")))
	w.must(w.rdb.Del(w.ctx, w.key(string(id))).Err())
	sent, err = w.reader().Revive(w.ctx, w.letter(string(id)), "me")
	w.must(err)
	if under, answer := w.again(a, sent.Entry); under != id || answer.Verdict != ledger.Run {
		t.Errorf("%s: %+v, want %s", under, answer, id)
	}
}

func TestReviveRefuses(t *testing.T) {
	w := newWorld(t)
	a := w.replica("a")
	g := w.take(a, "a", "long")
	w.must(a.Bury(w.ctx, g, letter(strings.Repeat("x", stream.MaxDeadBytes+1), "poison")))
	g = w.take(a, "a", "cut") // by its publisher
	w.must(a.Bury(w.ctx, g, stream.Delivery{Raw: []byte("{"), Problem: "long", Length: 1 << 21, SHA256: "5"}.DeadLetter("long")))
	g = w.take(a, "a", "empty")
	w.must(a.Bury(w.ctx, g, letter("", "deleted")))
	g = w.take(a, "a", "other")
	w.must(a.Bury(w.ctx, g, letter(alertJSON("other", 1), "poison")))
	w.bury(a, "a", "again")
	w.must(w.rdb.Set(w.ctx, w.key("again"), "done 1 0 o n 0 0 0 d 1-1 g\n{}", 0).Err())
	w.bury(a, "a", "bad")
	w.must(w.rdb.Set(w.ctx, w.key("bad"), "bad", 0).Err())
	entries, letters := w.rdb.XLen(w.ctx, w.host.AlertsKey()).Val(), w.letters()
	for id, says := range map[string]string{
		"long": "only the first 65536 of its 65537 bytes", "cut": "only the first 1 of its 2097152", "empty": "holds no alert",
		"other": "another version", "again": "is done", "bad": "cannot be read",
	} {
		sent, err := w.reader().Revive(w.ctx, w.letter(id), "me")
		if !errors.Is(err, ledger.ErrNotRevivable) || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: %+v, %v", id, sent, err)
		}
	}
	if n := w.rdb.XLen(w.ctx, w.host.AlertsKey()).Val(); n != entries || w.letters() != letters {
		t.Error("something was sent or removed")
	}
	var unknown *ledger.UnknownLetterError
	for _, id := range []string{"nobody", "1-1", "", "1-x"} {
		if l, err := w.reader().Letter(w.ctx, id); !errors.As(err, &unknown) {
			t.Errorf("%q: %+v, %v", id, l, err)
		}
	}
}

func TestLetterJSON(t *testing.T) {
	t.Parallel()
	l := ledger.Letter{LetterID: "1767225600000-0", Alert: "x", Raw: []byte("a\xff")}
	raw, err := json.Marshal(l)
	if err != nil || !strings.Contains(string(raw), `"at":"2026-01-01T00:00:00.000000Z"`) || !strings.Contains(string(raw), `"raw_base64":"Yf8="`) || strings.Contains(string(raw), `"raw":`) {
		t.Errorf("%s, %v", raw, err)
	}
	l.Raw = []byte("{}")
	if raw, _ := json.Marshal(l); !strings.Contains(string(raw), `"raw":"{}"`) || strings.Contains(string(raw), "base64") {
		t.Errorf("%s", raw)
	}
}
