package guard

import (
	"net/netip"
	"path/filepath"
	"sync/atomic"

	"riposte/playbook/action"
	"riposte/stream/proc"
)

// Allowing implements action.Guard: a floor, and over it an allow-list that may be replaced at
// any time. It may be used by several goroutines.
type Allowing struct {
	Floor action.Guard // asked first

	list atomic.Pointer[Allow]
	sums sums
}

var (
	_ action.Guard     = (*Allowing)(nil)
	_ action.FileGuard = (*Allowing)(nil)
)

// Set puts another list in the place of the one there is; nil is none.
func (g *Allowing) Set(list *Allow) { g.list.Store(list) }

// Process implements action.Guard.
func (g *Allowing) Process(st proc.Stat) error {
	if err := g.Floor.Process(st); err != nil {
		return err
	}
	list := g.list.Load()
	if list == nil || len(list.Processes) == 0 {
		return nil
	}
	s, err := newSubject(st, &g.sums)
	if err != nil {
		return action.RefuseUnread("whether PID %d is allow-listed cannot be told: %v", st.PID, err)
	}
	defer s.close()
	return list.process(st.PID, s)
}

// Address implements action.Guard.
func (g *Allowing) Address(addr netip.Addr) error {
	if err := g.Floor.Address(addr); err != nil {
		return err
	}
	if list := g.list.Load(); list != nil {
		return list.address(addr)
	}
	return nil
}

// Network implements action.Guard.
func (g *Allowing) Network(what netip.Prefix) error {
	if err := g.Floor.Network(what); err != nil {
		return err
	}
	if list := g.list.Load(); list != nil {
		return list.network(what.Masked())
	}
	return nil
}

// File implements action.FileGuard: the executable of an entry stays where it is, though nobody
// runs it at this moment.
func (g *Allowing) File(path string) error {
	list := g.list.Load()
	if list == nil {
		return nil
	}
	for i := range list.Processes {
		p := &list.Processes[i]
		if p.Exe == "" {
			continue
		}
		to, err := filepath.EvalSymlinks(p.Exe)
		if p.Exe == path || err == nil && to == path {
			return action.Refuse("%s is what an allow-listed process runs: %s", path, p.what())
		}
	}
	return nil
}

// Lifelines implements action.Guard. The list adds none: what must not be blocked need not be
// reached from a host that is isolated.
func (g *Allowing) Lifelines() (action.Lifelines, error) { return g.Floor.Lifelines() }
