package ledger

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"regexp"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/redis/go-redis/v9"

	"riposte/stream"
)

// Letter is a dead letter: an alert that was buried, and why.
type Letter struct {
	LetterID string         // in the stream of dead letters
	Alert    stream.AlertID // ID in the ledger; entry~STREAMID for what is no alert
	Entry    string         // the stream entry it came in
	Reason   string
	Epoch    uint64
	Replica  string // that buried it
	Length   int    // of the raw bytes, all of them
	SHA256   string // of all of them, in hex
	Raw      []byte // at most the first 64 KiB
}

// At is when it was buried, on Redis's clock.
func (l Letter) At() time.Time { return stream.Delivery{StreamID: l.LetterID}.When() }

// MarshalJSON writes the raw bytes as text where they are text, else as base64.
func (l Letter) MarshalJSON() ([]byte, error) {
	out := struct {
		ID      string         `json:"id"`
		Alert   stream.AlertID `json:"alert"`
		Entry   string         `json:"entry"`
		At      string         `json:"at"`
		Reason  string         `json:"reason"`
		Epoch   uint64         `json:"epoch"`
		Replica string         `json:"replica"`
		Length  int            `json:"length"`
		SHA256  string         `json:"sha256"`
		Raw     string         `json:"raw,omitempty"`
		Base64  string         `json:"raw_base64,omitempty"`
	}{ID: l.LetterID, Alert: l.Alert, Entry: l.Entry, At: Stamp(l.At()), Reason: l.Reason, Epoch: l.Epoch,
		Replica: l.Replica, Length: l.Length, SHA256: l.SHA256}
	if utf8.Valid(l.Raw) {
		out.Raw = string(l.Raw)
	} else {
		out.Base64 = base64.StdEncoding.EncodeToString(l.Raw)
	}
	return json.Marshal(out)
}

func letter(m redis.XMessage) Letter {
	text := func(name string) string { s, _ := m.Values[name].(string); return s }
	l := Letter{
		LetterID: m.ID, Alert: stream.AlertID(text("id")), Entry: text("entry"), Reason: text("reason"),
		Replica: text("replica"), SHA256: text("sha256"), Raw: []byte(text("raw")),
	}
	l.Epoch, l.Length = number(text("epoch")), int(min(number(text("length")), math.MaxInt))
	return l
}

// ofEntry says that the letter is about a stream entry, and not about an alert.
func (l Letter) ofEntry() bool { return l.Alert == stream.EntryID(l.Entry) }

// letterPage keeps a page within 8 MiB.
const letterPage = 128

// Letters visits the dead letters of the group, the oldest first.
func (r *Reader) Letters(ctx context.Context, visit func(Letter) error) error {
	_, err := pages(ctx, r.rdb, r.host.DeadKey(r.group), "-", letterPage, func(m redis.XMessage) error {
		return visit(letter(m))
	})
	return err
}

// UnknownLetterError says that there is no dead letter of an ID.
type UnknownLetterError struct {
	Given string
	Group stream.Group
}

func (e *UnknownLetterError) Error() string {
	return fmt.Sprintf("no dead letter %q in group %s; it may have been sent round again already: see `riposte dead list` and `riposte ledger tail`", clip(e.Given), e.Group)
}

var streamID = regexp.MustCompile(`^[0-9]{1,20}-[0-9]{1,20}$`)

// Letter is the dead letter of an ID, its own or its alert's; of several letters of an
// alert the newest. Else the error is an *UnknownLetterError.
func (r *Reader) Letter(ctx context.Context, id string) (Letter, error) {
	if streamID.MatchString(id) {
		found, err := r.rdb.XRange(ctx, r.host.DeadKey(r.group), id, id).Result()
		if err != nil {
			return Letter{}, fmt.Errorf("read the dead letters: %w", err)
		}
		if len(found) == 1 {
			return letter(found[0]), nil
		}
	}
	var newest Letter
	err := r.Letters(ctx, func(l Letter) error {
		if string(l.Alert) == id {
			newest = l
		}
		return nil
	})
	if err == nil && newest.LetterID == "" {
		err = &UnknownLetterError{id, r.group}
	}
	return newest, err
}

// Revived is what became of a dead letter that was sent round again.
type Revived struct {
	Alert   stream.AlertID // under which the ledger will know it
	Entry   string         // the new stream entry
	Expires time.Time      // after this no effect is begun; zero where the responder decides
	Problem string         // why it will be buried again, if this version is asked
}

// ErrNotRevivable says that a dead letter cannot be sent round again, and why. Nothing was
// changed.
var ErrNotRevivable = errors.New("cannot be sent round again")

