package playbook

import (
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/expr-lang/expr"
	"github.com/expr-lang/expr/ast"
	"github.com/expr-lang/expr/file"
	"github.com/expr-lang/expr/vm"

	"riposte/ledger"
	"riposte/playbook/action"
	"riposte/stream/strict"
)

// stepEnv is what a condition or a template can name of an earlier step of its playbook.
type stepEnv struct {
	Action  string `expr:"action"`
	Mode    string `expr:"mode"`
	Outcome string `expr:"outcome"`
	Reason  string `expr:"reason"`
	OK      bool   `expr:"ok"` // it is as the step wants it, or would be, in a step that only observes
}

// lateEnv is what can be named while a playbook runs.
type lateEnv struct {
	Alert alertEnv           `expr:"alert"`
	Steps map[string]stepEnv `expr:"steps"`
}

// ok says that a step has left things as a later one may count on them.
func ok(o action.Outcome) bool {
	switch o {
	case action.Refused, action.Expired, action.NoMatch, action.Failed, action.Unknown, action.Skipped, action.Denied, action.Dead, "":
		return false
	}
	return true
}

// expression is compiled expr-lang.
type expression struct {
	program *vm.Program
	late    bool // it asks for the outcome of a step
}

// checked are the steps of a plan, whose names were checked when the playbook was loaded. One that
// had nothing to act on is not in the plan, and can be named all the same: it has no outcome.
var checked = []string{"*"}

// compileLate compiles what stands in a step, which may name the steps before it.
func compileLate(text string, earlier []string, options ...expr.Option) (*expression, error) {
	names := &stepNames{earlier: earlier}
	program, err := expr.Compile(text, append(options, expr.Env(lateEnv{}), expr.Patch(names))...)
	if names.err != nil { // the compiler knows no step by name, so ours says more
		return nil, names.err
	}
	if e := new(file.Error); errors.As(err, &e) {
		e.Message = hinted(e.Message)
		return nil, e
	}
	return &expression{program, names.found}, err
}

// stepNames looks at which steps an expression names.
type stepNames struct {
	earlier []string
	found   bool
	err     error
}

// Visit implements ast.Visitor. A node is visited after its children.
func (s *stepNames) Visit(n *ast.Node) {
	switch node := (*n).(type) {
	case *ast.IdentifierNode:
		s.found = s.found || node.Value == "steps"
	case *ast.MemberNode:
		id, isID := node.Node.(*ast.IdentifierNode)
		if !isID || id.Value != "steps" || s.err != nil {
			return
		}
		name, isName := node.Property.(*ast.StringNode)
		switch {
		case !isName:
			s.fail(node, "name the step: steps.NAME, or steps[\"NAME\"]")
		case !slices.Contains(s.earlier, name.Value) && !slices.Equal(s.earlier, checked):
			s.fail(node, "no step before this one is called %q%s", name.Value, strict.Hint(name.Value, s.earlier))
		}
	}
}

func (s *stepNames) fail(n ast.Node, format string, args ...any) {
	s.err = &file.Error{Location: n.Location(), Message: fmt.Sprintf(format, args...)}
}

// template is a text with {{ expressions }} in it, each followed by literal text.
type template struct {
	literal string // before the first expression
	parts   []templatePart
	late    bool
	choices []choice // what it can become, as far as that stands in it word by word
}

type choice struct {
	text string
	at   int // characters into the template
}

type templatePart struct {
	value   *expression
	literal string // after it
}

// parseTemplate returns nil for a text without expressions, and for an error how many
// characters into the text it is. An expression that is the whole text is held to alone.
func parseTemplate(text string, earlier []string, alone ...expr.Option) (t *template, at int, err error) {
	literal, rest, found := strings.Cut(text, "{{")
	if !found {
		return nil, 0, nil
	}
	t = &template{literal: literal}
	for found {
		start := utf8.RuneCountInString(text[:len(text)-len(rest)])
		inner, after, closed := strings.Cut(rest, "}}")
		if !closed {
			return nil, start, errors.New("{{ without }}")
		}
		whole := text == "{{"+inner+"}}"
		var options []expr.Option
		if whole {
			options = alone
		}
		e, err := compileLate(inner, earlier, options...)
		if err != nil {
			_, n := told(err)
			return nil, start + n, err
		}
		if whole {
			t.choices = choices(e.program.Node(), start)
		}
		part := templatePart{value: e}
		t.late = t.late || e.late
		part.literal, rest, found = strings.Cut(after, "{{")
		t.parts = append(t.parts, part)
	}
	return t, 0, nil
}

// choices are the texts that an expression comes to in one case or another.
func choices(n ast.Node, start int) []choice {
	switch n := n.(type) {
	case *ast.StringNode:
		return []choice{{n.Value, start + n.Location().From}}
	case *ast.ConditionalNode:
		return append(choices(n.Exp1, start), choices(n.Exp2, start)...)
	case *ast.BinaryNode:
		if n.Operator == "??" {
			return append(choices(n.Left, start), choices(n.Right, start)...)
		}
	}
	return nil
}

