package playbook

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/expr-lang/expr"
	"github.com/expr-lang/expr/vm"
	"github.com/goccy/go-yaml/ast"

	"riposte/ledger"
	"riposte/playbook/action"
	"riposte/stream"
	"riposte/stream/strict"
)

// Mode says whether effects happen.
type Mode string

const (
	Observe Mode = "observe" // everything but the effect; the ledger says what would have been done
	Approve Mode = "approve" // effects happen once a person has said yes
	Enforce Mode = "enforce"
)

// Modes are all of them, the weakest first.
var Modes = []string{string(Observe), string(Approve), string(Enforce)}

// Acts says that effects may happen in this mode.
func (m Mode) Acts() bool { return m == Approve || m == Enforce }

// ParseMode accepts the Modes.
func ParseMode(s string) (Mode, error) {
	if slices.Contains(Modes, s) {
		return Mode(s), nil
	}
	return "", fmt.Errorf("mode %q%s", s, strict.Hint(s, Modes))
}

// weaker of two modes; an absent one gives way.
func weaker(flag, own Mode) Mode {
	if own == "" || slices.Index(Modes, string(flag)) < slices.Index(Modes, string(own)) {
		return flag
	}
	return own
}

// OnError says what becomes of a playbook after a step that is not ok: that was refused, has
// failed, or of which nobody can say whether it happened.
type OnError string

const (
	Continue OnError = "continue" // the default
	Stop     OnError = "stop"     // the later steps are skipped
	Undo     OnError = "undo"     // they are, and what the earlier ones did is taken back, the last first
)

// Playbook is one YAML file.
type Playbook struct {
	Name        string        `yaml:"name"`
	Description string        `yaml:"description"`
	Group       stream.Group  `yaml:"group"`   // whose replicas run it; empty: those of any group that load it
	Match       string        `yaml:"match"`   // expr-lang condition over alert.*
	Mode        Mode          `yaml:"mode"`    // empty: the responder's
	Expires     time.Duration `yaml:"expires"` // age of an alert from which nothing is begun; 0: the responder's --max-age
	Steps       []Step        `yaml:"steps"`
	Limits      Limits        `yaml:"limits"`

	Hash    string      `yaml:"-"` // SHA-256 of the file, in hex, 16 characters of it
	program *vm.Program // Match, compiled
}

// Step is one step of a playbook.
type Step struct {
	Name    string        `yaml:"name"`
	Action  string        `yaml:"action"`
	With    ast.Node      `yaml:"with"`
	If      string        `yaml:"if"` // expr-lang condition over alert.* and steps.NAME.*
	OnError OnError       `yaml:"on_error"`
	Timeout time.Duration `yaml:"timeout"` // default 10s
	Retry   Retry         `yaml:"retry"`

	kind      action.Kind
	spec      action.Spec // With, decoded and checked; templates stand in it as they were written
	templated bool        // the alert fills in some of it
	late      bool        // a template asks for the outcome of an earlier step
	when      *expression // If, compiled; nil: always
	prior     []string    // names of the steps before
}

// Retry of a step that fails.
type Retry struct {
	Attempts int           `yaml:"attempts"` // in all; 1 is once, without a retry; default 5
	Initial  time.Duration `yaml:"initial"`  // default 200ms
	Max      time.Duration `yaml:"max"`      // default 10s, or Initial where that is longer
}

const defaultTimeout = 10 * time.Second

var defaultRetry = Retry{Attempts: 5, Initial: 200 * time.Millisecond, Max: 10 * time.Second}

// UnmarshalYAML begins with the defaults: only what is absent takes them, and a zero that
// was written stays one, to be refused.
func (s *Step) UnmarshalYAML(decode func(any) error) error {
	type step Step // without this method
	d := step{Timeout: defaultTimeout, Retry: defaultRetry}
	err := decode(&d)
	*s = Step(d)
	return err
}

// UnmarshalYAML fills in what was written over the defaults, which a Step has set.
func (r *Retry) UnmarshalYAML(decode func(any) error) error {
	type retry Retry // without this method
	d := retry(*r)
	if err := decode(&d); err != nil {
		return err
	}
	d.Max = max(r.Max, d.Initial) // the default: a Max that was written takes its place again
	err := decode(&d)
	*r = Retry(d)
	return err
}

