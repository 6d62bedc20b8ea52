package ledger

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"riposte/stream"
)

// ErrUndecidable says that a person's decision about an alert changes nothing, and why.
var ErrUndecidable = errors.New("cannot be decided on")

// Decide answers what an alert waits for in mode approve, and sends it round again. The
// answer that came first stands; who gave it and why is recorded.
func (r *Reader) Decide(ctx context.Context, id stream.AlertID, yes bool, by, reason string) (*Approval, error) {
	no := func(format string, args ...any) error {
		return fmt.Errorf("alert %s %w: %s", id, ErrUndecidable, fmt.Sprintf(format, args...))
	}
	if reason = strings.TrimSpace(reason); reason == "" || len(reason) > MaxNote {
		return nil, no("say in 1 to %d bytes why; this has %d", MaxNote, len(reason))
	}
	now, err := r.rdb.Time(ctx).Result()
	if err != nil {
		return nil, fmt.Errorf("decide on %s: %w", id, err)
	}
	var asked *Approval
	event, answer := "deny", No
	if yes {
		event, answer = "approve", Yes
	}
	late, waits := false, true
	const tries = 10 // a duplicate that is counted changes the entry, too
	for n := 0; waits && n < tries; n++ {
		waits = false
		sent, err := r.ledger(by).wake(ctx, id, waking{event: event, early: true, change: func(b *Body) bool {
			if asked = b.Approval; asked == nil || asked.Answer != "" || b.Parked.For != "" {
				return false
			}
			if late = !asked.Until.IsZero() && now.After(asked.Until); late {
				return false // a replica would have said so by now
			}
			asked.Answer, asked.By, asked.At, asked.Reason = answer, by, now.UTC(), reason
			waits = true
			return true
		}})
		if err != nil {
			return nil, fmt.Errorf("decide on %s: %w", id, err)
		}
		if sent {
			return asked, nil
		}
	}
	e, err := r.Entry(ctx, id)
	switch a := e.Body.Approval; {
	case err != nil:
		return nil, err
	case a != nil && a.Answer != "" && a.Answer != TooLate:
		return nil, no("%s has said %s at %s: %s", a.By, a.Answer, Stamp(a.At), a.Reason)
	case a != nil && (a.Answer == TooLate || late):
		return nil, no("nobody did by %s; what it was about was not done", Stamp(a.Until))
	case waits:
		return nil, no("its entry changes all the time; try again")
	case e.Header.State == Waiting && e.Body.Parked != nil && e.Body.Parked.For != "":
		return nil, no("it waits for %s, not for approval", e.Body.Parked.For)
	}
	return nil, no("it is %s and waits for no approval; see riposte ledger show %s", e.Header.State, id)
}

// ledger is the hand of a person on the ledger, for what Lua and this package guard anyway.
func (r *Reader) ledger(by string) *Ledger {
	return &Ledger{cfg: Config{Host: r.host, Group: r.group, Owner: by, Retention: DefaultRetention}, rdb: r.rdb}
}

// Entry is one alert as it is stored.
func (r *Reader) Entry(ctx context.Context, id stream.AlertID) (Entry, error) {
	found, err := r.fetch(ctx, []stream.AlertID{id})
	if err != nil {
		return Entry{}, err
	}
	raw, ok := found[id]
	if !ok {
		return Entry{}, &UnknownAlertError{Given: string(id)}
	}
	header, body, err := ParseEntry(raw)
	return Entry{id, r.host, r.group, header, body}, err
}

// ErrNotReopened says that a settled alert was not opened again, and why. Nothing was changed.
var ErrNotReopened = errors.New("cannot be opened again")

// Reopen adds steps to a settled alert and has a replica of its host carry them out, as
// exactly once as all others. add changes the body, or says why it does not.
func (r *Reader) Reopen(ctx context.Context, id stream.AlertID, by, why string, add func(*Body) error) error {
	no := func(format string, args ...any) error {
		return fmt.Errorf("alert %s %w: %s", id, ErrNotReopened, fmt.Sprintf(format, args...))
	}
	const tries = 10 // a duplicate that is counted changes the entry, too
	for range tries {
		found, err := r.fetch(ctx, []stream.AlertID{id})
		if err != nil {
			return err
		}
		raw, ok := found[id]
		if !ok {
			return &UnknownAlertError{Given: string(id)}
		}
		header, body, err := ParseEntry(raw)
		switch {
		case err != nil:
			return no("its entry cannot be read: %v", err)
		case header.State == Dead:
			return no("it is a dead letter; have the rest of it done first: riposte dead retry %s", id)
		case header.State != Done:
			return no("it is %s; wait until it is settled: riposte ledger show %s", header.State, id)
		}
		if err := add(&body); err != nil {
			return no("%v", err)
		}
		text, err := json.Marshal(body)
		if err != nil {
			return fmt.Errorf("open %s again: %w", id, err)
		}
		keys := []string{r.host.AlertsKey(), r.host.JournalKey(), r.host.LedgerKey(r.group, id)}
		sent, err := reopenScript.Run(ctx, r.rdb, keys, string(r.group), DefaultRetention.Milliseconds(), by, raw, text, why).Text()
		if err != nil {
			return fmt.Errorf("open %s again: %w; it may have been: see riposte ledger show %s", id, err, id)
		}
		if sent != "" {
			return nil
		}
	}
	return no("its entry changes all the time; try again")
}
