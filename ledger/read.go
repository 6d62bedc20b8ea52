package ledger

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"riposte/stream"
)

// Reader is the ledger of a host and group as people and scripts read it. Only Revive
// changes anything.
type Reader struct {
	rdb   redis.UniversalClient
	host  stream.Host
	group stream.Group
}

// NewReader makes a reader. Nothing is sent yet.
func NewReader(rdb redis.UniversalClient, h stream.Host, g stream.Group) *Reader {
	return &Reader{rdb, h, g}
}

const (
	scanPage    = 1000 // keys looked at in one step of a scan
	entryPage   = 200  // entries fetched at once
	journalPage = 1000 // events fetched at once
)

// keys visits the IDs of all entries, a page at a time. One that stands throughout is
// visited at least once, perhaps more often.
func (r *Reader) keys(ctx context.Context, visit func(ids []stream.AlertID) error) error {
	prefix := r.host.LedgerPrefix(r.group)
	var cursor uint64
	for {
		keys, next, err := r.rdb.Scan(ctx, cursor, prefix+"*", scanPage).Result()
		if err != nil {
			return fmt.Errorf("list the ledger: %w", err)
		}
		ids := make([]stream.AlertID, len(keys))
		for i, key := range keys {
			ids[i] = stream.AlertID(strings.TrimPrefix(key, prefix))
		}
		if err := visit(ids); err != nil {
			return err
		}
		if cursor = next; cursor == 0 {
			return nil
		}
	}
}

// fetch reads the entries of some alerts as they are stored; those that do not exist, or
// are no strings, are missing from the answer.
func (r *Reader) fetch(ctx context.Context, ids []stream.AlertID) (map[stream.AlertID][]byte, error) {
	found := make(map[stream.AlertID][]byte, len(ids))
	for page := range slices.Chunk(ids, entryPage) {
		keys := make([]string, len(page))
		for i, id := range page {
			keys[i] = r.host.LedgerKey(r.group, id)
		}
		values, err := r.rdb.MGet(ctx, keys...).Result()
		if err != nil {
			return nil, fmt.Errorf("read the ledger: %w", err)
		}
		for i, v := range values {
			if s, ok := v.(string); ok {
				found[page[i]] = []byte(s)
			}
		}
	}
	return found, nil
}

func (r *Reader) parse(id stream.AlertID, raw []byte) (Entry, error) {
	e := Entry{ID: id, Host: r.host, Group: r.group}
	var err error
	e.Header, e.Body, err = ParseEntry(raw)
	return e, err
}

// List returns all entries in the order in which their alerts were published, then by ID, and
// the IDs of those that cannot be read: the audit says more about them.
func (r *Reader) List(ctx context.Context) (entries []Entry, unreadable []stream.AlertID, err error) {
	entries = []Entry{}
	known := map[stream.AlertID]bool{}
	err = r.keys(ctx, func(ids []stream.AlertID) error {
		found, err := r.fetch(ctx, ids)
		if err != nil {
			return err
		}
		for id, raw := range found {
			if known[id] {
				continue
			}
			known[id] = true
			e, err := r.parse(id, raw)
			if err != nil {
				unreadable = append(unreadable, id)
				continue
			}
			entries = append(entries, e)
		}
		return nil
	})
	slices.Sort(unreadable)
	slices.SortFunc(entries, func(a, b Entry) int {
		return cmp.Or(a.Published().Compare(b.Published()), cmp.Compare(a.ID, b.ID))
	})
	return entries, unreadable, err
}

// UnknownAlertError says that an ID names no entry, or the beginning of several.
type UnknownAlertError struct {
	Given   string
	Several bool
	Near    []stream.AlertID // those it may have meant, at most some
}

func (e *UnknownAlertError) Error() string {
	near := make([]string, len(e.Near))
	for i, id := range e.Near {
		near[i] = string(id)
	}
	switch {
	case e.Several:
		return fmt.Sprintf("%q begins more than one alert: %s", clip(e.Given), strings.Join(near, ", "))
	case len(near) == 0:
		return fmt.Sprintf("no alert %q: the ledger is empty", clip(e.Given))
	}
	return fmt.Sprintf("no alert %q in the ledger; nearest are %s", clip(e.Given), strings.Join(near, ", "))
}

