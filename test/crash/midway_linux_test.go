package crash

import (
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"riposte/playbook/judge"
	"riposte/stream"
)

// delays after which a replica dies that has begun an effect: most take some milliseconds.
var delays = []time.Duration{
	100 * time.Microsecond, 2 * time.Millisecond, 10 * time.Millisecond,
}

// TestMidway kills replicas in the middle of each action, and of each undo, wherever that
// happens to be. What half an effect has left is made whole by the successor, once.
func TestMidway(t *testing.T) {
	t.Parallel()
	w := enterWorld(t)
	if w == nil {
		return
	}
	var found docket
	var cases []func()
	var inside atomic.Int32
	var columns, rows []string
	for _, d := range deeds {
		rows = append(rows, d.name())
		if d.undoes != "" {
			rows = append(rows, "undo "+d.name())
		}
		if d.undoes != "" && d.by == "" {
			rows = append(rows, d.undoes)
		}
	}
	for _, delay := range delays {
		columns = append(columns, delay.String())
		for _, d := range deeds {
			add := func(name string, how way) {
				host := fmt.Sprintf("m%d", len(cases))
				cases = append(cases, func() {
					t.Run(name+"/"+delay.String(), func(t *testing.T) {
						out, within := w.midway(t, host, delay, d, how)
						cell := "after"
						if within {
							inside.Add(1)
							cell = "inside"
						}
						found.enter(name, delay.String(), cell, out)
					})
				})
			}
			if add(d.name(), doing); d.undoes != "" {
				add("undo "+d.name(), undoing)
			}
			if d.undoes != "" && d.by == "" {
				add(d.undoes, lifting)
			}
		}
	}
	together(cases)
	found.report(t, len(cases), rows, columns)
	if inside.Load() == 0 {
		t.Error("no replica died inside an effect: this test proves nothing")
	}
}

// way is what the victim is at when it dies.
type way int

const (
	doing   way = iota // a deed
	undoing            // the undo of one
	lifting            // the action that takes it back by itself
)

// midway plays one case, and says whether the replica died inside the effect.
func (w *world) midway(t *testing.T, host string, delay time.Duration, d deed, how way) (sentence, bool) {
	if d.alone {
		defer w.alone(t)()
	}
	var s *scene
	var sub subject
	var victim *replica
	crash, ids, step := fmt.Sprintf("begun:kill:%v", delay), []stream.AlertID{alertID}, "act"
	if how == doing {
		s = w.scene(t, host, classes[1], longLease, unhurried)
		sub = d.on(s, w)
		s.book(act(s, d.action, sub.with))
	} else {
		s, sub = w.doneBefore(t, host, d)
	}
	allowed, is := []string{string(d.undone)}, sub.undone
	switch how {
	case doing:
		victim = s.start(crash)
		s.publishAbout(alertID, sub.about)
		allowed, is = []string{string(d.outcome), string(d.again)}, sub.done
	case undoing:
		victim = s.start(crash)
		s.revert(alertID)
		step = "act~undo"
	case lifting:
		s.book(act(s, d.undoes, sub.lift))
		victim = s.start(crash)
		s.publishAbout(lifted, sub.about)
		ids = append(ids, lifted)
	}
	await(t, "the victim to die", victim.dead)
	if !victim.wasKilled() {
		t.Fatalf("the victim was not killed: %v\n%s", victim.err, victim.words())
	}
	s.start("")
	s.rest(ids...)
	if wrong := is(); wrong != "" {
		t.Errorf("not as it is to be: %s", wrong)
	}
	out, key := s.sentence(ids...), s.keyOf(ids[len(ids)-1], step)
	if n := out.begun[key]; !slices.Contains(allowed, out.outcomes[key]) || n < 1 || n > 2 {
		t.Errorf("outcome %q, begun %d times; want one of %q, once or twice", out.outcomes[key], n, strings.Join(allowed, " "))
	}
	ended := func(e judge.Event) bool { return e.Event == judge.End && e.Key == key && e.Replica == victim.name() }
	return out, !slices.ContainsFunc(s.events(), ended)
}
