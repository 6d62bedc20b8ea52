// Package strict decodes the YAML that people write, rules and playbooks, so that a typo
// is found before anything runs: an unknown field is an error that names the file, the
// line and the nearest valid name.
package strict

import (
	"errors"
	"fmt"
	"reflect"
	"regexp"
	"strings"
	"time"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"
)

// MaxBytes bounds a file. Nobody writes a playbook of a megabyte.
const MaxBytes = 1 << 20

// Parse parses one YAML document.
func Parse(file string, src []byte) (ast.Node, error) {
	if len(src) > MaxBytes {
		return nil, fmt.Errorf("%s: %d bytes, more than %d", file, len(src), MaxBytes)
	}
	doc, err := parser.ParseBytes(src, 0)
	if err != nil {
		return nil, wrap(file, err, nil)
	}
	var body ast.Node
	for _, d := range doc.Docs {
		switch {
		case d.Body == nil:
		case body != nil:
			return nil, At(file, d.Body, "a second document; write one per file")
		default:
			body = d.Body
		}
	}
	if body == nil {
		return nil, fmt.Errorf("%s: empty", file)
	}
	return body, nil
}

// Decode fills *into from a node. Fields that *into does not have are errors.
func Decode(file string, node ast.Node, into any) error {
	err := yaml.NodeToValue(node, into, yaml.Strict())
	if err == nil {
		return nil
	}
	// The error of a duration comes without its place, but it quotes the text.
	for _, text := range ast.Filter(ast.StringType, node) {
		if _, bad := time.ParseDuration(text.(*ast.StringNode).Value); bad != nil && bad.Error() == err.Error() {
			return At(file, text, "%v; write it like 300ms, 5s or 1h30m", err)
		}
	}
	return wrap(file, err, into)
}

// Find goes down from a node by the names of fields and the indices of sequences, as far
// as there is something, so that an error about what is missing has a place too.
func Find(node ast.Node, path ...any) ast.Node {
	for _, step := range path {
		next := child(node, step)
		if next == nil {
			break
		}
		node = next
	}
	return node
}

func child(node ast.Node, step any) ast.Node {
	switch n := node.(type) {
	case *ast.AnchorNode:
		return child(n.Value, step)
	case *ast.SequenceNode:
		if i, ok := step.(int); ok && i < len(n.Values) {
			return n.Values[i]
		}
	case ast.MapNode:
		for fields := n.MapRange(); fields.Next(); {
			if fields.Key().String() == step {
				return fields.Value()
			}
		}
	}
	return nil
}

// At is an error that names the place of a node.
func At(file string, node ast.Node, format string, args ...any) error {
	return at(file, node.GetToken(), fmt.Sprintf(format, args...))
}

func at(file string, tk *token.Token, message string) error {
	if tk == nil || tk.Position == nil {
		return fmt.Errorf("%s: %s", file, message)
	}
	return fmt.Errorf("%s:%d:%d: %s", file, tk.Position.Line, tk.Position.Column, message)
}

var unknownField = regexp.MustCompile(`unknown field "(.*)"`)

func wrap(file string, err error, into any) error {
	var e yaml.Error
	if !errors.As(err, &e) {
		return fmt.Errorf("%s: %w", file, err)
	}
	message := e.GetMessage()
	if m := unknownField.FindStringSubmatch(message); m != nil {
		message += Hint(m[1], fieldsOf(reflect.TypeOf(into), map[reflect.Type]bool{}))
	}
	return at(file, e.GetToken(), message)
}

// fieldsOf collects the YAML names of a type and of the structs within it.
func fieldsOf(t reflect.Type, seen map[reflect.Type]bool) []string {
	for t.Kind() == reflect.Pointer || t.Kind() == reflect.Slice || t.Kind() == reflect.Map {
		t = t.Elem()
	}
	if t.Kind() != reflect.Struct || seen[t] {
		return nil
	}
	seen[t] = true
	var names []string
	for i := range t.NumField() {
		f := t.Field(i)
		name, _, _ := strings.Cut(f.Tag.Get("yaml"), ",")
		if name != "" && name != "-" {
			names = append(names, name)
		}
		names = append(names, fieldsOf(f.Type, seen)...)
	}
	return names
}

// Hint suggests the valid name nearest to a wrong one, or lists what is valid.
func Hint(wrong string, valid []string) string {
	best, distance := "", len(wrong)/2+2
	for _, v := range valid {
		if d := levenshtein(strings.ToLower(wrong), strings.ToLower(v)); d < distance {
			best, distance = v, d
		}
	}
	if best != "" {
		return fmt.Sprintf("; did you mean %q?", best)
	}
	return "; valid are " + strings.Join(valid, ", ")
}

func levenshtein(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost++
			}
			diagonal = row[j+1]
			row[j+1] = min(cost, row[j]+1, diagonal+1)
		}
	}
	return row[len(b)]
}
