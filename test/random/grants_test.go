package random

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"pgregory.net/rapid"

	"riposte/ledger"
	"riposte/stream"
)

// Begin asks for up to four deliveries: mostly pending ones, no matter with whom.
func (m *machine) Begin(t *rapid.T) {
	var given []*alert
	for _, a := range m.alerts {
		if a.number <= m.groups[m.group].last.number {
			given = append(given, a)
		}
	}
	pending := m.pendingWith(m.group, "")
	r := request{by: m.anybody(t)}
	merge := !one(t, 20, "an alert twice")
	var twice bool
	for range rapid.IntRange(1, 4).Draw(t, "n") {
		from := pending
		if one(t, 8, "an old delivery") {
			from = given
		}
		if len(from) == 0 {
			continue
		}
		a := choose(t, "delivery", from)
		c := m.claim(t, a)
		if slices.ContainsFunc(r.claims, func(o ledger.Claim) bool { return o.ID == c.ID }) {
			if merge {
				continue
			}
			twice = true
		}
		r.claims, r.deliveries = append(r.claims, c), append(r.deliveries, a)
	}
	for _, o := range m.replicas {
		if one(t, 6, o.name+" proven dead") {
			r.dead = append(r.dead, o.name)
		}
	}
	if twice {
		if _, err := r.by.ledger.Begin(m.ctx, r.claims, r.dead); !errors.Is(err, ledger.ErrClaim) {
			wrong(t, "a batch with an alert twice is not refused", "%v, want ErrClaim", err)
		}
		m.did(t, "begin twice", "%s", r.by.name)
		return
	}
	if len(r.claims) > 0 {
		m.ask(t, r)
	}
}

// claim is what a replica would ask of a delivery.
func (m *machine) claim(t *rapid.T, a *alert) ledger.Claim {
	if a.reopened != "" {
		c := ledger.Claim{ID: stream.AlertID(a.id), StreamID: a.streamID, Digest: a.reopened, Nonce: m.nonce(), Reopened: true}
		if p, ok := m.groups[m.group].pending[a]; ok {
			c.Deliveries = p.times - 1
		}
		return c
	}
	decoded, id, err := stream.Delivery{StreamID: a.streamID, Raw: []byte(a.raw), GivenID: a.id}.Alert()
	must(t, err)
	c := ledger.Claim{ID: id, StreamID: a.streamID, Digest: decoded.Digest(), Nonce: m.nonce()}
	if e := m.entries[id]; e != nil && e.digest != c.Digest && !one(t, 4, "not told of the conflict yet") {
		c.ID = id.Conflicting(c.Digest)
	}
	if p, ok := m.groups[m.group].pending[a]; ok {
		c.Deliveries = p.times - 1
	}
	if one(t, 6, "stale count of deliveries") {
		c.Deliveries = rapid.IntRange(0, 3).Draw(t, "deliveries")
	}
	if one(t, 8, "floor") {
		c.Floor = uint64(m.start.Add(time.Duration(rapid.IntRange(-1, 1).Draw(t, "hours")) * time.Hour).UnixMicro())
	}
	c.Body = ledger.Body{Title: c.Nonce, Seen: m.start, Expires: m.start.Add(lease)} // told apart: the first plan is frozen
	for i := range steps {
		c.Body.Steps = append(c.Body.Steps, ledger.Step{Playbook: "p", Step: fmt.Sprint(i + 1), Action: "log", Mode: "enforce", Timeout: time.Second})
	}
	m.mayPark(t, &c, a)
	return c
}

// mayPark gives a claim what holds it back, and mostly a body to be parked with, as a replica
// makes it from the answer that it has to wait: of what stood there then.
func (m *machine) mayPark(t *rapid.T, c *ledger.Claim, a *alert) {
	if m.group != group {
		return // whoever only buries heeds no switch
	}
	c.Switches = []string{string(ledger.HostSwitch)}
	if one(t, 3, "not told to wait yet") {
		return
	}
	body := c.Body
	if e := m.entries[c.ID]; e != nil {
		if e.owner != "-" {
			return // of what somebody holds, Begin shows nothing
		}
		e.edit(func(b *ledger.Body) { body = *b })
		c.ParkFrom = uint64(e.epoch.least)
	}
	body.Parked = &ledger.Parked{Raw: []byte(a.raw), Reason: "held back", For: string(ledger.HostSwitch)}
	c.Park = &body
}

