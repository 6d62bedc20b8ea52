package random

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"riposte/ledger"
	"riposte/stream"
)

// seen is everything that stands in Redis, read in one go.
type seen struct {
	now       time.Time
	alerts    []redis.XMessage
	groups    map[stream.Group]redis.XInfoGroup
	pending   map[stream.Group][]redis.XPendingExt
	consumers map[stream.Group][]redis.XInfoConsumer
	books     map[stream.Group]*book
	control   map[string]string
	journal   []redis.XMessage // since the last time
}

// book is the ledger of a group.
type book struct {
	entries map[stream.AlertID]string
	ttl     map[stream.AlertID]time.Duration
	letters []redis.XMessage
	waiting []redis.Z
}

func look(ctx context.Context, rdb *redis.Client, after string) (*seen, error) {
	s := &seen{
		groups: map[stream.Group]redis.XInfoGroup{}, pending: map[stream.Group][]redis.XPendingExt{},
		consumers: map[stream.Group][]redis.XInfoConsumer{}, books: map[stream.Group]*book{},
	}
	keys, err := rdb.Keys(ctx, host.LedgerPrefix("*")+"*").Result()
	if err != nil {
		return nil, err
	}
	pipe := rdb.Pipeline()
	var learn []func() // what the pipeline says, once it was carried out
	for _, g := range []stream.Group{group, other} {
		b := &book{entries: map[stream.AlertID]string{}, ttl: map[stream.AlertID]time.Duration{}}
		s.books[g] = b
		for _, key := range keys {
			if id, ok := strings.CutPrefix(key, host.LedgerPrefix(g)); ok {
				value, ttl := pipe.Get(ctx, key), pipe.PTTL(ctx, key)
				learn = append(learn, func() { b.entries[stream.AlertID(id)], b.ttl[stream.AlertID(id)] = value.Val(), ttl.Val() })
			}
		}
		pending := pipe.XPendingExt(ctx, &redis.XPendingExtArgs{Stream: host.AlertsKey(), Group: string(g), Start: "-", End: "+", Count: 10000})
		consumers := pipe.XInfoConsumers(ctx, host.AlertsKey(), string(g))
		letters := pipe.XRange(ctx, host.DeadKey(g), "-", "+")
		waiting := pipe.ZRangeWithScores(ctx, host.WaitingKey(g), 0, -1)
		learn = append(learn, func() {
			s.pending[g], s.consumers[g], b.letters, b.waiting = pending.Val(), consumers.Val(), letters.Val(), waiting.Val()
		})
	}
	alerts := pipe.XRange(ctx, host.AlertsKey(), "-", "+")
	groups := pipe.XInfoGroups(ctx, host.AlertsKey())
	control := pipe.HGetAll(ctx, host.ControlKey())
	journal := pipe.XRange(ctx, host.JournalKey(), "("+after, "+")
	now := pipe.Time(ctx)
	if _, err := pipe.Exec(ctx); err != nil && !errors.Is(err, redis.Nil) {
		return nil, err
	}
	for _, do := range learn {
		do()
	}
	for _, g := range groups.Val() {
		s.groups[stream.Group(g.Name)] = g
	}
	s.alerts, s.control, s.journal, s.now = alerts.Val(), control.Val(), journal.Val(), now.Val()
	return s, nil
}

// lines tell what was seen, in the words of the model's own lines.
func (s *seen) lines() (out []string) {
	for _, a := range s.alerts {
		out = append(out, alertLine(a.ID, a.Values["id"], a.Values["alert"], a.Values["reopened"]))
	}
	for g, info := range s.groups {
		out = append(out, groupLine(g, info.LastDeliveredID))
	}
	for g, all := range s.pending {
		for _, p := range all {
			out = append(out, pendingLine(g, p.ID, p.Consumer, int(p.RetryCount)))
		}
	}
	for g, b := range s.books {
		for id, raw := range b.entries {
			header, body, _ := strings.Cut(raw, "\n")
			out = append(out, entryLine(g, id, header, b.ttl[id] > 0, body))
		}
		for _, l := range b.letters {
			v := l.Values
			out = append(out, letterLine(g, v["id"], v["entry"], v["epoch"], v["replica"], v["reason"], v["length"], v["sha256"], v["raw"]))
		}
		for _, z := range b.waiting {
			out = append(out, waitingLine(g, z.Member, z.Score))
		}
	}
	for field, value := range s.control {
		out = append(out, controlLine(field, value))
	}
	for i, j := range s.journal {
		var l line
		for name, value := range j.Values {
			l = append(l, name, value)
		}
		out = append(out, journalLine(i, l))
	}
	return out
}

