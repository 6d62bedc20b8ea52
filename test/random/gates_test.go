package random

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"pgregory.net/rapid"

	"riposte/ledger"
	"riposte/stream"
)

// pause is a field of the control hash that has nothing to do with gates.
const pause = "pause"

// The times for which a registration holds. One that holds for more than ten times the time
// that another asks for was written by a clock that ran ahead.
const (
	shortHold = time.Hour
	longHold  = 3 * time.Hour
	ahead     = 1000 * time.Hour
)

// Register has a replica of either group say that it enforces through its gate, or through
// another one from now on.
func (m *machine) Register(t *rapid.T) {
	by := choose(t, "replica", slices.Concat(m.replicas, m.others.replicas))
	if one(t, 8, "another gate") {
		by.gate = choose(t, "gate", []string{"gate1", "gate2"})
		by.ledger = m.hand(t, by.group, by.name, by.gate)
	}
	m.registerOnce(t, by, choose(t, "hold", []time.Duration{shortHold, longHold}), rapid.Bool().Draw(t, "unfenced"))
}

func (m *machine) registerOnce(t *rapid.T, by replica, hold time.Duration, unfenced bool) {
	m.loseReply(t)
	var err error
	now := m.during(t, func() { err = by.ledger.Register(m.ctx, hold, unfenced) })
	before := len(m.gates)
	refusedBy := m.register(now, by, hold, unfenced)
	m.did(t, "register", "%s, %s for %v, unfenced: %v: refused by %v", by.name, by.gate, hold, unfenced, refusedBy)
	m.tallyGates(before, len(refusedBy) > 0)
	if m.unanswered(err) {
		t.Log("the reply was lost")
		m.registerOnce(t, by, hold, unfenced)
		return
	}
	if len(refusedBy) == 0 {
		must(t, err)
		return
	}
	var clash *ledger.OtherGateError
	if !errors.As(err, &clash) || clash.Gate != by.gate || refusedBy[clash.Replica] == "" || refusedBy[clash.Replica] != clash.Theirs {
		wrong(t, "a gate is not refused", "%v; the model: by %v", err, refusedBy)
	}
}

// tallyGates counts what has come of a registration.
func (m *machine) tallyGates(before int, refused bool) {
	if refused {
		m.tally["registration refused"]++
		return
	}
	if len(m.gates) < before {
		m.tally["registrations cleared away"]++
	}
	ids := map[string]bool{}
	for _, r := range m.gates {
		ids[r.gate] = true
	}
	if len(ids) > 1 {
		m.tally["several gates"]++
	}
}

// Unregister takes a registration back, or none.
func (m *machine) Unregister(t *rapid.T) {
	by := choose(t, "replica", slices.Concat(m.replicas, m.others.replicas))
	m.loseReply(t)
	err := by.ledger.Unregister(m.ctx)
	delete(m.gates, by.name)
	m.did(t, "unregister", "%s", by.name)
	if !m.unanswered(err) {
		must(t, err)
	}
}

// RegistrationRunsOut lets time pass for one registration.
func (m *machine) RegistrationRunsOut(t *rapid.T) {
	var running []string
	for name, r := range m.gates {
		if r.until != nil && r.until.least > m.start.UnixMicro() {
			running = append(running, name)
		}
	}
	if len(running) == 0 {
		return
	}
	slices.Sort(running)
	name := choose(t, "registration", running)
	m.gates[name].until = exactly(m.start.Add(-time.Hour).UnixMicro())
	must(t, m.rdb.HSet(m.ctx, host.ControlKey(), "gate:"+name, m.gates[name].String()).Err())
	m.did(t, "the gate runs out", "of %s", name)
}

// Garbage puts into the hash what binds nobody: what no replica has written, and what was
// written by a clock that ran far ahead.
func (m *machine) Garbage(t *rapid.T) {
	names := []string{"nobody"}
	for _, r := range slices.Concat(m.replicas, m.others.replicas) {
		names = append(names, r.name)
	}
	soon := m.start.Add(shortHold).UnixMicro()
	name, garbage := choose(t, "name", names), choose(t, "garbage", []string{
		"", "gate3", "gate3 soon fenced forensics", fmt.Sprintf("gate3 -%d fenced forensics", soon), fmt.Sprintf(" %d fenced forensics", soon),
		fmt.Sprintf("gate3 %d fenced forensics", m.start.Add(ahead).UnixMicro()),
	})
	m.gates[name] = &registration{garbage: garbage}
	must(t, m.rdb.HSet(m.ctx, host.ControlKey(), "gate:"+name, garbage).Err())
	m.did(t, "garbage", "%q for %s", garbage, name)
}

// gatesHold says what is wrong with the gates that live replicas have registered: where one
// of them is fenced, all are the same.
func gatesHold(control map[string]string, now time.Time) (broken []string) {
	type live struct {
		gate     string
		unfenced bool
	}
	found := map[string]live{}
	for field, value := range control {
		var gate, fence string
		var until int64
		var g stream.Group
		name, ok := strings.CutPrefix(field, "gate:")
		if n, _ := fmt.Sscanf(value, "%s %d %s %s", &gate, &until, &fence, &g); !ok || n < 4 {
			continue
		}
		if left := time.UnixMicro(until).Sub(now); left > 0 && left <= 10*longHold {
			found[name] = live{gate, fence == "unfenced"}
		}
	}
	names := slices.Sorted(maps.Keys(found))
	for i, a := range names {
		for _, b := range names[i+1:] {
			if x, y := found[a], found[b]; x.gate != y.gate && !(x.unfenced && y.unfenced) {
				broken = append(broken, fmt.Sprintf("%s and %s enforce through different gates, and not both of them unfenced", a, b))
			}
		}
	}
	return broken
}