// Pause turns the switch off, or on again.
func (m *machine) Pause(t *rapid.T) {
	if m.paused = !m.paused; m.paused {
		must(t, m.rdb.HSet(m.ctx, host.ControlKey(), string(ledger.HostSwitch), "off").Err())
	} else {
		must(t, m.rdb.HDel(m.ctx, host.ControlKey(), string(ledger.HostSwitch)).Err())
	}
	m.did(t, "pause", "off: %v", m.paused)
}

// Free sends round again what waits for the switch, once it is on.
func (m *machine) Free(t *rapid.T) {
	by, lost := m.anybody(t), m.loseReply(t)
	var got int
	var err error
	now := m.during(t, func() { got, err = by.ledger.Free(m.ctx, func(string) bool { return m.paused }, 10) })
	want := m.free(now, by.name, 10, lost)
	m.did(t, "free", "%s: %d", by.name, want)
	m.tally["freed"] += want
	if m.unanswered(err) {
		return
	}
	must(t, err)
	if got != want {
		wrong(t, "other alerts are freed", "%d; the model: %d", got, want)
	}
}

func (m *machine) nonce() string {
	m.nonces++
	return fmt.Sprintf("n%d", m.nonces)
}

// BeginAgain sends a Begin whose reply was lost once more, perhaps long after.
func (m *machine) BeginAgain(t *rapid.T) {
	if len(m.begun) == 0 {
		return
	}
	i := rapid.IntRange(0, len(m.begun)-1).Draw(t, "request")
	r := m.begun[i]
	m.begun = slices.Delete(m.begun, i, i+1)
	m.tally["begin again"]++
	m.ask(t, r)
}

func (m *machine) ask(t *rapid.T, r request) {
	m.loseReply(t)
	var got []ledger.Answer
	var err error
	now := m.during(t, func() { got, err = r.by.ledger.Begin(m.ctx, r.claims, r.dead) })
	want := make([]answer, len(r.claims))
	for i, c := range r.claims {
		want[i] = m.begin(now, r.by, c, r.deliveries[i], r.dead)
		m.did(t, "begin", "%s asks for %s, delivery %d, nonce %s, %d deliveries before, floor: %v, proven dead %v: %s",
			r.by.name, c.ID, r.deliveries[i].number, c.Nonce, c.Deliveries, c.Floor > 0, r.dead, want[i].verdict)
		m.tally["verdict "+string(want[i].verdict)]++
		if want[i].verdict == ledger.Run && c.Deliveries > 0 {
			m.tally["begin of what was delivered before"]++
		}
	}
	if m.unanswered(err) {
		m.begun = append(m.begun, r)
		t.Log("the reply was lost")
		return
	}
	must(t, err)
	for i, a := range got {
		w, c := want[i], r.claims[i]
		if w.why != a.Why || a.Verdict == ledger.Wait && (!w.stored.is(int64(a.StoredAt)) || (a.Stored == nil) != (w.body == "") || a.Stored != nil && text(*a.Stored) != w.body) {
			wrong(t, "Begin holds back otherwise", "%s: %+v; the model: %+v", c.ID, a, w)
		}
		if a.Verdict != w.verdict || a.Holder != w.holder || (a.Grant != nil) != (w.epoch != nil) ||
			w.left != nil && !w.left.is(a.Left.Microseconds()) {
			wrong(t, "Begin answers otherwise", "%s: %+v; the model: %+v", c.ID, a, w)
		}
		if g := a.Grant; g != nil {
			if g.ID != c.ID || g.StreamID != c.StreamID || g.Token.Nonce != c.Nonce || !w.epoch.is(int64(g.Token.Epoch)) ||
				g.Prior != w.prior || text(g.Body) != w.body {
				wrong(t, "Begin grants otherwise", "%s: %+v; the model: %+v", c.ID, g, w)
			}
			m.grants = append(m.grants, &grant{Grant: g, by: r.by, raw: r.deliveries[i].raw})
		}
	}
}

