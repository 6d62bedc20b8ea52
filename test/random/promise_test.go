package random

import (
	"fmt"
	"slices"
	"strconv"

	"github.com/redis/go-redis/v9"

	"riposte/ledger"
	"riposte/stream"
)

// promise is what must hold of everything that is seen in Redis, without asking the model.
type promise struct {
	records map[string]bool           // group, alert and step
	epochs  map[string]int64          // group and alert -> newest accepted, by the journal
	alerts  map[string]map[string]any // stream ID -> alert, of all that were ever seen
	settled map[string]bool           // group and stream ID, once the group needs it no more
	last    *seen                     // the time before
	gone    map[string]bool           // consumers that were asked to be removed
	acked   map[string]bool           // what the other group has acked without its ledger
}

func newPromise() *promise {
	return &promise{
		records: map[string]bool{}, epochs: map[string]int64{}, alerts: map[string]map[string]any{}, settled: map[string]bool{},
		last: &seen{}, gone: map[string]bool{}, acked: map[string]bool{},
	}
}

func (p *promise) mayGo(consumer string)       { p.gone[consumer] = true }
func (p *promise) ackedItself(streamID string) { p.acked[streamID] = true }

func (p *promise) holds(s *seen) (broken []string) {
	broken = slices.Concat(p.journalHolds(s), p.consumersHold(s), p.deliveriesHold(s), gatesHold(s.control, s.now))
	p.last = s
	return broken
}

// journalHolds looks at what was accepted: each record once, and no epoch after a newer one.
func (p *promise) journalHolds(s *seen) (broken []string) {
	no := func(format string, args ...any) { broken = append(broken, fmt.Sprintf(format, args...)) }
	for _, j := range s.journal {
		id, event := fmt.Sprint(j.Values["group"], " ", j.Values["id"]), j.Values["event"]
		if event == "late" { // evidence of what was not accepted
			continue
		}
		epoch, err := strconv.ParseInt(fmt.Sprint(j.Values["epoch"]), 10, 64)
		if err != nil || epoch < p.epochs[id] {
			no("%v of %s under epoch %d, after epoch %d", event, id, epoch, p.epochs[id])
		}
		p.epochs[id] = epoch
		if step := fmt.Sprint(id, " ", j.Values["step"]); event == "record" {
			if p.records[step] {
				no("a second record of %s was accepted", step)
			}
			p.records[step] = true
		}
	}
	return broken
}

// consumersHold looks at who has what: nothing is with somebody who is gone.
func (p *promise) consumersHold(s *seen) (broken []string) {
	no := func(format string, args ...any) { broken = append(broken, fmt.Sprintf(format, args...)) }
	for g, all := range s.pending {
		with := map[string]int64{}
		for _, d := range all {
			with[d.Consumer]++
		}
		for _, c := range s.consumers[g] {
			if c.Pending != with[c.Name] {
				no("%s of %s has %d pending, and the pending list %d", c.Name, g, c.Pending, with[c.Name])
			}
			delete(with, c.Name)
		}
		for name, n := range with {
			no("%s of %s has %d pending and is no consumer", name, g, n)
		}
		for _, c := range p.last.consumers[g] {
			if !slices.ContainsFunc(s.consumers[g], is(c.Name)) && (c.Pending > 0 || !p.gone[c.Name]) {
				no("consumer %s of %s is gone, and had %d pending", c.Name, g, c.Pending)
			}
		}
	}
	clear(p.gone)
	return broken
}

// deliveriesHold looks at every alert there ever was: it is in the stream while a group has
// yet to read or to ack it, and what is neither is answered for.
func (p *promise) deliveriesHold(s *seen) (broken []string) {
	no := func(format string, args ...any) { broken = append(broken, fmt.Sprintf(format, args...)) }
	there := map[string]bool{}
	for _, a := range s.alerts {
		there[a.ID] = true
		p.alerts[a.ID] = a.Values
	}
	for g, info := range s.groups {
		pending := map[string]bool{}
		for _, d := range s.pending[g] {
			pending[d.ID] = true
		}
		for id := range p.alerts {
			key := fmt.Sprint(g, " ", id)
			switch unread := before(info.LastDeliveredID, id); {
			case !there[id] && (unread || pending[id]):
				no("%s was trimmed, and %s has yet to read or to ack it", id, g)
			case unread || pending[id] || p.settled[key]:
			case !p.answered(s, g, id):
				no("%s is neither unread nor pending in %s, and its alert is neither settled nor waiting", id, g)
			default:
				p.settled[key] = true
			}
		}
	}
	return broken
}

// answered says whether the ledger answers for the alert of a delivery. In the group that
// others have to bury for it is a dead letter, unless the group has acked it itself.
func (p *promise) answered(s *seen, g stream.Group, streamID string) bool {
	text := func(name string) string { v, _ := p.alerts[streamID][name].(string); return v }
	if digest := text("reopened"); digest != "" {
		h, _, err := ledger.ParseEntry([]byte(s.books[g].entries[stream.AlertID(text("id"))]))
		// Without an entry there was nothing to do.
		return err != nil || h.Digest != digest || h.Settled() || h.State == ledger.Waiting || g == other && p.acked[streamID]
	}
	if g == other {
		return p.acked[streamID] ||
			slices.ContainsFunc(s.books[g].letters, func(l redis.XMessage) bool { return l.Values["raw"] == text("alert") })
	}
	a, id, err := stream.Delivery{StreamID: streamID, Raw: []byte(text("alert")), GivenID: text("id")}.Alert()
	if err != nil {
		return false
	}
	for _, id := range []stream.AlertID{id, id.Conflicting(a.Digest())} {
		if h, _, err := ledger.ParseEntry([]byte(s.books[g].entries[id])); err == nil && h.Digest == a.Digest() {
			return h.Settled() || h.State == ledger.Waiting
		}
	}
	return false
}

func is(name string) func(redis.XInfoConsumer) bool {
	return func(c redis.XInfoConsumer) bool { return c.Name == name }
}

// before orders stream IDs.
func before(x, y string) bool {
	var xms, xseq, yms, yseq uint64
	fmt.Sscanf(x, "%d-%d", &xms, &xseq)
	fmt.Sscanf(y, "%d-%d", &yms, &yseq)
	return xms < yms || xms == yms && xseq < yseq
}
