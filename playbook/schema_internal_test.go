package playbook

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"reflect"
	"testing"
	"time"

	"github.com/goccy/go-yaml/ast"
	"github.com/invopop/jsonschema"

	"riposte/playbook/action"
)

var update = flag.Bool("update", false, "write schema.json anew")

// TestSchema: the schema that editors are given is that of the types as they are.
func TestSchema(t *testing.T) {
	made, err := makeSchema()
	if err != nil {
		t.Fatal(err)
	}
	if *update {
		if err := os.WriteFile("schema.json", made, 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if !bytes.Equal(made, Schema) {
		t.Error("schema.json is not of these types any more: go test ./playbook -run TestSchema -update")
	}
}

func makeSchema() ([]byte, error) {
	r := &jsonschema.Reflector{FieldNameTag: "yaml", RequiredFromJSONSchemaTags: true, DoNotReference: true, Mapper: mapped, Anonymous: true}
	for path, dir := range map[string]string{"riposte/playbook": "./", "riposte/playbook/action": "./action"} {
		if err := r.AddGoComments(path, dir); err != nil {
			return nil, err
		}
	}
	s := r.Reflect(&Playbook{})
	s.Title, s.Description = "Riposte playbook", "What to do about an alert. See riposte playbooks, and riposte actions for the parameters of each action."
	s.Required = []string{"name", "match", "steps"}
	for _, internal := range []string{"Hash", "program"} {
		s.Properties.Delete(internal)
	}
	enum(s, "mode", Modes...)
	steps, _ := s.Properties.Get("steps")
	step := steps.Items
	step.Required = []string{"name", "action"}
	enum(step, "action", action.Names()...)
	enum(step, "on_error", string(Continue), string(Stop), string(Undo))
	step.Properties.Delete("with")
	step.Properties.Set("with", &jsonschema.Schema{Description: "Parameters of the action."})
	limits, _ := s.Properties.Get("limits")
	breakers, _ := limits.Properties.Get("breakers")
	breakers.Items.Required = []string{"per", "most", "within"}
	enum(breakers.Items, "per", string(PerHost), string(PerFleet))
	enum(breakers.Items, "action", action.Names()...)
	for _, name := range action.Names() {
		kind, _ := action.Lookup(name)
		with := r.ReflectFromType(reflect.TypeOf(kind.Spec()))
		with.Version = ""
		then := jsonschema.NewProperties()
		then.Set("with", with)
		is := jsonschema.NewProperties()
		is.Set("action", &jsonschema.Schema{Const: name})
		step.AllOf = append(step.AllOf, &jsonschema.Schema{If: &jsonschema.Schema{Properties: is}, Then: &jsonschema.Schema{Properties: then}})
	}
	raw, err := json.MarshalIndent(s, "", "  ")
	return append(raw, '\n'), err
}

func enum(s *jsonschema.Schema, field string, words ...string) {
	f, _ := s.Properties.Get(field)
	f.Type = "string"
	for _, w := range words {
		f.Enum = append(f.Enum, w)
	}
}

// mapped are the types that YAML writes in another form than Go.
func mapped(t reflect.Type) *jsonschema.Schema {
	const duration = `^([0-9.]+(ns|us|ms|s|m|h))+$`
	switch t {
	case reflect.TypeFor[time.Duration]():
		return &jsonschema.Schema{Type: "string", Pattern: duration, Examples: []any{"300ms", "5s", "1h30m"}}
	case reflect.TypeFor[action.Span]():
		return &jsonschema.Schema{Type: "string", Pattern: duration + `|\{\{`, Examples: []any{"300ms", "5s", "1h30m", `{{ alert.level == "CRITICAL" ? "4h" : "1h" }}`}}
	case reflect.TypeFor[action.Size]():
		return &jsonschema.Schema{Type: "string", Pattern: `^[0-9]+ *([KMG]i)?B$`, Examples: []any{"64MiB"}}
	case reflect.TypeFor[ast.Node]():
		return &jsonschema.Schema{Type: "object"}
	}
	if t.Kind() != reflect.Struct && reflect.PointerTo(t).Implements(reflect.TypeFor[interface{ UnmarshalYAML(func(any) error) error }]()) {
		// A word, or a list of them.
		return &jsonschema.Schema{OneOf: []*jsonschema.Schema{{Type: "string"}, {Type: "array", Items: &jsonschema.Schema{Type: "string"}}}}
	}
	return nil
}
