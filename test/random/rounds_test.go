package random

import (
	"errors"
	"slices"
	"strings"
	"time"

	"pgregory.net/rapid"

	"riposte/ledger"
	"riposte/stream"
)

// Wake sends due alerts round again, perhaps while a peer does the same.
func (m *machine) Wake(t *rapid.T) {
	by, peer, n, lost := m.anybody(t), m.anybody(t), rapid.IntRange(1, 3).Draw(t, "n"), m.loseReply(t)
	raced := one(t, 4, "a peer is faster")
	if raced {
		m.fault.before = func() { _, err := peer.ledger.Wake(m.ctx, n); must(t, err) }
	}
	var got int
	var err error
	now := m.during(t, func() { got, err = by.ledger.Wake(m.ctx, n) })
	raced = raced && m.fault.before == nil
	want := 0
	switch {
	case raced:
		m.wake(now, peer.name, n)
	case lost:
		want = m.wake(now, by.name, n) // only the first answer is lost
	default:
		want = m.wake(now, by.name, n)
	}
	m.did(t, "wake", "%s wakes %d of %d, raced: %v", by.name, want, n, raced)
	m.tally["woken"] += want
	if m.unanswered(err) {
		return
	}
	must(t, err)
	if got != want {
		wrong(t, "other alerts are woken", "%d; the model: %d", got, want)
	}
}

// letter draws a dead letter: one there is, or one that somebody still has on the screen.
func (m *machine) letter(t *rapid.T) (l ledger.Letter, ok bool) {
	letters := m.shown
	if !one(t, 4, "an old letter") {
		letters = nil
		must(t, m.reader.Letters(m.ctx, func(l ledger.Letter) error {
			letters = append(letters, l)
			return nil
		}))
	}
	if len(letters) == 0 {
		return l, false
	}
	l = choose(t, "letter", letters)
	m.shown = append(m.shown, l)
	return l, true
}

// Revive sends a dead letter round again, perhaps while somebody else does the same.
func (m *machine) Revive(t *rapid.T) {
	l, ok := m.letter(t)
	if !ok {
		return
	}
	by := "somebody"
	m.loseReply(t)
	if one(t, 4, "somebody else is faster") {
		by = "somebody else"
		m.fault.before = func() {
			if _, err := m.reader.Revive(m.ctx, l, by); !errors.Is(err, ledger.ErrNotRevivable) {
				must(t, err)
			}
		}
	}
	var done ledger.Revived
	var err error
	now := m.during(t, func() { done, err = m.reader.Revive(m.ctx, l, "somebody") })
	raced := by != "somebody" && m.fault.before == nil
	if !raced {
		by = "somebody"
	}
	ok = len(l.Raw) > 0 && m.revive(now, l.LetterID, by) // of what was opened again there is no alert
	m.did(t, "revive", "%s: %v, raced: %v", l.Alert, ok, raced)
	if m.unanswered(err) {
		return
	}
	if !ok || raced {
		if !errors.Is(err, ledger.ErrNotRevivable) {
			wrong(t, "a letter is revived that cannot be", "%+v, %v", done, err)
		}
		return
	}
	must(t, err)
	if done.Alert != l.Alert {
		wrong(t, "another alert is revived", "%+v; the model: %s", done, l.Alert)
	}
}

// Undo has one more step of a settled alert carried out, as riposte undo does.
func (m *machine) Undo(t *rapid.T) {
	any := one(t, 8, "one that may not be settled")
	var ids []stream.AlertID
	for id, e := range m.entries {
		if any || e.state == ledger.Done {
			ids = append(ids, id)
		}
	}
	if len(ids) == 0 {
		return
	}
	slices.Sort(ids)
	id := choose(t, "entry", ids)
	step := ledger.Step{Playbook: "p", Step: "undo-" + m.nonce(), Action: "log", Mode: "enforce", Timeout: time.Second}
	m.loseReply(t)
	var err error
	now := m.during(t, func() {
		err = m.reader.Reopen(m.ctx, id, "somebody", "why", func(b *ledger.Body) error {
			b.Steps = append(b.Steps, step)
			return nil
		})
	})
	ok := m.reopen(now, id, step, "somebody", "why")
	m.did(t, "undo", "%s: %v", id, ok)
	switch {
	case m.unanswered(err):
	case ok:
		must(t, err)
	case !errors.Is(err, ledger.ErrNotReopened):
		wrong(t, "an alert is opened again that cannot be", "%s: %v", id, err)
	}
}

// Purge removes a dead letter for good.
func (m *machine) Purge(t *rapid.T) {
	l, ok := m.letter(t)
	if !ok || !one(t, 3, "purge") { // else too few are left to revive
		return
	}
	m.loseReply(t)
	got, err := m.reader.Purge(m.ctx, l, "somebody")
	want := m.purge(l.LetterID, "somebody")
	m.did(t, "purge", "%s: %v", l.Alert, want)
	if m.unanswered(err) {
		return
	}
	must(t, err)
	if got != want {
		wrong(t, "a letter is purged otherwise", "%v; the model: %v", got, want)
	}
}

// Resolve notes what somebody found out about a step whose outcome is unknown.
func (m *machine) Resolve(t *rapid.T) {
	var doubtful []stream.AlertID
	for id, e := range m.entries {
		if strings.Contains(e.body, `"outcome":"unknown"`) {
			doubtful = append(doubtful, id)
		}
	}
	if len(doubtful) == 0 {
		return
	}
	slices.Sort(doubtful)
	id, i := choose(t, "entry", doubtful), rapid.IntRange(0, steps-1).Draw(t, "step")
	name := m.entries[id].step(i).Name()
	note := ledger.Note{By: "somebody", Note: "found by " + m.nonce()}
	faster := ledger.Note{By: "somebody else", Note: "found by " + m.nonce()}
	m.loseReply(t)
	race := one(t, 4, "somebody else is faster")
	if race {
		m.fault.before = func() {
			_, err := m.reader.Resolve(m.ctx, id, name, faster.By, faster.Note)
			must(t, err)
		}
	}
	var got ledger.Resolution
	var err error
	now := m.during(t, func() { got, err = m.reader.Resolve(m.ctx, id, name, note.By, note.Note) })
	race = race && m.fault.before == nil
	if found, ferr := m.reader.Find(m.ctx, string(id)); ferr == nil && found.Body.Steps[i].Resolved != nil {
		note.At = found.Body.Steps[i].Resolved.At
		faster.At = note.At
	}
	fresh := m.entries[id].step(i).Resolved == nil
	if race {
		m.resolve(id, i, faster)
	}
	lost := m.unanswered(err)
	var ok bool
	var earlier *ledger.Note
	if !race || !fresh || !lost { // else the reply that was lost said: look again
		ok, earlier = m.resolve(id, i, note)
	}
	m.did(t, "resolve", "%s, step %d: %v, raced: %v", id, i, ok, race)
	switch {
	case ok && fresh && !now.is(note.At.UnixMicro()):
		wrong(t, "a note was not written now", "%v, not in %v", note.At, now)
	case lost:
	case !ok:
		if !errors.Is(err, ledger.ErrNotResolvable) {
			wrong(t, "a step is resolved that cannot be", "%+v, %v", got, err)
		}
	default:
		must(t, err)
		if (got.Earlier == nil) != (earlier == nil) || earlier != nil && got.Earlier.Note != earlier.Note {
			wrong(t, "another note stands", "%+v; the model: %+v", got.Earlier, earlier)
		}
	}
}
