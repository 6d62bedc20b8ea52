package ledger

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"riposte/stream"
)

// unknown is the outcome of which nobody can say whether it happened.
const unknown = "unknown"

// Note is what a person found out about a step whose outcome is unknown. It is evidence
// beside the outcome, never another outcome.
type Note struct {
	By   string    `json:"by"`
	At   time.Time `json:"at"` // on Redis's clock
	Note string    `json:"note"`
}

// MarshalJSON writes the time as everywhere else.
func (n Note) MarshalJSON() ([]byte, error) {
	return json.Marshal(struct {
		By   string `json:"by"`
		At   string `json:"at"`
		Note string `json:"note"`
	}{n.By, Stamp(n.At), n.Note})
}

// Name of the step, as the journal and people write it.
func (s Step) Name() string { return s.Playbook + "/" + s.Step }

// unresolved counts the steps that a person should look at.
func (b *Body) unresolved() (n int) {
	for _, s := range b.Steps {
		if s.Outcome == unknown && s.Resolved == nil {
			n++
		}
	}
	return n
}

// MaxNote bounds a note, in bytes.
const MaxNote = 1000

// ErrNotResolvable says that a step cannot be resolved, and why. Nothing was changed.
var ErrNotResolvable = errors.New("cannot be resolved")

// Resolution is what became of a note.
type Resolution struct {
	Step    string // PLAYBOOK/STEP
	Earlier *Note  // it stands; the later note is in the journal only
}

// Resolve notes what a person found out about a step whose outcome is unknown: the one
// named PLAYBOOK/STEP, or the only one. The outcome stays, and so does a note that stands
// already. The entry must be settled: until then its body is its holder's, who would
// write over the note.
func (r *Reader) Resolve(ctx context.Context, id stream.AlertID, step, by, note string) (Resolution, error) {
	no := func(format string, args ...any) (Resolution, error) {
		return Resolution{}, fmt.Errorf("alert %s %w: %s", id, ErrNotResolvable, fmt.Sprintf(format, args...))
	}
	if note = strings.TrimSpace(note); note == "" || len(note) > MaxNote {
		return no("say in 1 to %d bytes what you found; this has %d", MaxNote, len(note))
	}
	const tries = 10 // a duplicate that is counted changes the entry, too
	for range tries {
		found, err := r.fetch(ctx, []stream.AlertID{id})
		if err != nil {
			return Resolution{}, err
		}
		raw, ok := found[id]
		if !ok {
			return Resolution{}, &UnknownAlertError{Given: string(id)}
		}
		header, body, err := ParseEntry(raw)
		switch {
		case err != nil:
			return no("its entry cannot be read: %v", err)
		case !header.Settled():
			return no("it is %s; wait until it is settled: `riposte ledger show %s`", header.State, id)
		}
		i, err := body.doubtful(step)
		if err != nil {
			return no("%v", err)
		}
		done := Resolution{body.Steps[i].Name(), body.Steps[i].Resolved}
		next := raw
		if done.Earlier == nil {
			now, err := r.rdb.Time(ctx).Result()
			if err != nil {
				return Resolution{}, fmt.Errorf("resolve %s: %w", id, err)
			}
			body.Steps[i].Resolved = &Note{by, now.UTC(), note}
			body.Unresolved = body.unresolved()
			text, err := json.Marshal(body)
			if err != nil {
				return Resolution{}, fmt.Errorf("resolve %s: %w", id, err)
			}
			line, _, _ := bytes.Cut(raw, []byte("\n"))
			next = slices.Concat(line, []byte("\n"), text)
		}
		keys := []string{r.host.JournalKey(), r.host.LedgerKey(r.group, id)}
		written, err := resolveScript.Run(ctx, r.rdb, keys,
			string(r.group), DefaultRetention.Milliseconds(), by, done.Step, note, raw, next, "resolve").Bool()
		if err != nil {
			return Resolution{}, fmt.Errorf("resolve %s: %w; it may have been noted: see `riposte ledger show %s`", id, err, id)
		}
		if written {
			return done, nil
		}
	}
	return no("its entry changes all the time; try again")
}

// doubtful finds the step of unknown outcome that is meant: the one named, or the only one,
// or the only one without a note.
func (b *Body) doubtful(name string) (int, error) {
	var all, open []int
	var names []string
	for i, s := range b.Steps {
		if s.Name() == name && s.Outcome != unknown {
			return 0, fmt.Errorf("the outcome of %s is %q, not unknown", name, s.Outcome)
		}
		if s.Outcome != unknown || name != "" && s.Name() != name {
			continue
		}
		all, names = append(all, i), append(names, s.Name())
		if s.Resolved == nil {
			open = append(open, i)
		}
	}
	switch {
	case len(all) == 0 && name != "":
		return 0, fmt.Errorf("it has no step %q", clip(name))
	case len(all) == 0:
		return 0, errors.New("none of its steps has an unknown outcome")
	case len(open) == 1:
		return open[0], nil
	case len(all) == 1:
		return all[0], nil
	}
	return 0, fmt.Errorf("name one of its steps with --step: %s", strings.Join(names, ", "))
}
