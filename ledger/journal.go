package ledger

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/redis/go-redis/v9"

	"riposte/stream"
)

// Event is one line of a host's journal: one change of a ledger entry, written by the
// script that made the change. The exceptions are "late", which changed nothing, and
// "lapse", "resolve" and "purge", by which something changed that stands beside it.
type Event struct {
	Line    string         // ID in the journal
	ID      stream.AlertID //
	Group   stream.Group   //
	Event   string         // run resume poison record retry plan late release bury revive park wake approve deny undo lapse resolve purge
	Epoch   uint64         // of the token it happened under
	Owner   string         // replica, or the person who asked for it
	From    string         // with resume: the holder before
	Step    string         // PLAYBOOK/STEP
	Outcome string
	Reason  string
	Entry   string // with what sends it round again: the new stream entry
}

// At is when it happened, on Redis's clock, to the millisecond.
func (e Event) At() time.Time { return stream.Delivery{StreamID: e.Line}.When() }

// Words tell the event to a person.
func (e Event) Words() string {
	because := func(s string) string {
		if e.Reason != "" {
			s += ": " + e.Reason
		}
		return s
	}
	switch e.Event {
	case "run":
		return fmt.Sprintf("granted to %s, epoch %d", e.Owner, e.Epoch)
	case "resume":
		how := "taken over from " + e.From + " by " + e.Owner
		switch e.From {
		case "-":
			how = "granted again to " + e.Owner
		case e.Owner:
			how = "begun anew by " + e.Owner
		}
		return fmt.Sprintf("%s, epoch %d", how, e.Epoch)
	case "poison":
		return fmt.Sprintf("granted to %s, epoch %d, only to be buried: too many replicas died with it", e.Owner, e.Epoch)
	case "record":
		return because(fmt.Sprintf("%s: %s, recorded by %s", e.Step, e.Outcome, e.Owner))
	case "retry":
		return because(fmt.Sprintf("%s failed and will be tried again by %s", e.Step, e.Owner))
	case "plan":
		return because(fmt.Sprintf("%s: made out by %s", e.Step, e.Owner))
	case "late":
		what := e.Step
		if what == "" {
			what = "burial"
		}
		return because(fmt.Sprintf("%s: %s came too late from %s, whose epoch %d did not stand any more; not counted", what, e.Outcome, e.Owner, e.Epoch))
	case "release":
		return because("handed back by " + e.Owner)
	case "bury":
		return because("buried as a dead letter by " + e.Owner)
	case "resolve":
		return because(fmt.Sprintf("%s: %s has looked into it", e.Step, e.Owner))
	case "lapse":
		return because(e.Step)
	case "purge":
		return because(fmt.Sprintf("dead letter purged by %s; it had been buried", e.Owner))
	case "park":
		return because("set aside by " + e.Owner)
	case "wake":
		return fmt.Sprintf("sent round again by %s, as stream entry %s", e.Owner, e.Entry)
	case "approve":
		return fmt.Sprintf("approved by %s, and sent round again as stream entry %s", e.Owner, e.Entry)
	case "deny":
		return fmt.Sprintf("denied by %s, and sent round again as stream entry %s", e.Owner, e.Entry)
	case "undo":
		return because(fmt.Sprintf("%s wants it undone; sent round again as stream entry %s", e.Owner, e.Entry))
	case "revive":
		return fmt.Sprintf("sent round again by %s, as stream entry %s", e.Owner, e.Entry)
	}
	return because(e.Event + " by " + e.Owner)
}

// MarshalJSON writes the event with its time and its words.
func (e Event) MarshalJSON() ([]byte, error) {
	return json.Marshal(struct {
		At      string         `json:"at"`
		ID      stream.AlertID `json:"id"`
		Group   stream.Group   `json:"group"`
		Event   string         `json:"event"`
		Epoch   uint64         `json:"epoch"`
		Owner   string         `json:"owner"`
		From    string         `json:"from,omitempty"`
		Step    string         `json:"step,omitempty"`
		Outcome string         `json:"outcome,omitempty"`
		Reason  string         `json:"reason,omitempty"`
		Entry   string         `json:"entry,omitempty"`
		Words   string         `json:"words"`
	}{Stamp(e.At()), e.ID, e.Group, e.Event, e.Epoch, e.Owner, e.From, e.Step, e.Outcome, e.Reason, e.Entry, e.Words()})
}