// Find returns the entry with an ID, or the only one whose ID begins so. Else the error is
// an *UnknownAlertError.
func (r *Reader) Find(ctx context.Context, given string) (Entry, error) {
	id := stream.AlertID(given)
	found, err := r.fetch(ctx, []stream.AlertID{id})
	if err != nil {
		return Entry{}, err
	}
	if raw, ok := found[id]; ok {
		return r.parse(id, raw)
	}
	const some = 5
	beginning, near := map[stream.AlertID]bool{}, map[stream.AlertID]int{}
	err = r.keys(ctx, func(ids []stream.AlertID) error {
		for _, id := range ids {
			if strings.HasPrefix(string(id), given) {
				beginning[id] = true
			}
			near[id] = likeness(string(id), given)
		}
		for len(near) > some {
			least := id
			for other, like := range near {
				if least == id || like < near[least] || like == near[least] && other > least {
					least = other
				}
			}
			delete(near, least)
		}
		return nil
	})
	if err != nil {
		return Entry{}, err
	}
	unknown := &UnknownAlertError{Given: given}
	switch {
	case given == "" || len(beginning) == 0:
		for id := range near {
			unknown.Near = append(unknown.Near, id)
		}
		slices.SortFunc(unknown.Near, func(a, b stream.AlertID) int {
			return cmp.Or(cmp.Compare(near[b], near[a]), cmp.Compare(a, b))
		})
		return Entry{}, unknown
	case len(beginning) > 1:
		unknown.Several = true
		for id := range beginning {
			unknown.Near = append(unknown.Near, id)
		}
		slices.Sort(unknown.Near)
		unknown.Near = unknown.Near[:min(len(unknown.Near), some)]
		return Entry{}, unknown
	}
	for id = range beginning {
	}
	if found, err = r.fetch(ctx, []stream.AlertID{id}); err != nil {
		return Entry{}, err
	}
	if found[id] == nil {
		return Entry{}, &UnknownAlertError{Given: given}
	}
	return r.parse(id, found[id])
}

// likeness of two IDs: what they begin and end with in common. IDs are mostly random, so
// a mistyped one still agrees with the right one on both sides of the slip.
func likeness(a, b string) int {
	n, begin, end := min(len(a), len(b)), 0, 0
	for begin < n && a[begin] == b[begin] {
		begin++
	}
	for end < n-begin && a[len(a)-1-end] == b[len(b)-1-end] {
		end++
	}
	return begin + end
}

func clip(s string) string {
	if len(s) > 150 {
		return s[:150] + "..."
	}
	return s
}

// Stamp writes a time as RFC 3339 in UTC, with six digits of fraction.
func Stamp(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05.000000Z07:00") }

// Attempts is how often the step that was tried most often was tried: 1 where all went
// well at once.
func (e Entry) Attempts() int {
	n := 0
	for _, s := range e.Body.Steps {
		n = max(n, s.Attempts)
	}
	return n
}

// waits says what a parked alert waits for.
func (b Body) waits() string {
	if b.Parked == nil {
		return ""
	}
	return b.Parked.Reason
}

// MarshalJSON writes the entry in the form that scripts rely on.
func (e Entry) MarshalJSON() ([]byte, error) {
	type step struct {
		Playbook string  `json:"playbook"`
		Step     string  `json:"step"`
		Action   string  `json:"action"`
		Mode     string  `json:"mode"`
		Attempts int     `json:"attempts"`
		Hash     string  `json:"hash,omitempty"`   // of the playbook
		Undoes   string  `json:"undoes,omitempty"` // the step that it takes back
		Outcome  string  `json:"outcome"`
		Reason   string  `json:"reason"`
		Epoch    uint64  `json:"epoch"`
		Replica  string  `json:"replica"`
		Started  *string `json:"started"` // null until recorded
		Ended    *string `json:"ended"`
		Lapsed   *string `json:"lapsed,omitempty"` // since when what was done for a time is over
		Resolved *Note   `json:"resolved,omitempty"`
	}
	at := func(t time.Time) *string {
		if t.IsZero() {
			return nil
		}
		s := Stamp(t)
		return &s
	}
	steps := make([]step, len(e.Body.Steps))
	for i, s := range e.Body.Steps {
		steps[i] = step{s.Playbook, s.Step, s.Action, s.Mode, s.Attempts, s.Hash, s.Undoes, s.Outcome, s.Reason, s.Epoch, s.Replica, at(s.Started), at(s.Ended), at(s.Lapsed), s.Resolved}
	}
	return json.Marshal(struct {
		ID         stream.AlertID `json:"id"`
		Host       stream.Host    `json:"host"`
		Group      stream.Group   `json:"group"`
		State      State          `json:"state"`
		Epoch      uint64         `json:"epoch"`
		Owner      string         `json:"owner"`
		Attempts   int            `json:"attempts"`
		Duplicates int            `json:"duplicates"`
		Flags      []string       `json:"flags"`
		Published  string         `json:"published"`
		Seen       *string        `json:"seen,omitempty"`
		Level      string         `json:"level,omitempty"`
		Title      string         `json:"title,omitempty"`
		Rule       string         `json:"rule,omitempty"`
		Delivery   string         `json:"delivery"`        // its entry in the stream
		Deaths     int            `json:"deaths"`          // of its holders, proven
		Retries    int            `json:"retries"`         // times it was sent round again
		Waits      string         `json:"waits,omitempty"` // what for
		Approval   *Approval      `json:"approval,omitempty"`
		Steps      []step         `json:"steps"`
	}{
		e.ID, e.Host, e.Group, e.Header.State, e.Header.Token.Epoch, e.Header.Owner,
		e.Attempts(), e.Header.Duplicates, append([]string{}, e.Body.Flags...),
		Stamp(e.Published()), at(e.Body.Seen), e.Body.Level, e.Body.Title, e.Body.Rule, e.Header.StreamID, e.Header.Deaths, e.Body.Retries, e.Body.waits(), e.Body.Approval, steps,
	})
}
