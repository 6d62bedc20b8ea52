package playbook

import (
	"fmt"
	"time"

	"riposte/playbook/action"
	"riposte/stream/strict"
)

// Limits of a playbook, for the day on which it is wrong.
type Limits struct {
	// Approval is how long a person has to say yes, in mode approve: 1 min to 7 days, default
	// 30 min. After that it is not done.
	Approval time.Duration `yaml:"approval"`
	Breakers []Breaker     `yaml:"breakers"`
	WarmUp   WarmUp        `yaml:"warm_up"`
}

// WarmUp has a playbook that is new on a host, or has changed, only observe at first: until it
// has matched so many alerts and so much time has passed.
type WarmUp struct {
	Matches int           `yaml:"matches"` // 0 to 1000
	During  time.Duration `yaml:"during"`  // 0 to 30 days
}

func (w WarmUp) wanted() bool { return w.Matches > 0 || w.During > 0 }

// Breaker stops a playbook that acts more often than its author ever expected. An alert on
// which the playbook would act counts once. The one that is too many trips the breaker: from
// then on all of them wait, until a person has looked and reset it.
type Breaker struct {
	Per    Scope         `yaml:"per"`
	Most   int           `yaml:"most"`   // alerts within any span of Within: 1 to 1000
	Within time.Duration `yaml:"within"` // 1 s to 24 h
	// Action narrows the breaker to alerts on which this action is to be carried out.
	Action string `yaml:"action"`
}

// Scope is what a breaker counts over.
type Scope string

const (
	PerHost  Scope = "host"
	PerFleet Scope = "fleet" // all hosts on this Redis
)

const (
	defaultApproval = 30 * time.Minute
	longestApproval = 7 * 24 * time.Hour
	longestWarmUp   = 30 * 24 * time.Hour
	mostBreakers    = 8
	mostCounted     = 1000
)

// check fills in defaults and says what is wrong, and in which field.
func (l *Limits) check() (field []any, err error) {
	l.Approval = orDefault(l.Approval, defaultApproval)
	if l.Approval < time.Minute || l.Approval > longestApproval {
		return []any{"approval"}, fmt.Errorf("approval %v: want 1m to %v", l.Approval, longestApproval)
	}
	if w := l.WarmUp; w.Matches < 0 || w.Matches > mostCounted {
		return []any{"warm_up", "matches"}, fmt.Errorf("warm_up.matches %d: want 0 to %d", w.Matches, mostCounted)
	} else if w.During < 0 || w.During > longestWarmUp {
		return []any{"warm_up", "during"}, fmt.Errorf("warm_up.during %v: want 0s to %v", w.During, longestWarmUp)
	}
	if len(l.Breakers) > mostBreakers {
		return []any{"breakers"}, fmt.Errorf("%d breakers, more than %d", len(l.Breakers), mostBreakers)
	}
	names := map[string]bool{}
	for i, b := range l.Breakers {
		at := func(name string) []any { return []any{"breakers", i, name} }
		switch {
		case b.Per != PerHost && b.Per != PerFleet:
			return at("per"), fmt.Errorf("per %q%s", b.Per, strict.Hint(string(b.Per), []string{string(PerHost), string(PerFleet)}))
		case b.Most < 1 || b.Most > mostCounted:
			return at("most"), fmt.Errorf("most %d: want 1 to %d", b.Most, mostCounted)
		case b.Within < time.Second || b.Within > 24*time.Hour:
			return at("within"), fmt.Errorf("within %v: want 1s to 24h", b.Within)
		case names[string(b.Per)+b.Action]:
			return at("per"), fmt.Errorf("two breakers count the same per %s", b.Per)
		}
		names[string(b.Per)+b.Action] = true
		if _, known := action.Lookup(b.Action); b.Action != "" && !known {
			return at("action"), fmt.Errorf("unknown action %q%s", b.Action, strict.Hint(b.Action, action.Names()))
		}
	}
	return nil, nil
}
