package random

import (
	"encoding/json"
	"hash/fnv"
	"math"
	"slices"
	"strings"
	"time"

	"riposte/ledger"
	"riposte/stream"
)

// model is the ledger of one host and group as its documentation has it. It was written
// from there and not from the scripts, and it knows nothing of how they do it.
type model struct {
	*shared
	group   stream.Group
	entries map[stream.AlertID]*entry
	letters []letter
	waiting map[stream.AlertID]float64 // until when, in Unix milliseconds
}

func newModel(s *shared, g stream.Group) *model {
	return &model{shared: s, group: g, entries: map[stream.AlertID]*entry{}, waiting: map[stream.AlertID]float64{}}
}

// entry is one alert in the ledger.
type entry struct {
	state                   ledger.State
	epoch, lease            *moment
	owner, nonce            string
	seq, duplicates, deaths int
	digest                  string
	delivery                *alert
	gate                    string
	body                    string
}

// letter is a dead letter.
type letter struct {
	letterID string // empty until it is seen in Redis
	id       stream.AlertID
	delivery *alert
	epoch    *moment
	replica  string
	stream.DeadLetter
}

// The stream merely delivers.

func (m *model) read(now *moment, consumer string, n int) (given []*alert) {
	r := m.groups[m.group]
	for _, a := range m.alerts {
		if a.number > r.last.number && len(given) < n {
			given = append(given, a)
			r.pending[a] = possession{consumer, 1}
		}
	}
	if len(given) > 0 {
		r.last = given[len(given)-1]
	}
	r.seen[consumer] = now
	return given
}

// takeOver moves what is pending under a name that is gone. After a death each is one more
// delivery, and of those that count as suspects then, only some are taken.
func (m *model) takeOver(by, from string, ask stream.Takeover) (taken []*alert) {
	pending := m.groups[m.group].pending
	for _, a := range m.pendingWith(m.group, from) {
		times := pending[a].times
		if ask.Died {
			times++
		}
		suspect := times >= ask.Suspect
		if len(taken) == ask.Most || suspect && ask.Suspects == 0 {
			continue
		}
		if suspect {
			ask.Suspects--
		}
		taken = append(taken, a)
		pending[a] = possession{by, times}
	}
	return taken
}

// abandoned is what a group has left that nobody serves, the oldest first: what is pending,
// with whom it is, and what nobody has read, under the name of who looks then. The young
// stays where it is.
func (m *model) abandoned(by string, young time.Time, most int) (left []*alert) {
	r := m.groups[m.group]
	for _, a := range m.alerts {
		if len(left) == most || a.since(young) {
			break
		}
		if a.number > r.last.number {
			r.last, r.pending[a] = a, possession{by, 1}
		}
		if _, pending := r.pending[a]; pending {
			left = append(left, a)
		}
	}
	return left
}

// ack is true the first time.
func (m *model) ack(a *alert) bool {
	_, pending := m.groups[m.group].pending[a]
	delete(m.groups[m.group].pending, a)
	return pending
}

// The ledger decides.

// answer is what Begin ought to say.
type answer struct {
	verdict ledger.Verdict
	epoch   *moment
	prior   string
	body    string
	left    *moment
	holder  string
	why     string  // it must not begin
	stored  *moment // epoch of what is stored
}

