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
	records map[string]bool           // alert and step
	epochs  map[string]int64          // alert -> newest accepted, by the journal
	last    *seen                     // the time before
	alerts  map[string]map[string]any // stream ID -> alert, of all that were ever seen
	gone    map[string]bool           // consumers that were asked to be removed
}

func newPromise() *promise {
	return &promise{records: map[string]bool{}, epochs: map[string]int64{}, alerts: map[string]map[string]any{}, gone: map[string]bool{}}
}

func (p *promise) mayGo(consumer string) { p.gone[consumer] = true }

func (p *promise) holds(s *seen) (broken []string) {
	no := func(format string, args ...any) { broken = append(broken, fmt.Sprintf(format, args...)) }
	for _, j := range s.journal {
		id, event := fmt.Sprint(j.Values["id"]), j.Values["event"]
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

	there := map[string]bool{}
	for _, a := range s.alerts {
		there[a.ID] = true
		p.alerts[a.ID] = a.Values
	}
	pending := map[string]bool{}
	for g, all := range s.pending {
		with := map[string]int64{}
		for _, d := range all {
			with[d.Consumer]++
			if g == group {
				pending[d.ID] = true
			}
			if !there[d.ID] {
				no("%s is pending in %s and was trimmed", d.ID, g)
			}
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
	}
	if p.last == nil {
		p.last = s
		return broken
	}

	for _, d := range p.last.pending[group] {
		if !pending[d.ID] && !p.answered(s, d.ID) {
			no("%s was acked, and its alert is neither settled nor waiting", d.ID)
		}
	}
	for _, c := range p.last.consumers[group] {
		if !slices.ContainsFunc(s.consumers[group], is(c.Name)) && (c.Pending > 0 || !p.gone[c.Name]) {
			no("consumer %s is gone, and had %d pending", c.Name, c.Pending)
		}
	}
	clear(p.gone)
	for _, a := range p.last.alerts {
		for g, info := range s.groups {
			if !there[a.ID] && before(info.LastDeliveredID, a.ID) {
				no("%s was trimmed, and %s has not been given it", a.ID, g)
			}
		}
	}
	p.last = s
	return broken
}

// answered says whether the ledger answers for the alert of a delivery.
func (p *promise) answered(s *seen, streamID string) bool {
	text := func(name string) string { v, _ := p.alerts[streamID][name].(string); return v }
	a, id, err := stream.Delivery{StreamID: streamID, Raw: []byte(text("alert")), GivenID: text("id")}.Alert()
	if err != nil {
		return false
	}
	for _, id := range []stream.AlertID{id, id.Conflicting(a.Digest())} {
		if h, _, err := ledger.ParseEntry([]byte(s.entries[id])); err == nil && h.Digest == a.Digest() {
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
