package random

import (
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/redis/go-redis/v9"
	"pgregory.net/rapid"

	"riposte/stream"
)

// Publish adds an alert, perhaps one that was added before, or another one under its ID.
func (m *machine) Publish(t *rapid.T) {
	id := choose(t, "alert", []string{"a", "b", "c", "d"})
	pid := 4711
	if one(t, 4, "another alert of this ID") {
		pid++
	}
	raw := fmt.Sprintf(`{"id":%q,"level":"HIGH","title":"t","timestamp":"2026-01-02T03:04:05Z","actionable_pid":%d}`, id, pid)
	streamID, err := m.rdb.XAdd(m.ctx, &redis.XAddArgs{Stream: host.AlertsKey(), ID: m.when(t), Values: []any{"id", id, "alert", raw}}).Result()
	must(t, err)
	m.publish(id, raw).streamID = streamID
	m.did(t, "publish", "%s (PID %d) as delivery %d, %s", id, pid, m.published, streamID)
}

// when draws the time of a stream ID: two hours ago while all are, now, and two hours ahead,
// where it is two hours ahead from then on.
func (m *machine) when(t *rapid.T) string {
	at := func(d time.Duration) string { return fmt.Sprintf("%d-*", m.start.Add(d).UnixMilli()) }
	switch {
	case one(t, 16, "ahead"):
		return at(2 * time.Hour)
	case m.past == m.published && !one(t, 3, "now"):
		m.past++
		return at(-2 * time.Hour)
	}
	return "*"
}

// unread counts what the group has not been given yet.
func (m *machine) unread() (n int) {
	for _, a := range m.alerts {
		if a.number > m.groups[m.group].last.number {
			n++
		}
	}
	return n
}

// Read delivers up to four alerts to a replica.
func (m *machine) Read(t *rapid.T) {
	if m.unread() == 0 {
		return // it would wait
	}
	by, n := m.anybody(t), rapid.IntRange(1, 4).Draw(t, "n")
	m.loseReply(t)
	var got []stream.Delivery
	var err error
	now := m.during(t, func() { got, err = by.consumer.Read(m.ctx, n) })
	want := m.read(now, by.name, n)
	m.did(t, "read", "%s is given %v", by.name, numbers(want))
	if m.unanswered(err) {
		return
	}
	must(t, err)
	m.same(t, got, want)
}

// same compares deliveries with what the model has of them.
func (m *machine) same(t *rapid.T, got []stream.Delivery, want []*alert) {
	t.Helper()
	if len(got) != len(want) {
		wrong(t, "other deliveries", "%d; the model has %d", len(got), len(want))
	}
	for i, d := range got {
		a := want[i]
		times := m.groups[m.group].pending[a].times
		if d.StreamID != a.streamID || string(d.Raw) != a.raw || d.GivenID != a.id || d.Times != times {
			wrong(t, "another delivery", "%+v; the model has %+v, delivered %d times", d, a, times)
		}
	}
}

func numbers(of []*alert) (all []int) {
	for _, a := range of {
		all = append(all, a.number)
	}
	return all
}

// TakeOver claims from somebody proven dead, who may go on all the same, and perhaps
// removes him.
func (m *machine) TakeOver(t *rapid.T) {
	by, dead := m.anybody(t), m.anybody(t)
	if by.name == dead.name {
		return
	}
	ask := stream.Takeover{
		Most: rapid.IntRange(1, 3).Draw(t, "most"), Died: !one(t, 4, "stopped in good order"),
		Suspect: rapid.IntRange(2, 4).Draw(t, "suspect"), Suspects: rapid.IntRange(0, 2).Draw(t, "suspects"),
		Remove: rapid.Bool().Draw(t, "remove"),
	}
	m.loseReply(t)
	wantGone := ask.Remove && len(m.pendingWith(m.group, dead.name)) == 0
	got, gone, err := by.consumer.TakeOver(m.ctx, dead.name, ask)
	want := m.takeOver(by.name, dead.name, ask)
	m.did(t, "take over", "%s takes %v from %s: %+v", by.name, numbers(want), dead.name, ask)
	if wantGone {
		m.promise.mayGo(dead.name)
	}
	if m.unanswered(err) {
		return
	}
	must(t, err)
	m.same(t, got, want)
	m.tally["deliveries taken over"] += len(want)
	if gone != wantGone {
		wrong(t, "a consumer is removed otherwise", "gone: %v; the model: %v", gone, wantGone)
	}
	names, err := by.consumer.Consumers(m.ctx)
	must(t, err)
	if !gone {
		return
	}
	m.tally["consumer removed"]++
	if slices.Contains(names, dead.name) {
		wrong(t, "a consumer was removed and is still there", "%s, %v", dead.name, names)
	}
}

// Look does what changes nothing: it lists what is pending, and gives a sign of life.
func (m *machine) Look(t *rapid.T) {
	by := m.anybody(t)
	m.did(t, "look", "%s", by.name)
	must(t, by.consumer.Alive(m.ctx, host, m.start))
	must(t, by.consumer.Ensure(m.ctx))
	page := rapid.IntRange(1, 3).Draw(t, "page")
	for what, list := range map[string]func(after string) ([]stream.Delivery, string, error){
		by.name: func(after string) ([]stream.Delivery, string, error) { return by.consumer.Orphans(m.ctx, after, page) },
		"":      func(after string) ([]stream.Delivery, string, error) { return by.consumer.Idle(m.ctx, 0, after, page) },
	} {
		var all []stream.Delivery
		for after, first := "", true; first || after != ""; first = false {
			ds, next, err := list(after)
			must(t, err)
			all, after = append(all, ds...), next
		}
		m.same(t, all, m.pendingWith(m.group, what))
	}
}

// Trim drops what everybody has acked. An age of minus an hour is what an age of none will
// be in an hour.
func (m *machine) Trim(t *rapid.T) {
	keep, most := choose(t, "keep", []time.Duration{time.Hour, -time.Hour}), math.MaxInt32
	if one(t, 3, "too many") {
		most = max(0, len(m.alerts)-1)
	}
	got, err := m.replicas[0].consumer.Trim(m.ctx, keep, most)
	must(t, err)
	want := m.trim(m.start.Add(-keep), most)
	m.did(t, "trim", "%v", numbers(want))
	m.tally["alerts trimmed"] += len(want)
	for _, a := range want {
		if m.others.letterOf(a) {
			m.tally["trimmed after its burial"]++
		}
	}
	if int(got) != len(want) {
		wrong(t, "other alerts are trimmed", "%d; the model %d", got, len(want))
	}
}
