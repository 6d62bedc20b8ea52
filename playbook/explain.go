package playbook

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/expr-lang/expr"
	"github.com/expr-lang/expr/ast"
	"github.com/expr-lang/expr/parser"

	"riposte/ledger"
	"riposte/playbook/action"
	"riposte/stream"
)

// Explained is what one playbook makes of an alert.
type Explained struct {
	Playbook string          `json:"playbook"`
	Mode     Mode            `json:"mode"`
	Matches  bool            `json:"matches"`
	Why      []string        `json:"why,omitempty"` // where it does not: the parts of the condition that do not hold
	Steps    []ExplainedStep `json:"steps,omitempty"`
}

// ExplainedStep is what one step would do here and now.
type ExplainedStep struct {
	Step   string `json:"step"`
	Action string `json:"action"`
	// Verdict is would, in_place, refused, error, depends (on the outcome of an earlier step),
	// or an outcome that needs no look at the host, such as skipped or expired.
	Verdict string `json:"verdict"`
	Text    string `json:"text"`
}

// Explain says what the playbooks of a planner make of an alert, and what each step would do
// right now on this host. It looks, and touches nothing.
func (p *Planner) Explain(ctx context.Context, a *stream.Alert, env action.Env) []Explained {
	now := time.Now()
	body := p.Plan(a, now, now)
	var all []Explained
	for _, book := range p.Playbooks {
		e := Explained{Playbook: book.Name, Mode: weaker(p.Mode, book.Mode)}
		yes, err := matches(book.program, a)
		switch {
		case err != nil:
			e.Why = []string{"it cannot be evaluated: " + err.Error()}
		case !yes:
			e.Why = whyNot(book.Match, a)
		default:
			e.Matches = true
			if !slices.ContainsFunc(body.Steps, func(s ledger.Step) bool { return s.Playbook == book.Name }) {
				e.Why = []string{"it is about a process, a file or an address, and the alert names none"}
			}
		}
		for i := range body.Steps {
			if s := &body.Steps[i]; e.Matches && s.Playbook == book.Name {
				verdict, text := foresee(ctx, &body, s, env, now)
				e.Steps = append(e.Steps, ExplainedStep{s.Step, s.Action, verdict, text})
			}
		}
		all = append(all, e)
	}
	return all
}

func foresee(ctx context.Context, body *ledger.Body, s *ledger.Step, env action.Env, now time.Time) (verdict, text string) {
	until := deadline(body, s, 0)
	switch {
	case s.Verdict != "":
		return s.Verdict, s.Reason
	case body.Refuse != "":
		return string(action.Refused), body.Refuse
	case now.After(until):
		return string(action.Expired), "it was to be done before " + until.Format(time.RFC3339)
	case s.Spec != nil:
		return "depends", "its parameters depend on the outcome of an earlier step"
	}
	effect, _ := decode(s)
	ctx, cancel := context.WithTimeout(ctx, s.Timeout)
	defer cancel()
	if looker, can := effect.(action.Looker); can {
		whole, err := looker.Look(ctx, env)
		if reason, refused := action.Reason(err); refused {
			return string(action.Refused), reason
		} else if err != nil {
			return "error", err.Error()
		}
		effect = whole
	}
	receipt, inPlace, err := effect.Probe(ctx, env)
	reason, refused := action.Reason(err)
	switch {
	case refused:
		return string(action.Refused), reason
	case err != nil:
		return "error", err.Error()
	case inPlace:
		return "in_place", string(receipt.Outcome) + ": " + receipt.Reason
	case s.If != "":
		return "depends", "if " + s.If + ": " + effect.Describe()
	}
	return "would", effect.Describe()
}

// whyNot names the parts of a condition, joined by and, that do not hold, with what the alert
// has in the places they ask for.
func whyNot(condition string, a *stream.Alert) []string {
	tree, err := parser.Parse(condition)
	if err != nil {
		return []string{err.Error()}
	}
	var why []string
	for _, part := range conjuncts(tree.Node) {
		text := part.String()
		program, err := expr.Compile(text, expr.Env(env{}), expr.AsBool())
		if err != nil {
			continue // it stands in the whole only
		}
		if yes, err := matches(program, a); yes && err == nil {
			continue
		}
		if values := valuesIn(part, a); values != "" {
			text += "   where " + values
		}
		why = append(why, text)
	}
	if why == nil {
		why = []string{condition}
	}
	return why
}

func conjuncts(n ast.Node) []ast.Node {
	if b, ok := n.(*ast.BinaryNode); ok && (b.Operator == "and" || b.Operator == "&&") {
		return append(conjuncts(b.Left), conjuncts(b.Right)...)
	}
	return []ast.Node{n}
}

// valuesIn are the alert's values of the fields that an expression names.
func valuesIn(n ast.Node, a *stream.Alert) string {
	fields := &fieldNames{}
	ast.Walk(&n, fields)
	var values []string
	for _, f := range fields.names {
		program, err := expr.Compile(f, expr.Env(env{}))
		if err != nil {
			continue
		}
		v, err := expr.Run(program, envOf(a))
		if err != nil {
			continue
		}
		raw, err := json.Marshal(v)
		if err == nil {
			values = append(values, fmt.Sprintf("%s is %s", f, clip(string(raw), 120)))
		}
	}
	return strings.Join(values, ", ")
}

// fieldNames are the longest paths below alert that an expression names.
type fieldNames struct{ names []string }

// Visit implements ast.Visitor. A node is visited after its children.
func (f *fieldNames) Visit(n *ast.Node) {
	m, ok := (*n).(*ast.MemberNode)
	if !ok {
		return
	}
	name, inner := m.String(), m.Node.String()
	if !strings.HasPrefix(name, "alert.") {
		return
	}
	f.names = slices.DeleteFunc(f.names, func(s string) bool { return s == inner || s == name })
	f.names = append(f.names, name)
}
