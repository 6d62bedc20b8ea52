package ledger

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/redis/go-redis/v9"

	"riposte/stream"
)

// Parked is what a waiting entry keeps of the delivery it was made from, which is acked.
type Parked struct {
	Raw    []byte    `json:"raw"`
	Due    time.Time `json:"due,omitzero"` // zero: a person decides
	Reason string    `json:"reason"`
	For    string    `json:"for,omitempty"` // the switch or breaker that it waits for, see Control
}

// Approval is what a person has to say before an effect, in mode approve.
type Approval struct {
	Within time.Duration `json:"within"`           // how long that may take
	Until  time.Time     `json:"until,omitzero"`   // zero: nobody was asked yet
	Answer string        `json:"answer,omitempty"` // yes, no, or late where nobody gave one in time
	By     string        `json:"by,omitempty"`
	At     time.Time     `json:"at,omitzero"` // on Redis's clock
	Reason string        `json:"reason,omitempty"`
}

// Answers of an Approval.
const (
	Yes     = "yes"
	No      = "no"
	TooLate = "late"
)

// Park sets an alert aside until a time, or for as long as a person takes to decide (due
// zero). It acks the delivery: the waiting entry itself is what any replica wakes the alert
// from, so it survives all of them. Errors are those of Record.
//
// unbegun says that no step without an outcome has begun, and that the gate lets nobody begin
// one under an older token. Whoever wakes the alert may then run it at another gate, as after
// a reboot, and knows all the same what was not done.
func (l *Ledger) Park(ctx context.Context, g *Grant, raw []byte, due time.Time, reason string, unbegun bool) error {
	g.Body.Parked = &Parked{Raw: raw, Due: due, Reason: reason}
	body, err := json.Marshal(g.Body)
	if err != nil {
		return fmt.Errorf("park %s: %w", g.ID, err)
	}
	score, gates := "+inf", ""
	if unbegun {
		gates = "-"
	}
	if !due.IsZero() {
		score = strconv.FormatInt(due.UnixMilli(), 10)
	}
	keys := []string{
		l.cfg.Host.AlertsKey(), l.cfg.Host.JournalKey(),
		l.cfg.Host.LedgerKey(l.cfg.Group, g.ID), l.cfg.Host.WaitingKey(l.cfg.Group),
	}
	reply, err := parkScript.Run(ctx, l.rdb, keys, string(l.cfg.Group), g.Token.Epoch, g.Token.Nonce,
		score, l.cfg.Retention.Milliseconds(), reason, l.cfg.Owner, body, gates).Text()
	return l.outcome("park", g, reply, err)
}

// Wake sends up to n parked alerts whose time has come round again, and says how many. Any
// replica may call it, several at once: each alert is woken once.
func (l *Ledger) Wake(ctx context.Context, n int) (woken int, err error) {
	now, err := l.rdb.Time(ctx).Result()
	if err != nil {
		return 0, fmt.Errorf("wake: %w", err)
	}
	due, err := l.rdb.ZRangeByScore(ctx, l.cfg.Host.WaitingKey(l.cfg.Group), &redis.ZRangeBy{
		Min: "-inf", Max: strconv.FormatInt(now.UnixMilli(), 10), Count: int64(n),
	}).Result()
	if err != nil {
		return 0, fmt.Errorf("wake: %w", err)
	}
	var errs []error
	for _, id := range due {
		ok, err := l.wake(ctx, stream.AlertID(id), waking{event: "wake", change: func(b *Body) bool {
			if a := b.Approval; a != nil && a.Answer == "" && !a.Until.IsZero() {
				a.Answer, a.At = TooLate, now.UTC()
			}
			return true
		}})
		if err != nil { // one that cannot be read must not keep the others
			errs = append(errs, fmt.Errorf("wake %s: %w", id, err))
		}
		if ok {
			woken++
		}
	}
	return woken, errors.Join(errs...)
}

// waking is how a parked alert is sent round again.
type waking struct {
	event  string           // in the journal
	by     string           // empty: this replica
	early  bool             // also before it is due
	change func(*Body) bool // false: leave it
}

func (l *Ledger) wake(ctx context.Context, id stream.AlertID, w waking) (bool, error) {
	key := l.cfg.Host.LedgerKey(l.cfg.Group, id)
	raw, err := l.rdb.Get(ctx, key).Bytes()
	if err != nil && !errors.Is(err, redis.Nil) {
		return false, err
	}
	var line, alert, next []byte // empty: the script finds that it does not wait
	if err == nil {
		h, body, err := ParseEntry(raw)
		if err != nil {
			return false, err
		}
		if h.State == Waiting {
			if body.Parked == nil {
				return false, errors.New("it waits, and its entry holds no alert; see riposte ledger show")
			}
			if !w.change(&body) {
				return false, nil
			}
			alert, body.Parked = body.Parked.Raw, nil
			if next, err = json.Marshal(body); err != nil {
				return false, err
			}
			line, _, _ = bytes.Cut(raw, []byte("\n"))
		}
	}
	early := "0"
	if w.early {
		early = "1"
	}
	keys := []string{l.cfg.Host.AlertsKey(), l.cfg.Host.JournalKey(), key, l.cfg.Host.WaitingKey(l.cfg.Group)}
	sent, err := wakeScript.Run(ctx, l.rdb, keys, string(l.cfg.Group), l.cfg.Retention.Milliseconds(), orDefault(w.by, l.cfg.Owner),
		line, next, alert, early, w.event).Text()
	return sent != "", err
}

func orDefault(s, fallback string) string {
	if s == "" {
		return fallback
	}
	return s
}