// anyGrant draws a grant: mostly one that stands, else any there ever was. It is nil where
// there is none.
func (m *machine) anyGrant(t *rapid.T) *grant {
	if len(m.grants) == 0 {
		return nil
	}
	from := m.grants
	if !one(t, 4, "any grant") {
		var standing []*grant
		for _, g := range m.grants {
			if e := m.entries[g.ID]; e.stands(g.Token) && e.state == ledger.Held {
				standing = append(standing, g)
			}
		}
		if len(standing) > 0 {
			from = standing
		}
	}
	return choose(t, "grant", from)
}

// writer draws a grant to write under. Where the reply to its last write was lost, that one
// is sent again instead.
func (m *machine) writer(t *rapid.T) *grant {
	g := m.anyGrant(t)
	if g != nil && g.again != nil {
		m.tally["write again"]++
		g.again(t, m)
		return nil
	}
	return g
}

// fenced compares the answer to a fenced write with the model's.
func (m *machine) fenced(t *rapid.T, g *grant, what string, err error, ok bool, again func(*rapid.T, *machine)) {
	t.Helper()
	m.did(t, what, "%v: %v", g, ok)
	if !ok {
		m.tally["refused"]++
	}
	g.again = nil
	switch {
	case m.unanswered(err):
		g.again = again
		t.Log("the reply was lost")
	case ok && err == nil:
		g.acked++
	case !ok && err == nil:
		wrong(t, what+" is accepted, but the token does not stand", "%v", g)
	case ok:
		wrong(t, what+" is refused, but the token stands", "%v: %v", g, err)
	case !errors.Is(err, ledger.ErrLost):
		wrong(t, what+" is refused with another error than ErrLost", "%v: %v", g, err)
	}
}

// Record gives a step its outcome, in any order of steps.
func (m *machine) Record(t *rapid.T) {
	g := m.writer(t)
	if g == nil {
		return
	}
	if i, ok := m.step(t, g); ok {
		m.decide(t, g, i)
		m.record(t, g, i)
	}
}

// step draws one without an outcome, if there is one. Under a token that does not stand any
// more any will do.
func (m *machine) step(t *rapid.T, g *grant) (i int, ok bool) {
	var open []int
	for i, s := range g.Body.Steps {
		if e := m.entries[g.ID]; s.Outcome == "" || !e.stands(g.Token) || e.state != ledger.Held {
			open = append(open, i)
		}
	}
	if len(open) == 0 {
		return 0, false
	}
	return choose(t, "step", open), true
}

// decide sets the outcome of a step, as it is closed at the gate.
func (m *machine) decide(t *rapid.T, g *grant, i int) {
	s := &g.Body.Steps[i]
	s.Outcome, s.Reason = choose(t, "outcome", []string{"logged", "killed", "failed", "unknown"}), "because "+g.Token.Nonce
	s.Epoch, s.Replica = g.Token.Epoch, g.by.name
}

func (m *machine) record(t *rapid.T, g *grant, i int) {
	m.loseReply(t)
	err := g.by.ledger.Record(m.ctx, g.Grant, i)
	s := g.Body.Steps[i]
	last := !slices.ContainsFunc(g.Body.Steps, func(s ledger.Step) bool { return s.Outcome == "" })
	ok := m.write(g, "record", last, "step", s.Playbook+"/"+s.Step, "outcome", s.Outcome, "reason", s.Reason)
	m.fenced(t, g, "record", err, ok, func(t *rapid.T, m *machine) { m.record(t, g, i) })
}

// RecordAttempt says that a step failed and will be tried again.
func (m *machine) RecordAttempt(t *rapid.T) {
	g := m.writer(t)
	if g == nil {
		return
	}
	if i, ok := m.step(t, g); ok {
		g.Body.Steps[i].Attempts++
		m.recordAttempt(t, g, i)
	}
}

func (m *machine) recordAttempt(t *rapid.T, g *grant, i int) {
	m.loseReply(t)
	err := g.by.ledger.RecordAttempt(m.ctx, g.Grant, i, errors.New("not yet"))
	s := g.Body.Steps[i]
	ok := m.write(g, "retry", false, "step", s.Playbook+"/"+s.Step, "outcome", "", "reason", "not yet")
	m.fenced(t, g, "record attempt", err, ok, func(t *rapid.T, m *machine) { m.recordAttempt(t, g, i) })
}

