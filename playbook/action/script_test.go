package action

import (
	"encoding/json"
	"strings"
	"testing"
	"unicode"

	"github.com/goccy/go-yaml"

	"riposte/stream"
)

func TestScriptSpec(t *testing.T) {
	for with, fault := range map[string]string{
		"argv: [/bin/true]":                               "",
		"argv: [/bin/true, a b, $(id), '']":               "",
		"argv: [/bin/true]\nenv: {A_1: x, _b: '', C: 42}": "",
		"argv: [/bin/true]\nenv: {LD_PRELOAD: /x.so}":     "", // the operator may; an alert cannot
		"argv: []":                     "argv: missing",
		"env: {A: b}":                  "argv: missing",
		"argv: [true]":                 "not an absolute path",
		"argv: [./true]":               "not an absolute path",
		"argv: ['']":                   "not an absolute path",
		"argv: /bin/true":              "sequence is expected",
		"argv: [/bin/true, \"a\\0b\"]": "argv: argument 1 has a NUL",
		"argv: [/bin/true, " + strings.Repeat("x", 5000) + "]":           "argv: argument 1",
		"argv: [/bin/true" + strings.Repeat(", a", 70) + "]":             "more than 64",
		"argv: [/bin/true]\nenv: {'A=B': c}":                             `env: "A=B" is not a name`,
		"argv: [/bin/true]\nenv: {'': c}":                                `env: "" is not a name`,
		"argv: [/bin/true]\nenv: {1A: c}":                                `env: "1A" is not a name`,
		"argv: [/bin/true]\nenv: {RIPOSTE_ALERT_ID: c}":                  "for the alert's fields",
		"argv: [/bin/true]\nenv: {A: \"a\\0b\"}":                         "the value of A has a NUL",
		"argv: [/bin/true]\nshell: true":                                 "unknown field",
		"argv: [/bin/true]\nenv: {A: " + strings.Repeat("x", 5000) + "}": "the value of A",
	} {
		spec := new(ScriptSpec)
		err := yaml.UnmarshalWithOptions([]byte(with), spec, yaml.Strict())
		if err == nil {
			err = spec.Validate()
		}
		if fault == "" && err != nil || fault != "" && (err == nil || !strings.Contains(err.Error(), fault)) {
			t.Errorf("%.80s: got %v, want %q", with, err, fault)
		}
	}
	kind, ok := Lookup("run_script")
	if !ok || kind.Class != AtMostOnce || kind.Targeted || kind.Spec().Capabilities(false) != nil {
		t.Errorf("%+v", kind)
	}
}

// FuzzScript holds what a script is given to its bounds, whatever the alert says, through
// the JSON of a frozen plan.
func FuzzScript(f *testing.F) {
	f.Add(`{"id":"a","title":"x\nLD_PRELOAD=/tmp/x.so","level":"HIGH\u0000","process":{"pid":7,"name":"\u001b[2J","exe":"/tmp/a b","cmdline":"x","parent":{"pid":6,"exe":"\u202e"}}}`)
	f.Add(`{"host":"h2","actionable_pid":4711,"source_ip":"198.51.100.2; id","rule":{"id":"r","name":"\n"},"timestamp":"=","source":"="}`)
	f.Add(`{"title":"` + strings.Repeat(`\u0000`, 5000) + `","process":{"pid":1,"cmdline":"` + strings.Repeat("\u202e", 9000) + `"}}`)
	names := map[string]bool{"PATH": true, "LC_ALL": true, "LD_PRELOAD": true}
	for _, name := range []string{"STEP_KEY", "ALERT_ID", "ALERT_HOST", "ALERT_SOURCE", "ALERT_LEVEL", "ALERT_TITLE", "ALERT_TIMESTAMP", "ALERT_RULE_ID",
		"ALERT_RULE_NAME", "ALERT_PID", "ALERT_NAME", "ALERT_EXE", "ALERT_CMDLINE", "ALERT_SOURCE_IP"} {
		names["RIPOSTE_"+name] = true
	}
	f.Fuzz(func(t *testing.T, raw string) {
		a, err := stream.Decode([]byte(raw), "1-0")
		if err != nil {
			return
		}
		spec := &ScriptSpec{Argv: []string{"/bin/true"}, Env: map[string]string{"LD_PRELOAD": "operator"}}
		frozen, err := json.Marshal(spec.Resolve(a, Seen{}))
		if err != nil {
			t.Fatal(err)
		}
		effect, class, err := Decode("run_script", frozen)
		if err != nil || class != AtMostOnce {
			t.Fatal(class, err)
		}
		script, env := effect.(*RunScript), Env{Key: "h1/g/a/p/s", AlertID: "a"}
		seen := map[string]bool{}
		for _, v := range script.environ(env) {
			name, value, _ := strings.Cut(v, "=")
			if !names[name] || seen[name] || len(v) > 40<<10 {
				t.Errorf("%.80q: unknown, twice, or %d bytes", v, len(v))
			}
			seen[name] = true
			if strings.HasPrefix(name, "RIPOSTE_") && strings.ContainsFunc(value, func(r rune) bool { return !unicode.IsPrint(r) }) {
				t.Errorf("not printable: %q", v)
			}
			if name == "LD_PRELOAD" && value != "operator" {
				t.Errorf("%q", v)
			}
		}
		if len(seen) != len(names) {
			t.Errorf("%d variables, want %d", len(seen), len(names))
		}
		input, err := script.input(env)
		if err != nil || strings.Count(string(input), "\n") != 1 || len(input) > 256<<10 {
			t.Errorf("%v: %d bytes in %d lines", err, len(input), strings.Count(string(input), "\n"))
		}
		var about map[string]any
		if err := json.Unmarshal(input, &about); err != nil || about["id"] != "a" || about["key"] != "h1/g/a/p/s" || about["host"] == "" {
			t.Errorf("%v: %.200s", err, input)
		}
	})
}