// Load reads every .yaml and .yml file of a folder, in file-name order, which is the
// order they run in. All errors are reported, not just the first.
func Load(dir string) ([]*Playbook, error) {
	entries, err := os.ReadDir(dir) // sorted by name
	if err != nil {
		return nil, fmt.Errorf("playbooks: %w", err)
	}
	var books []*Playbook
	var errs []error
	from := map[string]string{}
	for _, e := range entries {
		if ext := filepath.Ext(e.Name()); e.IsDir() || (ext != ".yaml" && ext != ".yml") {
			continue
		}
		file := filepath.Join(dir, e.Name())
		src, err := os.ReadFile(file)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		p, err := Decode(file, src)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		if other, taken := from[p.Name]; taken {
			errs = append(errs, fmt.Errorf("%s: name %q is taken by %s", file, p.Name, other))
		}
		from[p.Name] = file
		books = append(books, p)
	}
	if len(books) == 0 && len(errs) == 0 {
		return nil, fmt.Errorf("playbooks: no .yaml file in %s", dir)
	}
	return books, errors.Join(errs...)
}

// name is what may stand in a step's key.
var name = regexp.MustCompile(`^[A-Za-z0-9._-]{1,64}$`)

// Decode reads a playbook and checks all that can be checked without an alert. Errors
// name the file, the line and what was probably meant.
func Decode(file string, src []byte) (*Playbook, error) {
	doc, err := strict.Parse(file, src)
	if err != nil {
		return nil, err
	}
	p := new(Playbook)
	if err := strict.Decode(file, doc, p); err != nil {
		return nil, err
	}
	fail := func(field, format string, args ...any) error {
		return strict.At(file, strict.Find(doc, field), format, args...)
	}
	switch {
	case !name.MatchString(p.Name) || p.Name == "-":
		return nil, fail("name", "name %q: want 1 to 64 of A-Z a-z 0-9 . _ -", p.Name)
	case p.Match == "":
		return nil, fail("match", "match is missing; write `match: \"true\"` if every alert is meant")
	case len(p.Steps) == 0:
		return nil, fail("steps", "no steps")
	}
	if p.Mode != "" {
		if _, err := ParseMode(string(p.Mode)); err != nil {
			return nil, fail("mode", "%v", err)
		}
	}
	if p.Group != "" {
		if _, err := stream.ParseGroup(string(p.Group)); err != nil {
			return nil, fail("group", "%v", err)
		}
	}
	if p.Expires != 0 && (p.Expires < time.Second || p.Expires > OldestAlert) {
		return nil, fail("expires", "expires %v: want 1s to %v", p.Expires, OldestAlert)
	}
	if field, err := p.Limits.check(); err != nil {
		return nil, strict.At(file, strict.Find(doc, append([]any{"limits"}, field...)...), "limits: %v", err)
	}
	if p.program, err = compile(p.Match); err != nil {
		message, n := told(err)
		return nil, strict.AtText(file, src, strict.Find(doc, "match"), p.Match, n, "match: %s", message)
	}
	var names []string
	for i := range p.Steps {
		s := &p.Steps[i]
		at := strict.Find(doc, "steps", i)
		s.prior = slices.Clone(names)
		if err := s.check(file, src, at); err != nil {
			return nil, err
		}
		if slices.Contains(names, s.Name) {
			return nil, strict.At(file, strict.Find(at, "name"), "two steps are called %q", s.Name)
		}
		names = append(names, s.Name)
	}
	sum := sha256.Sum256(src)
	p.Hash = hex.EncodeToString(sum[:8])
	return p, nil
}

