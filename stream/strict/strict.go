// Package strict decodes the YAML that people write, rules and playbooks, so that a typo
// is found before anything runs: an unknown field is an error that names the file, the
// line and the nearest valid name.
package strict

import (
	"errors"
	"fmt"
	"reflect"
	"regexp"
	"slices"
	"strconv"
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
func Parse(file string, src []byte) (body ast.Node, err error) {
	defer unpanic(file, &err)
	if len(src) > MaxBytes {
		return nil, fmt.Errorf("%s: %d bytes, more than %d", file, len(src), MaxBytes)
	}
	doc, err := parser.ParseBytes(src, 0)
	if err != nil {
		return nil, wrap(file, err, nil, nil)
	}
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
func Decode(file string, node ast.Node, into any) (err error) {
	defer unpanic(file, &err)
	err = yaml.NodeToValue(node, into, yaml.Strict())
	if err == nil {
		return nil
	}
	// The error of a duration comes without its place, but it quotes the text.
	for _, text := range ast.Filter(ast.StringType, node) {
		value := text.(*ast.StringNode).Value
		if _, bad := time.ParseDuration(value); bad != nil && bad.Error() == err.Error() {
			return At(file, text, "%s", Unitless(value, err.Error()+"; write it like 300ms, 5s or 1h30m"))
		}
	}
	return wrap(file, err, node, into)
}

// unpanic makes an error of a panic: the YAML library has some left for texts that nobody
// writes, and a file that cannot be read must not look like a fault of this program.
func unpanic(file string, err *error) {
	if p := recover(); p != nil {
		*err = fmt.Errorf("%s: this is no YAML that can be read: %v", file, p)
	}
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

func wrap(file string, err error, node ast.Node, into any) error {
	var e yaml.Error
	if !errors.As(err, &e) {
		return fmt.Errorf("%s: %w", file, err)
	}
	message := e.GetMessage()
	if mismatch := new(yaml.TypeError); errors.As(err, &mismatch) {
		message = wanted(mismatch)
	}
	if m := unknownField.FindStringSubmatch(message); m != nil {
		message += Hint(m[1], fieldsAt(node, reflect.TypeOf(into), e.GetToken()))
	}
	return at(file, e.GetToken(), message)
}

// wanted says what should stand in the place of a value of another type.
func wanted(e *yaml.TypeError) string {
	switch {
	case e.DstType == reflect.TypeFor[time.Duration]():
		return Unitless(e.Token.Value, "want a time such as 300ms, 5s or 1h30m")
	case e.DstType.Kind() == reflect.Int:
		return "want a whole number"
	case e.DstType.Kind() == reflect.String:
		return "want a text"
	}
	return e.GetMessage()
}

// Unitless asks for the unit of a time that is a mere number. Of any other it says what else
// there is to say.
func Unitless(value, other string) string {
	if _, err := strconv.ParseFloat(value, 64); err != nil {
		return other
	}
	if _, err := time.ParseDuration(value + "s"); err != nil {
		return other
	}
	return fmt.Sprintf("%s what? write %[1]ss", value)
}

// fieldsAt are the YAML names of the struct that is being filled where a key stands; nil where
// it stands nowhere in the node.
func fieldsAt(node ast.Node, t reflect.Type, key *token.Token) []string {
	for t.Kind() == reflect.Pointer || t.Kind() == reflect.Slice {
		t = t.Elem()
	}
	switch n := node.(type) {
	case *ast.AnchorNode:
		return fieldsAt(n.Value, t, key)
	case *ast.SequenceNode:
		for _, v := range n.Values {
			if names := fieldsAt(v, t, key); names != nil {
				return names
			}
		}
	case ast.MapNode:
		if t.Kind() != reflect.Struct {
			return nil
		}
		names, types := fields(t)
		for f := n.MapRange(); f.Next(); {
			name := f.Key().GetToken() // its text is without quotes
			if name == nil || key == nil {
				continue
			}
			if name.Position.Offset == key.Position.Offset {
				return names
			}
			if i := slices.Index(names, name.Value); i >= 0 {
				if found := fieldsAt(f.Value(), types[i], key); found != nil {
					return found
				}
			}
		}
	}
	return nil
}

// fields are the YAML names of a struct, and their types.
func fields(t reflect.Type) (names []string, types []reflect.Type) {
	for i := range t.NumField() {
		f := t.Field(i)
		if name, _, _ := strings.Cut(f.Tag.Get("yaml"), ","); name != "" && name != "-" {
			names, types = append(names, name), append(types, f.Type)
		}
	}
	return names, types
}

// Hint suggests the valid name nearest to a wrong one, or lists what is valid.
func Hint(wrong string, valid []string) string {
	best, distance := "", len(wrong)/2+2
	for _, v := range valid {
		if d := levenshtein(strings.ToLower(wrong), strings.ToLower(v)); d < distance {
			best, distance = v, d
		}
	}
	switch {
	case best != "":
		return fmt.Sprintf("; did you mean %q?", best)
	case len(valid) == 0:
		return ""
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