func (m *model) begin(now *moment, by replica, c ledger.Claim, delivery *alert, dead []string) answer {
	e := m.entries[c.ID]
	until := now.plus(lease.Microseconds())
	paused := m.paused && len(c.Switches) > 0
	switch {
	case e == nil && c.Reopened: // there is no plan for it
		m.ack(delivery)
		return answer{verdict: ledger.Settled}
	case e == nil && paused && c.Deliveries < deathsToBury:
		if c.Park == nil || c.ParkFrom != 0 {
			return answer{verdict: ledger.Wait, why: string(ledger.HostSwitch), stored: exactly(0)}
		}
		e = &entry{owner: by.name, nonce: c.Nonce, deaths: c.Deliveries, digest: c.Digest, delivery: delivery, gate: "-"}
		e.epoch = later(now, exactly(int64(c.Floor)+1))
		m.entries[c.ID] = e
		return m.holdBack(e, c, "")
	case e == nil:
		m.entries[c.ID] = &entry{
			state: ledger.Held, epoch: later(now, exactly(int64(c.Floor)+1)), lease: until, owner: by.name, nonce: c.Nonce,
			deaths: c.Deliveries, digest: c.Digest, delivery: delivery, gate: by.gate, body: text(c.Body),
		}
		if c.Deliveries > 0 { // it was somebody else's
			m.move(delivery, by.name)
		}
		return m.granted(m.entries[c.ID], c.ID, ledger.Run, "", "")
	case e.state == ledger.Held && e.nonce == c.Nonce: // asked again: the same grant
		e.lease = until
		return e.grant(ledger.Resume, e.gate)
	case e.digest != c.Digest:
		return answer{verdict: ledger.Conflict}
	case e.state != ledger.Held:
		if m.ack(delivery) {
			e.duplicates++
		}
		return answer{verdict: ledger.Settled}
	}
	died := slices.Contains(dead, e.owner)
	if c.Reopened && e.delivery != delivery { // added for an entry of another group
		return answer{verdict: ledger.Busy, holder: e.owner, left: exactly(lease.Microseconds())}
	}
	if e.lease.least > now.most && !died {
		return answer{verdict: ledger.Busy, holder: e.owner, left: &moment{e.lease.least - now.most, e.lease.most - now.least}}
	}
	deaths := e.deaths
	if died {
		deaths++
	}
	if paused && deaths < deathsToBury {
		if e.owner != "-" {
			return answer{verdict: ledger.Paused, why: string(ledger.HostSwitch)}
		}
		if c.Park == nil || !e.epoch.is(int64(c.ParkFrom)) {
			return answer{verdict: ledger.Wait, why: string(ledger.HostSwitch), stored: e.epoch, body: e.body}
		}
		from := e.owner
		e.epoch = later(e.epoch.plus(1), later(now, exactly(int64(c.Floor)+1)))
		e.owner, e.nonce, e.seq, e.delivery = by.name, c.Nonce, 0, delivery
		return m.holdBack(e, c, from)
	}
	e.deaths = deaths
	prior, from := e.gate, e.owner
	switch prior {
	case by.gate:
	case "-": // it was parked before any step that is left to do had begun
		prior, e.gate = "", by.gate
	default:
		e.gate = "*"
	}
	e.epoch = later(e.epoch.plus(1), later(now, exactly(int64(c.Floor)+1)))
	e.lease, e.owner, e.nonce, e.seq, e.delivery = until, by.name, c.Nonce, 0, delivery
	m.move(delivery, by.name)
	return m.granted(e, c.ID, ledger.Resume, prior, from)
}

// heldBack is where all that wait for the switch stand among the waiting.
var heldBack = func() float64 {
	h := fnv.New64a()
	h.Write([]byte(ledger.HostSwitch))
	return float64(stream.HeldBack + h.Sum64()>>16)
}()

// holdBack parks an alert inside Begin, until the switch is on again.
func (m *model) holdBack(e *entry, c ledger.Claim, from string) answer {
	e.body = text(*c.Park)
	m.note(c.ID, "park", e.epoch, e.owner, "from", from, "reason", string(ledger.HostSwitch))
	e.settle(m, ledger.Waiting)
	m.waiting[c.ID] = heldBack
	return answer{verdict: ledger.ParkedNow, why: string(ledger.HostSwitch)}
}