// render fills in the values. A text is taken as it is, anything else as JSON: what the
// result means is decided by whoever parses it, as strictly as if it stood in the file.
func (t *template) render(env lateEnv) (string, error) {
	out := t.literal
	for _, p := range t.parts {
		v, err := expr.Run(p.value.program, env)
		if err != nil {
			message, _ := told(err)
			return "", errors.New(message)
		}
		switch v := v.(type) {
		case string:
			out += v
		case nil: // the alert does not say
		default:
			raw, err := json.Marshal(v)
			if err != nil {
				return "", err
			}
			out += string(raw)
		}
		out += p.literal
		if len(out) > maxRendered { // cut, not refused: a message is not to be silenced by its length
			return clip(out, maxRendered), nil
		}
	}
	return out, nil
}

// maxRendered bounds one parameter that an alert has filled in. It is longer than any path.
const maxRendered = 16 << 10

// eachText calls f for every text in a spec, with the path to it in the YAML and what a template
// may stand for there, and puts back what f returns. It changes the spec, and none of the
// slices and maps that a copy of it shares.
func eachText(spec action.Spec, f func(path []any, takes, text string) (string, error)) error {
	return walk(reflect.ValueOf(spec).Elem(), nil, "", f)
}

// What a field says that it takes of a template, in its tag.
const (
	takesNone = ""
	takesTime = "duration" // an action.Span; any other is "yes"
)

func walk(v reflect.Value, path []any, takes string, f func([]any, string, string) (string, error)) error {
	switch v.Kind() {
	case reflect.String:
		text, err := f(path, takes, v.String())
		if err == nil && text != v.String() {
			v.SetString(text)
		}
		return err
	case reflect.Struct:
		for i := range v.NumField() {
			field := v.Type().Field(i)
			if !field.IsExported() {
				continue
			}
			name, _, _ := strings.Cut(field.Tag.Get("yaml"), ",")
			if err := walk(v.Field(i), append(path[:len(path):len(path)], name), field.Tag.Get("template"), f); err != nil {
				return err
			}
		}
	case reflect.Slice:
		own := reflect.MakeSlice(v.Type(), v.Len(), v.Len())
		reflect.Copy(own, v)
		for i := range own.Len() {
			if err := walk(own.Index(i), append(path[:len(path):len(path)], i), takes, f); err != nil {
				return err
			}
		}
		if !v.IsNil() {
			v.Set(own)
		}
	case reflect.Map:
		if v.Type().Elem().Kind() != reflect.String || v.IsNil() {
			return nil
		}
		own := reflect.MakeMap(v.Type())
		for entries := v.MapRange(); entries.Next(); {
			text, err := f(append(path[:len(path):len(path)], entries.Key().String()), takes, entries.Value().String())
			if err != nil {
				return err
			}
			own.SetMapIndex(entries.Key(), reflect.ValueOf(text).Convert(v.Type().Elem()))
		}
		v.Set(own)
	}
	return nil
}

// copied is a shallow copy, which eachText may change.
func copied(spec action.Spec) action.Spec {
	v := reflect.New(reflect.TypeOf(spec).Elem())
	v.Elem().Set(reflect.ValueOf(spec).Elem())
	return v.Interface().(action.Spec)
}

// rendered is a spec with its templates filled in, and checked again, for a step of that timeout.
func rendered(spec action.Spec, timeout time.Duration, earlier []string, env lateEnv) (action.Spec, error) {
	spec = copied(spec)
	err := eachText(spec, func(path []any, takes, text string) (string, error) {
		t, _, err := parseTemplate(text, earlier)
		if t == nil || takes == takesNone || err != nil {
			return text, err
		}
		out, err := t.render(env)
		if err != nil {
			return "", fmt.Errorf("%s: %w", dotted(path), err)
		}
		if w, ok := spec.(action.Wary); ok {
			if err := w.TakeFrom(fmt.Sprint(path[0]), out); err != nil {
				return "", fmt.Errorf("%s: %w", dotted(path), err)
			}
		}
		return out, nil
	})
	if err != nil {
		return nil, err
	}
	if t, ok := spec.(action.Tamer); ok {
		t.Tame()
	}
	if err := spec.Validate(); err != nil {
		return nil, err
	}
	return spec, tooLong(spec, timeout)
}

// tooLong says that an action alone may take all of its step's time.
func tooLong(spec action.Spec, timeout time.Duration) error {
	if needs, ok := spec.(interface{ Takes() time.Duration }); ok && needs.Takes() >= timeout {
		return fmt.Errorf("timeout %v: the action alone may take %v; allow more", timeout, needs.Takes())
	}
	return nil
}

func dotted(path []any) string {
	var words []string
	for _, p := range path {
		words = append(words, fmt.Sprint(p))
	}
	return strings.Join(words, ".")
}

// stepsBefore are the outcomes that step i of a plan can name.
func stepsBefore(steps []ledger.Step, i int) map[string]stepEnv {
	before := map[string]stepEnv{}
	for _, s := range steps[:i] {
		if s.Playbook == steps[i].Playbook && s.Undoes == "" {
			before[s.Step] = stepEnv{s.Action, s.Mode, s.Outcome, s.Reason, ok(action.Outcome(s.Outcome))}
		}
	}
	return before
}
