package sensor

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"riposte/stream/strict"
)

// Rule says which processes are suspicious. Every condition that is given must hold; of
// the entries of one condition, any one is enough. Upper and lower case are the same
// everywhere but in Cmdline.
type Rule struct {
	// ID is 1 to 64 of a-z 0-9 . _ - and unique. It goes into the ID of the alert: a rule
	// that is renamed raises new alerts about what it has reported before.
	ID          string `yaml:"id"`
	Name        string `yaml:"name"` // one line, the title of the alert
	Description string `yaml:"description"`
	Author      string `yaml:"author"`
	// Level is LOW, MEDIUM, HIGH or CRITICAL. The default playbook kills from HIGH on, so
	// HIGH is for what nobody does in peace. Where a rule has a Parent and no Cmdline, and
	// it cannot be told what the parent was when it forked, its alert is MEDIUM at most,
	// unless the child is a program for Windows.
	Level string   `yaml:"level"`
	Tags  []string `yaml:"tags"` // such as attack.t1059.001

	// Parent and Child are names of programs: as the kernel shows them (comm) or the base
	// name of the executable, whichever matches, because /bin/sh may be dash and an
	// executable may be a script. "*" and "?" are wildcards, ".exe" may be left out. A parent
	// that is a shell goes by its executable alone: a script named nginx is not nginx.
	Parent []string `yaml:"parent"`
	Child  []string `yaml:"child"`
	// Exe are paths of executables. "*" and "?" stop at a slash, "**" does not. Beside a
	// Parent, it is another executable than the parent's.
	Exe []string `yaml:"exe"`
	// Cmdline are RE2 expressions, searched for in the first 16 KiB of the arguments joined
	// by spaces. Write (?i) to ignore case, (?s) to have a dot match a line break.
	Cmdline []string `yaml:"cmdline"`
	// User are names or numbers of users.
	User []string `yaml:"user"`
}

// levels are the levels of a rule, from the least.
var levels = []string{"LOW", "MEDIUM", "HIGH", "CRITICAL"}

// doubtful is the highest level of what may also be done in peace.
const doubtful = "MEDIUM"

var ruleID = regexp.MustCompile(`^[a-z0-9._-]{1,64}$`)

// Validate says what is wrong, in terms of the YAML field.
func (r Rule) Validate() error {
	if p := r.compile(new(matcher)); p != nil {
		return fmt.Errorf("rule %q: %w", r.ID, p)
	}
	return nil
}

// problem is what is wrong with a rule, and where.
type problem struct {
	field string // YAML name, empty: the rule as a whole
	index int    // in the list of that name, -1: the field as a whole
	err   error
}

func (p *problem) Error() string {
	switch {
	case p.field == "":
		return p.err.Error()
	case p.index < 0:
		return fmt.Sprintf("%s: %v", p.field, p.err)
	}
	return fmt.Sprintf("%s[%d]: %v", p.field, p.index, p.err)
}

func (p *problem) Unwrap() error { return p.err }

// compile checks the rule and makes it ready to match.
func (r Rule) compile(m *matcher) *problem {
	whole := func(field, format string, args ...any) *problem {
		return &problem{field, -1, fmt.Errorf(format, args...)}
	}
	switch {
	case r.ID == "":
		return whole("", "a rule needs an id")
	case !ruleID.MatchString(r.ID):
		return whole("id", "want 1 to 64 of a-z 0-9 . _ -")
	case strings.TrimSpace(r.Name) == "":
		return whole("", "a rule needs a name: it is the title of its alerts")
	case r.Level == "":
		return whole("", "a rule needs a level: one of %s", strings.Join(levels, ", "))
	case !slices.Contains(levels, r.Level):
		return whole("level", "unknown level %q%s", r.Level, strict.Hint(r.Level, levels))
	case len(r.Parent)+len(r.Child)+len(r.Exe)+len(r.Cmdline)+len(r.User) == 0:
		return whole("", "a rule needs a condition: parent, child, exe, cmdline or user")
	}
	m.Rule = r
	for _, l := range r.lists() {
		for i, entry := range l.entries {
			if strings.TrimSpace(entry) == "" {
				return &problem{l.field, i, errors.New("empty")}
			}
			switch l.field {
			case "parent":
				m.parent.add(entry)
			case "child":
				m.child.add(entry)
			case "exe":
				m.exe = append(m.exe, glob(entry))
			case "cmdline":
				re, err := regexp.Compile(entry)
				if err != nil {
					return &problem{l.field, i, err}
				}
				m.cmdline = append(m.cmdline, re)
			}
		}
	}
	return nil
}

// list is a field of a rule that is a list.
type list struct {
	field   string
	entries []string
}

func (r Rule) lists() []list {
	return []list{
		{"tags", r.Tags}, {"parent", r.Parent}, {"child", r.Child},
		{"exe", r.Exe}, {"cmdline", r.Cmdline}, {"user", r.User},
	}
}
