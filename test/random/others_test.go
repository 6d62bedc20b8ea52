package random

import (
	"slices"
	"time"

	"pgregory.net/rapid"

	"riposte/ledger"
	"riposte/stream"
)

// undertaker is the name that all have who look after a group not their own.
const undertaker = "undertaker"

// Ack has the other group ack some of what it has, in any order, and without its ledger.
func (m *machine) Ack(t *rapid.T) {
	for range rapid.IntRange(1, 4).Draw(t, "n") {
		all := m.pendingWith(m.group, "")
		if len(all) == 0 {
			return
		}
		a := choose(t, "delivery", all)
		must(t, m.rdb.XAck(m.ctx, host.AlertsKey(), string(m.group), a.streamID).Err())
		m.ack(a)
		m.promise.ackedItself(a.streamID)
		m.did(t, "ack by others", "%d", a.number)
	}
}

// Leave removes replicas of the other group that have nothing pending, as if they had
// stopped in good order.
func (m *machine) Leave(t *rapid.T) {
	for _, r := range m.replicas {
		if len(m.pendingWith(m.group, r.name)) > 0 || !rapid.Bool().Draw(t, r.name) {
			continue
		}
		must(t, m.rdb.XGroupDelConsumer(m.ctx, host.AlertsKey(), string(m.group), r.name).Err())
		delete(m.groups[m.group].seen, r.name)
		m.promise.mayGo(r.name)
		m.did(t, "others leave", "%s", r.name)
	}
}

// Abandon has an undertaker bury what the other group has left, if nobody serves it. Its
// grants may be left behind, as if it had died. Who was just seen will have been silent for
// an hour in an hour, and to be silent for minus an hour comes to the same.
func (m *machine) Abandon(t *rapid.T) {
	by := choose(t, "undertaker", m.replicas)
	by.name, by.ledger, by.consumer = undertaker, by.ledger.For(m.group, undertaker), by.consumer.For(m.group, undertaker)
	after := choose(t, "after", []time.Duration{time.Hour, -time.Hour})
	for _, a := range m.estate(t, by, after, rapid.IntRange(1, 3).Draw(t, "most")) {
		if !one(t, 6, "not this one") {
			m.inter(t, by, a)
		}
	}
}

// estate asks what the group has left, again if the reply is lost.
func (m *machine) estate(t *rapid.T, by replica, after time.Duration, most int) (left []*alert) {
	m.loseReply(t)
	var got stream.Estate
	var err error
	now := m.during(t, func() { got, err = by.consumer.Abandoned(m.ctx, after, most) })
	silence := m.groups[m.group].silence(now)
	served := silence != nil && after > 0
	if !served {
		left = m.abandoned(by.name, m.start.Add(-after), most)
	}
	m.promise.mayGo(undertaker)
	m.did(t, "look for the abandoned", "after %v: served: %v, left: %v", after, served, numbers(left))
	if m.unanswered(err) {
		t.Log("the reply was lost")
		return m.estate(t, by, after, most)
	}
	must(t, err)
	m.same(t, got.Entries, left)
	names, err := by.consumer.Consumers(m.ctx)
	must(t, err)
	if len(left) == 0 && len(m.pendingWith(m.group, undertaker)) == 0 && slices.Contains(names, undertaker) {
		wrong(t, "an undertaker with nothing to do stays", "%v", names)
	}
	switch {
	case served:
		m.tally["abandoned by nobody"]++
	case (got.Silence < 0) != (silence == nil) || silence != nil && !silence.is(got.Silence.Milliseconds()):
		wrong(t, "the silence is another", "%v; the model, in ms: %v", got.Silence, silence)
	}
	m.tally["left by the abandoned"] += len(left)
	return left
}

// inter begins an alert of the group to bury it.
func (m *machine) inter(t *rapid.T, by replica, a *alert) {
	before := len(m.grants)
	m.ask(t, request{by: by, claims: []ledger.Claim{m.claim(t, a)}, deliveries: []*alert{a}})
	if len(m.grants) > before && !one(t, 6, "dies before the burial") {
		m.buryOnce(t, m.grants[before], stream.NewDeadLetter([]byte(a.raw), "abandoned"))
		m.tally["buried for others"]++
	}
}

// letterOf says whether an alert is among the dead letters of the group.
func (m *machine) letterOf(a *alert) bool {
	return slices.ContainsFunc(m.letters, func(l letter) bool { return string(l.Raw) == a.raw })
}