// Bury moves an alert to the dead letters, perhaps with an outcome that was found closed at
// the gate and never recorded.
func (m *machine) Bury(t *rapid.T) {
	if g := m.writer(t); g != nil {
		if i, ok := m.step(t, g); ok && one(t, 4, "a closed outcome") {
			m.decide(t, g, i)
		}
		m.buryOnce(t, g, stream.NewDeadLetter([]byte(g.raw), "because "+g.Token.Nonce))
	}
}

func (m *machine) buryOnce(t *rapid.T, g *grant, l stream.DeadLetter) {
	m.loseReply(t)
	err := g.by.ledger.Bury(m.ctx, g.Grant, l)
	m.fenced(t, g, "bury", err, m.bury(g, l), func(t *rapid.T, m *machine) { m.buryOnce(t, g, l) })
}

// Park sets an alert aside: for a person, for an hour, or for as good as no time.
func (m *machine) Park(t *rapid.T) {
	if g := m.writer(t); g != nil && g.raw != "" { // what was opened again waits for nobody
		due := choose(t, "due", []time.Time{{}, m.start.Add(time.Hour), m.start.Add(-time.Hour)})
		m.parkOnce(t, g, due, "because "+g.Token.Nonce, one(t, 2, "nothing left has begun"))
	}
}

func (m *machine) parkOnce(t *rapid.T, g *grant, due time.Time, reason string, unbegun bool) {
	m.loseReply(t)
	err := g.by.ledger.Park(m.ctx, g.Grant, []byte(g.raw), due, reason, unbegun)
	m.fenced(t, g, "park", err, m.park(g, due, reason, unbegun), func(t *rapid.T, m *machine) { m.parkOnce(t, g, due, reason, unbegun) })
}

// Release hands a grant back; also one with a write whose reply was lost.
func (m *machine) Release(t *rapid.T) {
	g := m.anyGrant(t)
	if g == nil {
		return
	}
	m.loseReply(t)
	err := g.by.ledger.Release(m.ctx, g.Grant, "stopped")
	m.release(g, "stopped")
	m.did(t, "release", "%v", g)
	if m.unanswered(err) {
		return
	}
	must(t, err)
}

// Renew extends the leases of up to four grants, whoever's they are.
func (m *machine) Renew(t *rapid.T) {
	var batch []*grant
	var plain []*ledger.Grant
	for range rapid.IntRange(1, 4).Draw(t, "n") {
		if g := m.anyGrant(t); g != nil {
			batch, plain = append(batch, g), append(plain, g.Grant)
		}
	}
	if len(batch) == 0 {
		return
	}
	m.loseReply(t)
	var renewed, gone []*ledger.Grant
	var err error
	now := m.during(t, func() { renewed, gone, _, err = batch[0].by.ledger.Renew(m.ctx, plain) })
	var want, wantGone []*ledger.Grant
	for _, g := range batch {
		ok := m.renew(now, g)
		if ok {
			want = append(want, g.Grant)
		} else {
			wantGone = append(wantGone, g.Grant)
			m.tally["renew refused"]++
		}
		m.did(t, "renew", "%v: %v", g, ok)
	}
	if m.unanswered(err) {
		return
	}
	must(t, err)
	if !slices.Equal(renewed, want) || !slices.Equal(gone, wantGone) {
		wrong(t, "other leases are renewed", "%d renewed and %d lost; the model: %d and %d", len(renewed), len(gone), len(want), len(wantGone))
	}
}

// Forge makes a grant that nobody was given: a twin of a real one with another nonce or
// another epoch, or one of an alert that the ledger does not know.
func (m *machine) Forge(t *rapid.T) {
	g := m.anyGrant(t)
	if g == nil {
		return
	}
	twin := &ledger.Grant{ID: g.ID, StreamID: g.StreamID, Token: g.Token}
	twin.Body = g.Body
	twin.Body.Steps = slices.Clone(g.Body.Steps)
	switch rapid.IntRange(0, 2).Draw(t, "twin") {
	case 0:
		twin.Token.Nonce = m.nonce()
	case 1:
		twin.Token.Epoch--
	case 2:
		twin.ID = "nobody"
	}
	m.grants = append(m.grants, &grant{Grant: twin, by: m.anybody(t), raw: g.raw})
	m.did(t, "forge", "%v", m.grants[len(m.grants)-1])
}
