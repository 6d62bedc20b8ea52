package judge

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"riposte/playbook/action"
)

// slack is how long before its begin an effect may have probed. A process that dies in
// between, of what a dead replica did to it before, is gone when the effect begins, and
// that is nobody's fault.
const slack = 20 * time.Millisecond

// Trial is all there is to judge by.
type Trial struct {
	Events []Event // in the order of their lines
	Alerts []Alert // all that were published, each once

	// LastAlive says of each replica that has died when it was last seen alive. One that
	// is not named lives.
	LastAlive map[string]time.Time
	// Exits says of each process that was to be ended when its exit was seen. One that is
	// not named lives.
	Exits map[string]time.Time
	// Classes adds to the classes of the actions that exist, or replaces them.
	Classes map[string]action.Class
}

// Alert is what was to be done about one alert.
type Alert struct {
	ID    string
	Steps []Step
}

// Step is one step of it.
type Step struct {
	Key string
	// Process names the process that the step is to end; empty if none. Several alerts
	// may name one.
	Process string
}

// Rule is one of the ways to double an effect.
type Rule string

const (
	AfterClosed   Rule = "begun after its outcome was closed"
	AfterRecorded Rule = "begun after its outcome was recorded"
	Second        Rule = "begun a second time"
	OlderToken    Rule = "begun under an older token than one already begun"
	Overlap       Rule = "begun while another is inside"
	InPlace       Rule = "begun while it is in place"
)

// Doubled is one doubled effect, by the first rule that it breaks.
type Doubled struct {
	Rule  Rule
	Begin Event
	Why   string // what stood against it
}

func (d Doubled) String() string { return fmt.Sprintf("%s: %s; but %s", d.Rule, d.Begin, d.Why) }

// Lost is one alert about which something was not done.
type Lost struct {
	ID  string
	Why string
}

func (l Lost) String() string { return l.ID + ": " + l.Why }

// Verdict is what the judge found.
type Verdict struct {
	Lost    []Lost
	Doubled []Doubled
}

// Judge looks at the events one after the other.
func (t Trial) Judge() Verdict {
	c := t.convene()
	var v Verdict
	for _, e := range t.Events {
		s := c.step(e.Key)
		switch e.Event {
		case Begin:
			if rule, why := c.fault(s, e); rule != "" {
				v.Doubled = append(v.Doubled, Doubled{rule, e, why})
			}
			s.begun = append(s.begun, e)
			s.target.inside = append(s.target.inside, e)
		case End:
			s.target.inside = slices.DeleteFunc(s.target.inside, func(b Event) bool {
				return b.Key == e.Key && b.Replica == e.Replica && b.Token == e.Token
			})
			s.outcome = s.outcome || e.Outcome != ""
			if e.Outcome != "" && c.class(e.Action) == action.Verifiable {
				s.target.inPlace = &e
			}
		case Closed:
			s.closed, s.outcome = &e, true
		case Recorded:
			s.recorded, s.outcome = &e, true
		}
	}
	for _, a := range t.Alerts {
		if why := c.missing(a); why != "" {
			v.Lost = append(v.Lost, Lost{a.ID, why})
		}
	}
	return v
}

// court is what the judge knows at one point of the trace.
type court struct {
	Trial
	steps map[string]*step
}

// step is what is known of one step.
type step struct {
	begun            []Event
	closed, recorded *Event
	outcome          bool // somebody has seen one
	target           *target
}

// target is what effects act on: a process that several steps may name, or something of
// one step's own.
type target struct {
	inside  []Event   // begun, not ended
	inPlace *Event    // the end of an effect that was
	exit    time.Time // seen from outside; zero: not
}

func (t Trial) convene() *court {
	c := &court{t, map[string]*step{}}
	processes := map[string]*target{}
	for _, a := range t.Alerts {
		for _, s := range a.Steps {
			if s.Process == "" {
				continue
			}
			if processes[s.Process] == nil {
				processes[s.Process] = &target{exit: t.Exits[s.Process]}
			}
			c.steps[s.Key] = &step{target: processes[s.Process]}
		}
	}
	return c
}

func (c *court) step(key string) *step {
	if c.steps[key] == nil {
		c.steps[key] = &step{target: &target{}}
	}
	return c.steps[key]
}

// fault is the first rule that an effect breaks by being begun, and what it breaks it
// against; empty if none.
func (c *court) fault(s *step, begin Event) (Rule, string) {
	if s.closed != nil {
		return AfterClosed, s.closed.String()
	}
	if s.recorded != nil {
		return AfterRecorded, s.recorded.String()
	}
	for _, b := range s.begun {
		switch {
		case c.class(begin.Action) == action.AtMostOnce:
			return Second, b.String()
		case begin.Epoch < b.Epoch, begin.Epoch == b.Epoch && begin.Nonce != b.Nonce:
			return OlderToken, b.String()
		}
	}
	for _, b := range s.target.inside {
		if last, died := c.LastAlive[b.Replica]; !died || begin.Time().Before(last) {
			return Overlap, b.String()
		}
	}
	if in := s.target.inPlace; in != nil {
		return InPlace, in.String()
	}
	if exit := s.target.exit; !exit.IsZero() && begin.Time().After(exit.Add(slack)) {
		return InPlace, "the exit of its process was seen at " + clock(exit)
	}
	return "", ""
}

// missing says what was not done about an alert; empty if all was.
func (c *court) missing(a Alert) string {
	var what []string
	for _, s := range a.Steps {
		if !c.step(s.Key).outcome {
			what = append(what, "no outcome of "+s.Key)
		}
		if s.Process != "" && c.Exits[s.Process].IsZero() {
			what = append(what, s.Process+" is alive")
		}
	}
	return strings.Join(what, ", ")
}

// class of an action. What nobody knows may not be done twice.
func (c *court) class(name string) action.Class {
	if class, ok := c.Classes[name]; ok {
		return class
	}
	if kind, ok := action.Lookup(name); ok {
		return kind.Class
	}
	return action.AtMostOnce
}
