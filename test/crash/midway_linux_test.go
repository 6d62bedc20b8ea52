package crash

import (
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"riposte/playbook/judge"
)

// delays after which a replica dies that has begun an effect: most take some milliseconds.
var delays = []time.Duration{
	100 * time.Microsecond, 400 * time.Microsecond, 900 * time.Microsecond, 1600 * time.Microsecond,
	3 * time.Millisecond, 6 * time.Millisecond, 12 * time.Millisecond, 25 * time.Millisecond,
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
		rows = append(rows, d.action)
		if d.undoes != "" {
			rows = append(rows, d.undoes)
		}
	}
	for _, delay := range delays {
		columns = append(columns, delay.String())
		for _, d := range deeds {
			add := func(name string, undo bool) {
				host := fmt.Sprintf("m%d", len(cases))
				cases = append(cases, func() {
					t.Run(name+"/"+delay.String(), func(t *testing.T) {
						out, within := w.midway(t, host, delay, d, undo)
						cell := "after"
						if within {
							inside.Add(1)
							cell = "inside"
						}
						found.enter(name, delay.String(), cell, out)
					})
				})
			}
			if add(d.action, false); d.undoes != "" {
				add(d.undoes, true)
			}
		}
	}
	together(cases)
	found.report(t, len(cases), rows, columns)
	if inside.Load() == 0 {
		t.Error("no replica died inside an effect: this test proves nothing")
	}
}

// midway plays one case, and says whether the replica died inside the effect.
func (w *world) midway(t *testing.T, host string, delay time.Duration, d deed, undo bool) (sentence, bool) {
	if d.alone {
		defer w.alone(t)()
	}
	s := w.scene(t, host, classes[1], longLease, unhurried)
	sub := d.on(s, w)
	s.book(d.step(s, sub))
	crash, step := fmt.Sprintf("begun:kill:%v", delay), "act"
	allowed, is := []string{string(d.outcome), string(d.again)}, sub.done
	if undo {
		first := s.start("")
		s.publishAbout(alertID, sub.about)
		s.rest(alertID)
		first.stop(t)
		step, allowed, is = "act~undo", []string{string(d.undone)}, sub.undone
	}
	victim := s.start(crash)
	if undo {
		s.revert(alertID)
	} else {
		s.publishAbout(alertID, sub.about)
	}
	await(t, "the victim to die", victim.dead)
	if !victim.wasKilled() {
		t.Fatalf("the victim was not killed: %v\n%s", victim.err, victim.words())
	}
	s.start("")
	s.rest(alertID)
	if wrong := is(); wrong != "" {
		t.Errorf("not as it is to be: %s", wrong)
	}
	out, key := s.sentence(alertID), s.key(step)
	if n := out.begun[key]; !slices.Contains(allowed, out.outcomes[key]) || n < 1 || n > 2 {
		t.Errorf("outcome %q, begun %d times; want one of %q, once or twice", out.outcomes[key], n, strings.Join(allowed, " "))
	}
	ended := func(e judge.Event) bool { return e.Event == judge.End && e.Key == key && e.Replica == victim.name() }
	return out, !slices.ContainsFunc(s.events(), ended)
}
