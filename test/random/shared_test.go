package random

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"time"

	"riposte/stream"
)

// shared is the part of the model that all groups of a host have in common.
type shared struct {
	alerts  []*alert // of the stream, the oldest first
	groups  map[stream.Group]*reading
	gates   map[string]*registration // by replica
	journal []line                   // what the action at hand ought to have written
	paused  bool                     // a switch that all claims heed is off

	published int
}

// alert is an entry of the stream.
type alert struct {
	number   int    // counts all there ever were
	streamID string // empty until it is seen in Redis
	id, raw  string
	reopened string // digest, where it brings no alert: an entry was opened again
}

func (a *alert) String() string { return a.streamID }

// since says whether it was added at a time or later.
func (a *alert) since(at time.Time) bool {
	return !stream.Delivery{StreamID: a.streamID}.When().Before(at)
}

// reading is how far a group has read, and what of it it has not acked.
type reading struct {
	last    *alert
	pending map[*alert]possession
	seen    map[string]*moment // its replicas, and when each of them read last
}

type possession struct {
	consumer string
	times    int
}

// silence is how long no replica of the group has been seen, in milliseconds; nil where it
// has none.
func (r *reading) silence(now *moment) (ms *moment) {
	for _, seen := range r.seen {
		idle := &moment{now.least/1000 - seen.most/1000, now.most/1000 - seen.least/1000}
		if ms == nil || idle.least < ms.least {
			ms = idle
		}
	}
	return ms
}

// registration is what stands under a replica's name in the host's control hash.
type registration struct {
	gate    string
	until   *moment
	fence   string
	of      stream.Group
	garbage string // instead of all that: what binds nobody
}

func (r *registration) String() string {
	if r.until == nil {
		return r.garbage
	}
	return fmt.Sprint(r.gate, " ", r.until, " ", r.fence, " ", r.of)
}

// line is one of the journal: names and values by turns.
type line []any

// moment is a number that depends on Redis's clock: between two until it is seen.
type moment struct{ least, most int64 }

func exactly(n int64) *moment { return &moment{n, n} }

func (m *moment) plus(n int64) *moment { return &moment{m.least + n, m.most + n} }

func later(a, b *moment) *moment { return &moment{max(a.least, b.least), max(a.most, b.most)} }

// is says whether the number can be n, and remembers that it is.
func (m *moment) is(n int64) bool {
	if n < m.least || n > m.most {
		return false
	}
	m.least, m.most = n, n
	return true
}

func (m *moment) String() string {
	if m.least == m.most {
		return fmt.Sprint(m.least)
	}
	return fmt.Sprintf("%d..%d", m.least, m.most)
}

func newShared() *shared {
	nothing := func() *reading {
		return &reading{last: &alert{streamID: "0-0"}, pending: map[*alert]possession{}, seen: map[string]*moment{}}
	}
	return &shared{
		groups: map[stream.Group]*reading{group: nothing(), other: nothing()},
		gates:  map[string]*registration{},
	}
}

func (m *shared) publish(id, raw string) *alert {
	m.published++
	a := &alert{number: m.published, id: id, raw: raw}
	m.alerts = append(m.alerts, a)
	return a
}

// pendingWith lists what is pending under a name, or under any if it is empty.
func (m *shared) pendingWith(g stream.Group, consumer string) (all []*alert) {
	for _, a := range m.alerts {
		if p, ok := m.groups[g].pending[a]; ok && (consumer == "" || p.consumer == consumer) {
			all = append(all, a)
		}
	}
	return all
}

// trim never passes the oldest pending alert of any group, nor the last one it was given.
// Where there are no more than so many alerts, the young stay.
func (m *shared) trim(young time.Time, most int) (dropped []*alert) {
	bound := math.MaxInt
	for g, r := range m.groups {
		bound = min(bound, r.last.number)
		for _, a := range m.pendingWith(g, "") {
			bound = min(bound, a.number)
		}
	}
	few := len(m.alerts) <= most
	m.alerts = slices.DeleteFunc(m.alerts, func(a *alert) bool {
		if a.number >= bound || few && a.since(young) {
			return false
		}
		dropped = append(dropped, a)
		return true
	})
	return dropped
}

// register says through which gate a replica enforces, for a while. It is refused beside
// replicas with another gate, unless all of them and this one are unfenced; then nothing
// changes. Else what binds nobody is cleared away.
func (m *shared) register(now *moment, by replica, hold time.Duration, unfenced bool) (refusedBy map[string]string) {
	refusedBy = map[string]string{}
	for name, r := range m.gates {
		if name != by.name && r.binds(now) && r.gate != by.gate && !(unfenced && r.fence == "unfenced") {
			refusedBy[name] = r.gate
		}
	}
	if len(refusedBy) > 0 {
		return refusedBy
	}
	maps.DeleteFunc(m.gates, func(_ string, r *registration) bool { return !r.binds(now) })
	fence := map[bool]string{false: "fenced", true: "unfenced"}[unfenced]
	m.gates[by.name] = &registration{gate: by.gate, until: now.plus(hold.Microseconds()), fence: fence, of: by.group}
	return nil
}

// binds says whether it keeps replicas with another gate away: until it has run out.
func (r *registration) binds(now *moment) bool { return r.until != nil && r.until.least > now.most }
