package action

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"riposte/stream"
)

// ScriptSpec is the `with` block of run_script.
type ScriptSpec struct {
	// Argv is the program, by its absolute path, and its arguments. They are passed as
	// they stand: there is no shell, and nothing of the alert is put into them.
	Argv []string `yaml:"argv"`
	// Env is added to the program's environment. It is frozen in the ledger like every
	// parameter: a secret belongs into a file that the program reads.
	Env map[string]string `yaml:"env"`
}

const (
	maxArgs     = 64
	maxArg      = 4096 // bytes of an argument, or of a variable's value
	fieldPrefix = "RIPOSTE_"
)

var variableForm = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]{0,127}$`)

// Validate implements Spec.
func (s *ScriptSpec) Validate() error {
	switch {
	case len(s.Argv) == 0:
		return fmt.Errorf("argv: missing; give the program, by its absolute path, and its arguments")
	case !filepath.IsAbs(s.Argv[0]):
		return fmt.Errorf("argv: the program %q is not an absolute path", s.Argv[0])
	case len(s.Argv) > maxArgs:
		return fmt.Errorf("argv: %d arguments, more than %d", len(s.Argv), maxArgs)
	case len(s.Env) > maxArgs:
		return fmt.Errorf("env: %d variables, more than %d", len(s.Env), maxArgs)
	}
	for i, arg := range s.Argv {
		if strings.Contains(arg, "\x00") || len(arg) > maxArg {
			return fmt.Errorf("argv: argument %d has a NUL, or more than %d bytes", i, maxArg)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(s.Env)) { // the same error for the same file
		switch value := s.Env[name]; {
		case !variableForm.MatchString(name):
			return fmt.Errorf("env: %q is not a name: want letters, digits and underscores", name)
		case strings.HasPrefix(name, fieldPrefix):
			return fmt.Errorf("env: %s: names in %s are for the alert's fields", name, fieldPrefix)
		case strings.Contains(value, "\x00") || len(value) > maxArg:
			return fmt.Errorf("env: the value of %s has a NUL, or more than %d bytes", name, maxArg)
		}
	}
	return nil
}

// Resolve implements Spec. A script can be run about any alert.
func (s *ScriptSpec) Resolve(a *stream.Alert, seen Seen) Effect {
	return &RunScript{Argv: s.Argv, Env: s.Env, About: about(a)}
}

// Capabilities implements Spec. What the script needs only its author knows.
func (s *ScriptSpec) Capabilities(ownUID bool) []Capability { return nil }

// RunScript runs a program of the operator's once and tells it about the alert.
type RunScript struct {
	Argv  []string          `json:"argv"`
	Env   map[string]string `json:"env,omitempty"`
	About About             `json:"about"`
}

// Targets implements Effect. What a script acts on only its author knows.
func (s *RunScript) Targets() []string { return nil }

// Describe implements Effect.
func (s *RunScript) Describe() string { return "run " + clip(strconv.Quote(s.program()), 200) }

func (s *RunScript) program() string {
	if len(s.Argv) == 0 {
		return ""
	}
	return s.Argv[0]
}

// check refuses what Validate would not have let through: the plan may be another's.
func (s *RunScript) check() error {
	if err := (&ScriptSpec{s.Argv, s.Env}).Validate(); err != nil {
		return Refuse("%v", err)
	}
	return nil
}

// Apply implements Effect. Its error means that nobody knows what the script did: it was
// killed, by the timeout or by somebody else. A script that came to its end has run,
// whatever its exit status; and one that could not be started has not.
func (s *RunScript) Apply(ctx context.Context, env Env) (Receipt, error) {
	if err := s.check(); err != nil {
		return Receipt{}, err
	}
	input, err := s.input(env)
	if err != nil {
		return Receipt{Failed, fmt.Sprintf("not started: %v", err)}, nil
	}
	return s.run(ctx, input, s.environ(env), env.Locks)
}

// input is what the script reads from its standard input: one line of JSON.
func (s *RunScript) input(env Env) ([]byte, error) {
	raw, err := json.Marshal(struct {
		Key string `json:"key"` // of the step, the same should it ever be run again
		ID  string `json:"id"`
		About
	}{env.Key, env.AlertID, s.About.on(env)})
	return append(raw, '\n'), err
}

// environ is the whole environment of the script. The names of the variables that carry
// fields are fixed, and none is one that riposte itself reads as a flag. Their values are
// made printable: a newline that reaches some file through an unquoted variable would be
// an attacker's line in it. The exact values are in the input.
func (s *RunScript) environ(env Env) []string {
	vars := []string{"PATH=" + os.Getenv("PATH"), "LC_ALL=C"} // no secrets, no settings
	for _, name := range slices.Sorted(maps.Keys(s.Env)) {
		vars = append(vars, name+"="+s.Env[name])
	}
	a := s.About.on(env)
	p := cmp.Or(a.Process, &stream.Process{})
	pid := ""
	if a.PID != nil {
		pid = strconv.FormatInt(*a.PID, 10)
	}
	for _, field := range [][2]string{
		{"STEP_KEY", env.Key}, {"ALERT_ID", env.AlertID}, {"ALERT_HOST", a.Host}, {"ALERT_SOURCE", a.Source},
		{"ALERT_LEVEL", a.Level}, {"ALERT_TITLE", a.Title}, {"ALERT_TIMESTAMP", a.Timestamp},
		{"ALERT_RULE_ID", a.RuleID}, {"ALERT_RULE_NAME", a.RuleName},
		{"ALERT_PID", pid}, {"ALERT_NAME", p.Name}, {"ALERT_EXE", p.Exe}, {"ALERT_CMDLINE", p.Cmdline},
		{"ALERT_SOURCE_IP", a.SourceIP},
	} {
		vars = append(vars, fieldPrefix+field[0]+"="+printable(field[1]))
	}
	return vars
}