// lines tell what the model expects to be seen.
func (m *model) lines() (out []string) {
	for id, e := range m.entries {
		header := fmt.Sprint(e.state, " ", e.epoch, " ", e.lease, " ", e.owner, " ", e.nonce, " ", e.seq, " ", e.duplicates, " ", e.deaths, " ",
			e.digest, " ", e.delivery, " ", e.gate)
		out = append(out, entryLine(m.group, id, header, e.state == ledger.Done || e.state == ledger.Dead, e.body))
	}
	for _, l := range m.letters {
		out = append(out, letterLine(m.group, l.id, l.delivery, l.epoch, l.replica, l.Reason, l.Length, l.SHA256, string(l.Raw)))
	}
	for id, due := range m.waiting {
		out = append(out, waitingLine(m.group, id, due))
	}
	return out
}

// lines tell the same of what is no group's own.
func (m *shared) lines() (out []string) {
	for _, a := range m.alerts {
		out = append(out, alertLine(a.streamID, a.id, a.raw, a.reopened))
	}
	for g, r := range m.groups {
		out = append(out, groupLine(g, r.last.streamID))
		for a, p := range r.pending {
			out = append(out, pendingLine(g, a.streamID, p.consumer, p.times))
		}
	}
	out = append(out, controlLine(pause, "no"))
	if m.paused {
		out = append(out, controlLine(string(ledger.HostSwitch), "off"))
	}
	for name, r := range m.gates {
		out = append(out, controlLine("gate:"+name, r.String()))
	}
	for i, j := range m.journal {
		out = append(out, journalLine(i, j))
	}
	return out
}

func entryLine(g stream.Group, id stream.AlertID, header string, expires bool, body string) string {
	return fmt.Sprintf("entry %s of %s: %s, expires: %v, %s", id, g, header, expires, body)
}
func alertLine(streamID string, fields ...any) string {
	line := "alert " + streamID + ":"
	for _, f := range fields {
		if f == nil {
			f = ""
		}
		line += fmt.Sprintf(" %v;", f)
	}
	return line
}
func groupLine(g stream.Group, last string) string {
	return fmt.Sprintf("group %s: was given all up to %s", g, last)
}
func pendingLine(g stream.Group, streamID, consumer string, times int) string {
	return fmt.Sprintf("pending in %s: %s with %s, delivered %d times", g, streamID, consumer, times)
}
func letterLine(g stream.Group, fields ...any) string {
	return fmt.Sprintf("dead letter of %s: %s", g, fmt.Sprintln(fields...))
}
func waitingLine(g stream.Group, id any, until float64) string {
	return fmt.Sprintf("waiting in %s: %v until %.0f", g, id, until)
}
func controlLine(field, value string) string { return fmt.Sprintf("control: %s is %q", field, value) }
func journalLine(i int, l line) string {
	var fields []string
	for j := 0; j < len(l); j += 2 {
		if l[j+1] == "" { // as good as none
			continue
		}
		fields = append(fields, fmt.Sprintf("%v=%v", l[j], l[j+1]))
	}
	slices.Sort(fields)
	return fmt.Sprintf("journal +%d: %s", i+1, strings.Join(fields, " "))
}

// learn takes over what nobody can know before it is seen: IDs that Redis chose, and what
// its clock was. What is not possible is left, and shows as a difference.
func (m *shared) learn(s *seen) {
	for i, a := range m.alerts {
		if a.streamID == "" && i < len(s.alerts) {
			a.streamID = s.alerts[i].ID
		}
	}
	for name, r := range m.gates {
		if r.until != nil {
			r.until.learn(s.control["gate:"+name], 1)
		}
	}
}

func (m *model) learn(s *seen) {
	b := s.books[m.group]
	for i := range m.letters {
		if l := &m.letters[i]; l.letterID == "" && i < len(b.letters) {
			l.letterID = b.letters[i].ID
		}
	}
	for id, e := range m.entries {
		e.epoch.learn(b.entries[id], 1)
		e.lease.learn(b.entries[id], 2)
	}
}

// learn takes a number over from among words.
func (m *moment) learn(from string, i int) {
	if words := strings.Fields(from); i < len(words) {
		if n, err := strconv.ParseInt(words[i], 10, 64); err == nil {
			m.is(n)
		}
	}
}

// differences between the model and what was seen.
func differences(want, got []string) (out []string) {
	for _, l := range want {
		if !slices.Contains(got, l) {
			out = append(out, "the model: "+l)
		}
	}
	for _, l := range got {
		if !slices.Contains(want, l) {
			out = append(out, "Redis:     "+l)
		}
	}
	slices.SortFunc(out, func(a, b string) int { return strings.Compare(a[11:], b[11:]) })
	return out
}
