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
	entries   map[stream.AlertID]string
	ttl       map[stream.AlertID]time.Duration
	alerts    []redis.XMessage
	groups    map[stream.Group]redis.XInfoGroup
	pending   map[stream.Group][]redis.XPendingExt
	consumers map[stream.Group][]redis.XInfoConsumer
	letters   []redis.XMessage
	waiting   []redis.Z
	journal   []redis.XMessage // since the last time
}

func look(ctx context.Context, rdb *redis.Client, after string) (*seen, error) {
	s := &seen{
		entries: map[stream.AlertID]string{}, ttl: map[stream.AlertID]time.Duration{}, groups: map[stream.Group]redis.XInfoGroup{},
		pending: map[stream.Group][]redis.XPendingExt{}, consumers: map[stream.Group][]redis.XInfoConsumer{},
	}
	keys, err := rdb.Keys(ctx, host.LedgerPrefix(group)+"*").Result()
	if err != nil {
		return nil, err
	}
	pipe := rdb.Pipeline()
	values, ttls := make([]*redis.StringCmd, len(keys)), make([]*redis.DurationCmd, len(keys))
	for i, key := range keys {
		values[i], ttls[i] = pipe.Get(ctx, key), pipe.PTTL(ctx, key)
	}
	alerts := pipe.XRange(ctx, host.AlertsKey(), "-", "+")
	groups := pipe.XInfoGroups(ctx, host.AlertsKey())
	pending, consumers := map[stream.Group]*redis.XPendingExtCmd{}, map[stream.Group]*redis.XInfoConsumersCmd{}
	for _, g := range []stream.Group{group, other} {
		pending[g] = pipe.XPendingExt(ctx, &redis.XPendingExtArgs{Stream: host.AlertsKey(), Group: string(g), Start: "-", End: "+", Count: 10000})
		consumers[g] = pipe.XInfoConsumers(ctx, host.AlertsKey(), string(g))
	}
	letters := pipe.XRange(ctx, host.DeadKey(group), "-", "+")
	waiting := pipe.ZRangeWithScores(ctx, host.WaitingKey(group), 0, -1)
	journal := pipe.XRange(ctx, host.JournalKey(), "("+after, "+")
	if _, err := pipe.Exec(ctx); err != nil && !errors.Is(err, redis.Nil) {
		return nil, err
	}
	for i, key := range keys {
		id := stream.AlertID(strings.TrimPrefix(key, host.LedgerPrefix(group)))
		s.entries[id], s.ttl[id] = values[i].Val(), ttls[i].Val()
	}
	for _, g := range groups.Val() {
		s.groups[stream.Group(g.Name)] = g
	}
	for g := range pending {
		s.pending[g], s.consumers[g] = pending[g].Val(), consumers[g].Val()
	}
	s.alerts, s.letters, s.waiting, s.journal = alerts.Val(), letters.Val(), waiting.Val(), journal.Val()
	return s, nil
}

// lines tell what was seen, in the words of the model's own lines.
func (s *seen) lines() (out []string) {
	for id, raw := range s.entries {
		header, body, _ := strings.Cut(raw, "\n")
		out = append(out, entryLine(id, header, s.ttl[id] > 0, body))
	}
	for _, a := range s.alerts {
		out = append(out, alertLine(a.ID, a.Values["id"], a.Values["alert"]))
	}
	for g, info := range s.groups {
		out = append(out, groupLine(g, info.LastDeliveredID))
	}
	for g, all := range s.pending {
		for _, p := range all {
			out = append(out, pendingLine(g, p.ID, p.Consumer, int(p.RetryCount)))
		}
	}
	for _, l := range s.letters {
		v := l.Values
		out = append(out, letterLine(v["id"], v["entry"], v["epoch"], v["replica"], v["reason"], v["length"], v["sha256"], v["raw"]))
	}
	for _, z := range s.waiting {
		out = append(out, waitingLine(z.Member, z.Score))
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
		out = append(out, entryLine(id, header, e.state == ledger.Done || e.state == ledger.Dead, e.body))
	}
	for _, a := range m.alerts {
		out = append(out, alertLine(a.streamID, a.id, a.raw))
	}
	for g, r := range m.groups {
		out = append(out, groupLine(g, r.last.streamID))
		for a, p := range r.pending {
			out = append(out, pendingLine(g, a.streamID, p.consumer, p.times))
		}
	}
	for _, l := range m.letters {
		out = append(out, letterLine(l.id, l.delivery, l.epoch, l.replica, l.Reason, l.Length, l.SHA256, string(l.Raw)))
	}
	for id, due := range m.waiting {
		out = append(out, waitingLine(id, due))
	}
	for i, j := range m.journal {
		out = append(out, journalLine(i, j))
	}
	return out
}

func entryLine(id stream.AlertID, header string, expires bool, body string) string {
	return fmt.Sprintf("entry %s: %s, expires: %v, %s", id, header, expires, body)
}
func alertLine(streamID string, id, raw any) string {
	return fmt.Sprintf("alert %s: %v %v", streamID, id, raw)
}
func groupLine(g stream.Group, last string) string {
	return fmt.Sprintf("group %s: was given all up to %s", g, last)
}
func pendingLine(g stream.Group, streamID, consumer string, times int) string {
	return fmt.Sprintf("pending in %s: %s with %s, delivered %d times", g, streamID, consumer, times)
}
func letterLine(fields ...any) string { return "dead letter: " + fmt.Sprintln(fields...) }
func waitingLine(id any, until float64) string {
	return fmt.Sprintf("waiting: %v until %.0f", id, until)
}
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
func (m *model) learn(s *seen) {
	for i, a := range m.alerts {
		if a.streamID == "" && i < len(s.alerts) {
			a.streamID = s.alerts[i].ID
		}
	}
	for i := range m.letters {
		if l := &m.letters[i]; l.letterID == "" && i < len(s.letters) {
			l.letterID = s.letters[i].ID
		}
	}
	for id, e := range m.entries {
		if f := strings.Fields(s.entries[id]); len(f) > 2 {
			for at, number := range map[int]*moment{1: e.epoch, 2: e.lease} {
				if n, err := strconv.ParseInt(f[at], 10, 64); err == nil {
					number.is(n)
				}
			}
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