func (s *Step) check(file string, src []byte, at ast.Node) error {
	fail := func(field, format string, args ...any) error {
		node := at
		for _, name := range strings.Split(field, ".") {
			node = strict.Find(node, name)
		}
		return strict.At(file, node, "step %q: %s", s.Name, fmt.Sprintf(format, args...))
	}
	if !name.MatchString(s.Name) || s.Name == "-" {
		return fail("name", "name: want 1 to 64 of A-Z a-z 0-9 . _ -")
	}
	var ok bool
	if s.kind, ok = action.Lookup(s.Action); !ok {
		return fail("action", "unknown action %q%s", s.Action, strict.Hint(s.Action, action.Names()))
	}
	s.spec = s.kind.Spec()
	if _, null := s.With.(*ast.NullNode); s.With != nil && !null {
		if err := strict.Decode(file, s.With, s.spec); err != nil {
			return err
		}
	}
	plain, err := s.templates(file, src, strict.Find(at, "with"))
	if err != nil {
		return err
	}
	if err := plain.Validate(); err != nil {
		return fail("with", "%v", err)
	}
	if s.If != "" {
		if s.when, err = compileLate(s.If, s.prior, expr.AsBool()); err != nil {
			message, n := told(err)
			return strict.AtText(file, src, strict.Find(at, "if"), s.If, n, "step %q: if: %s", s.Name, message)
		}
	}
	switch s.OnError {
	case "", Continue, Stop, Undo:
	default:
		return fail("on_error", "on_error %q%s", s.OnError, strict.Hint(string(s.OnError), []string{string(Continue), string(Stop), string(Undo)}))
	}
	switch r := s.Retry; {
	case s.Timeout < 100*time.Millisecond || s.Timeout > 10*time.Minute:
		return fail("timeout", "timeout %v: want 100ms to 10m", s.Timeout)
	case r.Attempts < 1 || r.Attempts > 100:
		return fail("retry.attempts", "retry.attempts %d: want 1 to 100; 1 is once, without a retry", r.Attempts)
	case r.Initial < time.Millisecond || r.Initial > time.Hour:
		return fail("retry.initial", "retry.initial %v: want 1ms to 1h", r.Initial)
	case r.Max < r.Initial || r.Max > time.Hour:
		return fail("retry.max", "retry.max %v: want initial, which is %v, to 1h", r.Max, r.Initial)
	}
	if err := tooLong(plain, s.Timeout); err != nil {
		return fail("timeout", "%v", err)
	}
	return s.times(file, src, strict.Find(at, "with"), plain)
}

// templates compiles the templates of a step. It returns the parameters without them, which
// is as much as can be checked before there is an alert: a field with a template has its
// default, a list lacks that member.
func (s *Step) templates(file string, src []byte, with ast.Node) (plain action.Spec, err error) {
	defaults := map[string]string{}
	_ = eachText(s.kind.Spec(), func(path []any, takes, text string) (string, error) {
		if defaults[dotted(path)] = text; takes == takesTime {
			defaults[dotted(path)] = cmp.Or(text, "1m") // there must be some, and that is within all bounds
		}
		return text, nil
	})
	plain = copied(s.spec)
	err = eachText(plain, func(path []any, takes, text string) (string, error) {
		if !strings.Contains(text, "{{") {
			return text, nil
		}
		node := strict.Find(with, path...)
		if takes == takesNone {
			return "", strict.At(file, node, "step %q: %s takes no template: it stands as it is written", s.Name, dotted(path))
		}
		var alone []expr.Option
		if takes == takesTime { // which no number is
			alone = []expr.Option{expr.AsKind(reflect.String)}
		}
		t, n, err := parseTemplate(text, s.prior, alone...)
		if err != nil {
			message, _ := told(err)
			return "", strict.AtText(file, src, node, text, n, "step %q: %s: %s", s.Name, dotted(path), message)
		}
		s.templated, s.late = true, s.late || t.late
		return defaults[dotted(path)], nil
	})
	return plain, err
}

// times checks those that stand in a template as if it was them that were written.
func (s *Step) times(file string, src []byte, with ast.Node, plain action.Spec) error {
	return eachText(copied(s.spec), func(path []any, takes, text string) (string, error) {
		t, _, err := parseTemplate(text, s.prior)
		if takes != takesTime || t == nil || err != nil {
			return text, err
		}
		for _, c := range t.choices {
			one := copied(plain)
			_ = eachText(one, func(p []any, _, other string) (string, error) {
				if slices.Equal(p, path) {
					return c.text, nil
				}
				return other, nil
			})
			err := one.Validate()
			if err == nil {
				err = tooLong(one, s.Timeout)
			}
			if err != nil {
				return "", strict.AtText(file, src, strict.Find(with, path...), text, c.at, "step %q: %v", s.Name, err)
			}
		}
		return text, nil
	})
}

// Of are the playbooks that the replicas of a group run.
func Of(group stream.Group, books []*Playbook) []*Playbook {
	return slices.DeleteFunc(slices.Clone(books), func(p *Playbook) bool { return p.Group != "" && p.Group != group })
}

func (r Retry) plan() ledger.Retry { return ledger.Retry(r) }

// Capabilities are what the steps that would have effects need, each once.
func Capabilities(books []*Playbook, flag Mode, ownUID bool) []action.Capability {
	var caps []action.Capability
	for _, p := range books {
		if !weaker(flag, p.Mode).Acts() {
			continue
		}
		for _, s := range p.Steps {
			for _, c := range s.spec.Capabilities(ownUID) {
				if !slices.Contains(caps, c) {
					caps = append(caps, c)
				}
			}
		}
	}
	return caps
}