func event(m redis.XMessage) Event {
	text := func(name string) string { s, _ := m.Values[name].(string); return s }
	e := Event{
		Line: m.ID, ID: stream.AlertID(text("id")), Group: stream.Group(text("group")), Event: text("event"),
		Owner: text("owner"), From: text("from"), Step: text("step"), Outcome: text("outcome"), Reason: text("reason"),
		Entry: text("entry"),
	}
	e.Epoch = number(text("epoch"))
	return e
}

// number reads what a script has written; 0 where somebody else has written something else.
func number(s string) uint64 {
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil {
		return 0
	}
	return n
}

// pages visits a stream from after an ID on ("-" for all of it), a page at a time, and
// returns the last ID seen.
func pages(ctx context.Context, rdb redis.UniversalClient, key, after string, page int64, visit func(redis.XMessage) error) (last string, err error) {
	start := after
	if after != "-" {
		start = "(" + after
	}
	last = after
	for {
		messages, err := rdb.XRangeN(ctx, key, start, "+", page).Result()
		if err != nil {
			return last, fmt.Errorf("read %s: %w", key, err)
		}
		for _, m := range messages {
			if err := visit(m); err != nil {
				return last, err
			}
			last = m.ID
		}
		if int64(len(messages)) < page {
			return last, nil
		}
		start = "(" + last
	}
}

// events visits the journal from after a line on. A reader without a group sees all.
func (r *Reader) events(ctx context.Context, after string, visit func(Event) error) (last string, err error) {
	return pages(ctx, r.rdb, r.host.JournalKey(), after, journalPage, func(m redis.XMessage) error {
		if e := event(m); r.group == "" || e.Group == r.group {
			return visit(e)
		}
		return nil
	})
}

// History is what the journal still holds of one alert, the oldest first.
func (r *Reader) History(ctx context.Context, id stream.AlertID) ([]Event, error) {
	history := []Event{}
	_, err := r.events(ctx, "-", func(e Event) error {
		if e.ID == id {
			history = append(history, e)
		}
		return nil
	})
	return history, err
}

// Tail returns the last n events, the oldest first, and the line to go on after with Next.
// A reader without a group sees those of all groups.
func (r *Reader) Tail(ctx context.Context, n int) (events []Event, last string, err error) {
	end := "+"
	for {
		page, err := r.rdb.XRevRangeN(ctx, r.host.JournalKey(), end, "-", journalPage).Result()
		if err != nil {
			return nil, "", fmt.Errorf("read the journal: %w", err)
		}
		if last == "" {
			last = "0"
			if len(page) > 0 {
				last = page[0].ID
			}
		}
		for _, m := range page {
			if e := event(m); len(events) < n && (r.group == "" || e.Group == r.group) {
				events = append(events, e)
			}
		}
		if len(page) < journalPage || len(events) == n {
			slices.Reverse(events)
			return events, last, nil
		}
		end = "(" + page[len(page)-1].ID
	}
}

// Next waits up to a second for events after a line, and returns those that came and the
// line to go on after.
func (r *Reader) Next(ctx context.Context, after string) (events []Event, last string, err error) {
	streams, err := r.rdb.XRead(ctx, &redis.XReadArgs{
		Streams: []string{r.host.JournalKey(), after}, Count: journalPage, Block: stream.Block,
	}).Result()
	if errors.Is(err, redis.Nil) || err == nil && len(streams) == 0 {
		return nil, after, nil
	}
	if err != nil {
		return nil, after, fmt.Errorf("read the journal: %w", err)
	}
	for _, m := range streams[0].Messages {
		if e := event(m); r.group == "" || e.Group == r.group {
			events = append(events, e)
		}
		after = m.ID
	}
	return events, after, nil
}