// Revive sends a dead letter round again, for a person who asks for it. Steps that have
// their record keep it; the plan and the time after which no effect is begun stay as they
// were, because an old alert is not a new one.
//
// A letter whose entry in the ledger is gone, or belongs to the stream entry and not to an
// alert, is added anew. Then it carries the time of the entry it came in, if it has no
// other: else it would pass for something seen now, and name a process that has its PID by
// chance.
func (r *Reader) Revive(ctx context.Context, l Letter, by string) (Revived, error) {
	no := func(format string, args ...any) (Revived, error) {
		return Revived{}, fmt.Errorf("dead letter %s %w: %s", l.LetterID, ErrNotRevivable, fmt.Sprintf(format, args...))
	}
	switch {
	case l.Length > len(l.Raw):
		return no("only the first %d of its %d bytes were kept; publish the alert again from where it came", len(l.Raw), l.Length)
	case len(l.Raw) == 0:
		return no("it holds no alert")
	}
	found, err := r.fetch(ctx, []stream.AlertID{l.Alert})
	if err != nil {
		return Revived{}, err
	}
	raw, stored := found[l.Alert]
	if !stored || l.ofEntry() {
		return r.addAnew(ctx, l, by)
	}
	header, body, err := ParseEntry(raw)
	if err != nil {
		return no("its entry in the ledger cannot be read: %v", err)
	}
	if header.State != Dead {
		return no("its alert %s is %s; see `riposte ledger show %s`", l.Alert, header.State, l.Alert)
	}
	fields := []any{"id", string(l.Alert), "alert", l.Raw}
	a, id, err := stream.Delivery{StreamID: l.Entry, Raw: l.Raw, GivenID: string(l.Alert)}.Alert()
	switch {
	case err != nil:
		return no("this version cannot read it: %v", err)
	case id != l.Alert || a.Digest() != header.Digest:
		return no("it was buried by another version, to which it was another alert; publish it with `riposte publish`")
	}
	body.Retries++
	first, _, _ := strings.Cut(string(raw), "\n")
	return r.revive(ctx, l, by, first, body, fields, Revived{Alert: id, Expires: body.Expires})
}

// addAnew adds the letter's alert as if for the first time, under the ID it has or would
// have had; the letter's own entry, if there is one, stays dead until it expires.
func (r *Reader) addAnew(ctx context.Context, l Letter, by string) (Revived, error) {
	original := stream.Delivery{StreamID: l.Entry, Raw: l.Raw}
	if !l.ofEntry() {
		original.GivenID = string(l.Alert)
	} else {
		found, err := r.rdb.XRange(ctx, r.host.AlertsKey(), l.Entry, l.Entry).Result()
		if err != nil {
			return Revived{}, fmt.Errorf("read entry %s: %w", l.Entry, err)
		}
		if len(found) == 1 {
			original.GivenID, _ = found[0].Values["id"].(string)
		}
	}
	a, id, err := original.Alert()
	if err != nil {
		fields := []any{"alert", l.Raw}
		if original.GivenID != "" {
			fields = append([]any{"id", original.GivenID}, fields...)
		}
		return r.revive(ctx, l, by, "", Body{}, fields, Revived{Problem: err.Error()})
	}
	if a.Timestamp == "" {
		a.Timestamp = original.When().UTC().Format("2006-01-02T15:04:05.000Z07:00")
		if a.Given == "" {
			a.ID = "" // it stands in the field
		}
		if l.Raw, err = json.Marshal(a); err != nil {
			return Revived{}, fmt.Errorf("write alert %s: %w", id, err)
		}
	}
	return r.revive(ctx, l, by, "", Body{}, []any{"id", string(id), "alert", l.Raw}, Revived{Alert: id})
}

func (r *Reader) revive(ctx context.Context, l Letter, by, header string, body Body, fields []any, done Revived) (Revived, error) {
	raw, err := json.Marshal(body)
	if err != nil {
		return Revived{}, fmt.Errorf("plan of %s: %w", l.Alert, err)
	}
	keys := []string{
		r.host.AlertsKey(), r.host.JournalKey(), r.host.LedgerKey(r.group, l.Alert), r.host.DeadKey(r.group),
	}
	args := append([]any{string(r.group), l.LetterID, DefaultRetention.Milliseconds(), by, header, raw}, fields...)
	if done.Entry, err = reviveScript.Run(ctx, r.rdb, keys, args...).Text(); err != nil {
		return Revived{}, fmt.Errorf("send dead letter %s round again: %w; it may have been sent: see `riposte ledger show %s`", l.LetterID, err, l.Alert)
	}
	if done.Entry == "" {
		return Revived{}, fmt.Errorf("dead letter %s %w: somebody else has just done so, or its alert has changed; look again", l.LetterID, ErrNotRevivable)
	}
	if done.Alert == "" {
		done.Alert = stream.EntryID(done.Entry)
	}
	return done, nil
}
