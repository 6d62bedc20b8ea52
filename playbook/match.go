package playbook

import (
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"regexp"
	"strings"

	"github.com/expr-lang/expr"
	"github.com/expr-lang/expr/file"
	"github.com/expr-lang/expr/vm"

	"riposte/stream"
	"riposte/stream/strict"
)

// env is what a condition can name. It is a struct, so that a misspelt field is an error
// when the playbook is loaded and not a condition that never holds.
type env struct {
	Alert alertEnv `expr:"alert"`
}

type alertEnv struct {
	ID            string         `expr:"id"`
	Host          string         `expr:"host"`
	Source        string         `expr:"source"`
	Level         string         `expr:"level"`
	Title         string         `expr:"title"`
	Description   string         `expr:"description"`
	Details       any            `expr:"details"`
	Timestamp     string         `expr:"timestamp"`
	ActionablePID int64          `expr:"actionable_pid"`
	SourceIP      string         `expr:"source_ip"`
	Rule          ruleEnv        `expr:"rule"`
	Process       processEnv     `expr:"process"`
	Extra         map[string]any `expr:"extra"` // fields Riposte does not know
}

type ruleEnv struct {
	ID     string   `expr:"id"`
	Name   string   `expr:"name"`
	Author string   `expr:"author"`
	Tags   []string `expr:"tags"`
}

type processEnv struct {
	PID        int64     `expr:"pid"`
	StartTicks uint64    `expr:"start_ticks"`
	BootID     string    `expr:"boot_id"`
	PIDNS      uint64    `expr:"pid_ns"`
	Name       string    `expr:"name"`
	Exe        string    `expr:"exe"`
	Cmdline    string    `expr:"cmdline"`
	UID        int64     `expr:"uid"` // -1 where unknown
	Parent     parentEnv `expr:"parent"`
}

type parentEnv struct {
	PID        int64  `expr:"pid"`
	StartTicks uint64 `expr:"start_ticks"`
	Name       string `expr:"name"`
	Exe        string `expr:"exe"`
}

func compile(condition string) (*vm.Program, error) {
	p, err := expr.Compile(condition, expr.Env(env{}), expr.AsBool())
	var e *file.Error
	if errors.As(err, &e) {
		e.Message = hinted(e.Message)
		return nil, e
	}
	return p, err
}

// told is what an error of the compiler or the machine says, in one line, and how many
// characters into the condition. Its own picture of the place would be a second one.
func told(err error) (message string, n int) {
	message = err.Error()
	if e := new(file.Error); errors.As(err, &e) {
		message, n = e.Message, e.From
	}
	message, _, _ = strings.Cut(message, "\n")
	return message, n
}

var (
	noName  = regexp.MustCompile(`^unknown name (\w+)$`)
	noField = regexp.MustCompile(`^type playbook\.(\w+) has no field (\w+)$`)
)

// hinted adds the nearest valid name to what the compiler says of an unknown one.
func hinted(message string) string {
	if m := noName.FindStringSubmatch(message); m != nil {
		return message + strict.Hint(m[1], namesOf(reflect.TypeFor[lateEnv]()))
	}
	if m := noField.FindStringSubmatch(message); m != nil {
		for _, t := range []reflect.Type{
			reflect.TypeFor[alertEnv](), reflect.TypeFor[ruleEnv](), reflect.TypeFor[processEnv](), reflect.TypeFor[parentEnv](), reflect.TypeFor[stepEnv](),
		} {
			if t.Name() == m[1] {
				return fmt.Sprintf("unknown field %q%s", m[2], strict.Hint(m[2], namesOf(t)))
			}
		}
	}
	return message
}

// namesOf are the names by which a condition knows the fields of a struct.
func namesOf(t reflect.Type) []string {
	var names []string
	for _, f := range reflect.VisibleFields(t) {
		names = append(names, f.Tag.Get("expr"))
	}
	return names
}

func matches(p *vm.Program, a *stream.Alert) (bool, error) { return isTrue(p, envOf(a)) }

func isTrue(p *vm.Program, env any) (bool, error) {
	out, err := expr.Run(p, env)
	if err != nil {
		message, _ := told(err)
		return false, errors.New(message)
	}
	yes, _ := out.(bool)
	return yes, nil
}

func envOf(a *stream.Alert) env {
	e := alertEnv{
		ID: string(a.ID), Host: a.Host, Source: a.Source, Level: a.Level, Title: a.Title,
		Description: a.Description, Timestamp: a.Timestamp, SourceIP: a.SourceIP,
		Rule:  ruleEnv(a.Rule),
		Extra: make(map[string]any, len(a.Extra)),
	}
	e.ActionablePID, _ = a.PID()
	e.Process.UID = -1
	if p := a.Process; p != nil {
		e.Process = processEnv{
			PID: p.PID, StartTicks: p.StartTicks, BootID: p.BootID, PIDNS: p.PIDNS,
			Name: p.Name, Exe: p.Exe, Cmdline: p.Cmdline, UID: -1,
		}
		if p.UID != nil {
			e.Process.UID = *p.UID
		}
		if p.Parent != nil {
			e.Process.Parent = parentEnv(*p.Parent)
		}
	}
	_ = json.Unmarshal(a.Details, &e.Details) // absent or decoded before
	for name, raw := range a.Extra {
		var v any
		if json.Unmarshal(raw, &v) == nil {
			e.Extra[name] = v
		}
	}
	return env{e}
}