// free sends round again what waits for the switch, if it is on, by the order of the IDs. Where
// the first reply is lost, the others are woken all the same.
func (m *model) free(now *moment, by string, n int, lost bool) (freed int) {
	var ids []stream.AlertID
	for id, due := range m.waiting {
		if due == heldBack && !m.paused {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	for _, id := range ids[:min(n, len(ids))] {
		m.again(now, id, m.entries[id], by)
		freed++
	}
	return freed
}

// again sends a parked alert round again.
func (m *model) again(now *moment, id stream.AlertID, e *entry, by string) {
	var raw string
	e.edit(func(b *ledger.Body) { raw, b.Parked = string(b.Parked.Raw), nil })
	e.anew(now)
	e.delivery = m.publish(string(id), raw)
	delete(m.waiting, id)
	m.note(id, "wake", e.epoch, by, "entry", e.delivery)
}

// grant is poison where too many have died with it.
func (e *entry) grant(v ledger.Verdict, prior string) answer {
	if e.deaths >= deathsToBury {
		v = ledger.Poison
	}
	return answer{verdict: v, epoch: e.epoch, prior: prior, body: e.body}
}

func (m *model) granted(e *entry, id stream.AlertID, v ledger.Verdict, prior, from string) answer {
	a := e.grant(v, prior)
	m.note(id, string(a.verdict), e.epoch, e.owner, "from", from)
	return a
}

// move shows in the pending list who has it; that is not one more delivery.
func (m *model) move(a *alert, to string) {
	if p, ok := m.groups[m.group].pending[a]; ok {
		m.groups[m.group].pending[a] = possession{to, p.times}
	}
}

func (e *entry) stands(t ledger.Token) bool {
	return e != nil && e.epoch.least == int64(t.Epoch) && e.nonce == t.Nonce
}

func (m *model) renew(now *moment, g *grant) bool {
	e := m.entries[g.ID]
	if !e.stands(g.Token) || e.state != ledger.Held {
		return false
	}
	e.lease = now.plus(lease.Microseconds())
	return true
}

// write is a record or an attempt: fenced by the token, once for each seq.
func (m *model) write(g *grant, event string, last bool, fields ...any) bool {
	e := m.entries[g.ID]
	switch {
	case e == nil:
		return false
	case e.stands(g.Token) && g.acked+1 <= e.seq:
		return true // this very request was carried out before
	case !e.stands(g.Token) || e.state != ledger.Held:
		return m.late(g, fields...)
	}
	e.seq, e.body = g.acked+1, counted(g.Body)
	m.note(g.ID, event, e.epoch, g.by.name, fields...)
	if last {
		e.edit(func(b *ledger.Body) { // what was done is kept, not how it was to be done
			for i := range b.Steps {
				b.Steps[i].With, b.Steps[i].Timeout, b.Steps[i].Retry = nil, 0, ledger.Retry{}
			}
		})
		e.settle(m, ledger.Done)
	}
	return true
}

// end takes an alert out of the hands of its holder: buried or parked.
func (m *model) end(g *grant, event string, state ledger.State, fields ...any) (ok, first bool) {
	e := m.entries[g.ID]
	switch {
	case e == nil:
		return false, false
	case e.stands(g.Token) && e.state == state:
		return true, false
	case !e.stands(g.Token) || e.state != ledger.Held:
		return m.late(g, fields...), false
	}
	e.body = counted(g.Body)
	m.note(g.ID, event, e.epoch, g.by.name, fields...)
	e.settle(m, state)
	return true, true
}

func (m *model) bury(g *grant, l stream.DeadLetter) bool {
	ok, first := m.end(g, "bury", ledger.Dead, "outcome", "dead", "reason", l.Reason)
	if first {
		e := m.entries[g.ID]
		m.letters = append(m.letters, letter{"", g.ID, e.delivery, e.epoch, g.by.name, l})
	}
	return ok
}

func (m *model) park(g *grant, due time.Time, reason string, unbegun bool) bool {
	ok, first := m.end(g, "park", ledger.Waiting, "reason", reason)
	if first {
		if unbegun {
			m.entries[g.ID].gate = "-"
		}
		m.waiting[g.ID] = math.Inf(1)
		if !due.IsZero() {
			m.waiting[g.ID] = float64(due.UnixMilli())
		}
	}
	return ok
}

// settle is how a state other than held begins: nobody's lease runs, the delivery is acked.
func (e *entry) settle(m *model, s ledger.State) {
	e.state, e.lease = s, exactly(0)
	m.ack(e.delivery)
}

func (m *model) release(g *grant, reason string) {
	if e := m.entries[g.ID]; e.stands(g.Token) && e.state == ledger.Held {
		e.toNobody()
		m.note(g.ID, "release", e.epoch, g.by.name, "reason", reason)
	}
}

func (e *entry) toNobody() {
	e.state, e.lease, e.owner, e.nonce = ledger.Held, exactly(0), "-", "-"
}

// anew is toNobody with another body than before, which has an epoch of its own.
func (e *entry) anew(now *moment) {
	e.toNobody()
	e.epoch = later(e.epoch.plus(1), &moment{now.least, now.most})
}

// wake sends what is due round again, the longest due first.
func (m *model) wake(now *moment, by string, n int) (woken int) {
	var due []stream.AlertID
	for id, at := range m.waiting {
		if at <= float64(now.least/1000) {
			due = append(due, id)
		}
	}
	slices.SortFunc(due, func(a, b stream.AlertID) int {
		if m.waiting[a] != m.waiting[b] {
			return int(m.waiting[a] - m.waiting[b])
		}
		return strings.Compare(string(a), string(b))
	})
	for _, id := range due[:min(n, len(due))] {
		m.again(now, id, m.entries[id], by)
		woken++
	}
	return woken
}

// revive sends a dead letter round again, for a person. Deaths count from zero.
func (m *model) revive(now *moment, letterID, by string) bool {
	i := slices.IndexFunc(m.letters, func(l letter) bool { return l.letterID == letterID })
	if i < 0 {
		return false
	}
	l := m.letters[i]
	e := m.entries[l.id]
	e.edit(func(b *ledger.Body) { b.Retries++ })
	e.anew(now)
	e.deaths = 0
	again := m.publish(string(l.id), string(l.Raw))
	m.letters = slices.Delete(m.letters, i, i+1)
	m.note(l.id, "revive", e.epoch, by, "entry", again)
	return true
}

// reopen adds a step to a settled alert and sends it round again, for a person. Deaths count
// from zero.
func (m *model) reopen(now *moment, id stream.AlertID, s ledger.Step, by, why string) bool {
	e := m.entries[id]
	if e.state != ledger.Done {
		return false
	}
	e.edit(func(b *ledger.Body) { b.Steps = append(b.Steps, s) })
	e.anew(now)
	e.deaths = 0
	e.delivery = m.publish(string(id), "")
	e.delivery.reopened = e.digest
	m.note(id, "undo", e.epoch, by, "entry", e.delivery, "reason", why)
	return true
}

// purge removes a dead letter; its alert stays dead.
func (m *model) purge(letterID, by string) bool {
	i := slices.IndexFunc(m.letters, func(l letter) bool { return l.letterID == letterID })
	if i < 0 {
		return false
	}
	l := m.letters[i]
	m.letters = slices.Delete(m.letters, i, i+1)
	m.note(l.id, "purge", l.epoch, by, "reason", l.Reason)
	return true
}

// resolve is a person's note beside an unknown outcome. The first one stands, all are in
// the journal.
func (m *model) resolve(id stream.AlertID, step int, note ledger.Note) (ok bool, earlier *ledger.Note) {
	e := m.entries[id]
	s := e.step(step)
	if e.state != ledger.Done && e.state != ledger.Dead || s.Outcome != "unknown" {
		return false, nil
	}
	if s.Resolved == nil {
		e.edit(func(b *ledger.Body) { b.Steps[step].Resolved = &note })
	}
	m.note(id, "resolve", e.epoch, note.By, "step", s.Name(), "reason", note.Note)
	return true, s.Resolved
}

func (e *entry) step(i int) (s ledger.Step) {
	e.edit(func(b *ledger.Body) { s = b.Steps[i] })
	return s
}

// late is evidence of what was not accepted; it changes nothing.
func (m *model) late(g *grant, fields ...any) bool {
	m.note(g.ID, "late", exactly(int64(g.Token.Epoch)), g.by.name, fields...)
	return false
}

func (m *model) note(id stream.AlertID, event string, epoch *moment, owner string, more ...any) {
	m.journal = append(m.journal, append(line{"id", id, "group", m.group, "event", event, "epoch", epoch, "owner", owner}, more...))
}

func (e *entry) edit(change func(*ledger.Body)) {
	var b ledger.Body
	if err := json.Unmarshal([]byte(e.body), &b); err != nil {
		panic(err) // it was written by text
	}
	change(&b)
	e.body = counted(b)
}

// counted is a body that says how many of its steps a person should look at.
func counted(b ledger.Body) string {
	b.Unresolved = 0
	for _, s := range b.Steps {
		if s.Outcome == "unknown" && s.Resolved == nil {
			b.Unresolved++
		}
	}
	return text(b)
}

func text(b ledger.Body) string {
	raw, err := json.Marshal(b)
	if err != nil {
		panic(err) // a body has nothing that could not be written
	}
	return string(raw)
}
