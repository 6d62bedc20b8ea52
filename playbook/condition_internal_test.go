package playbook

import (
	"strings"
	"testing"

	"riposte/stream"
)

// FuzzTemplate: whatever stands in a template and in an alert, what comes out is bounded text,
// and an error says where in the template it is.
func FuzzTemplate(f *testing.F) {
	f.Add("{{ alert.title }}", "a title")
	f.Add("of {{ alert.process.parent.name }} and {{ steps.a.outcome }}", "{{ alert.title }}")
	f.Add("{{ alert.extra[alert.title] }} {{ len(alert.title) * 2 }}", "x")
	f.Add("{{ repeat(alert.title, 10000) }}", strings.Repeat("x", 5000))
	f.Add("{{ {{ }} }}", "")
	f.Add("{{ 'a' | upper() }}{{ steps['b'].ok }}", "")
	f.Fuzz(func(t *testing.T, text, title string) {
		parsed, at, err := parseTemplate(text, []string{"a"})
		if err != nil {
			if n := len([]rune(text)); at < 0 || at > n {
				t.Fatalf("%q: an error at %d of %d: %v", text, at, n, err)
			}
			return
		}
		if parsed == nil {
			if strings.Contains(text, "{{") {
				t.Fatalf("%q has no expression", text)
			}
			return
		}
		env := lateEnv{envOf(&stream.Alert{ID: "x", Title: title}).Alert, map[string]stepEnv{"a": {Outcome: "killed", OK: true}}}
		if out, err := parsed.render(env); err == nil && len(out) > maxRendered+len("...") {
			t.Fatalf("%q became %d bytes", text, len(out))
		}
	})
}

// Steps are known by name before anything runs.
func TestStepNames(t *testing.T) {
	for text, want := range map[string]string{
		"steps.a.ok":                       "",
		`steps["a"].outcome == "killed"`:   "",
		"steps.b.ok":                       `no step before this one is called "b"`,
		"steps[alert.title].ok":            "name the step",
		"steps.a.okay":                     `unknown field "okay"; did you mean "ok"?`,
		"alert.titel == \"x\"":             `unknown field "titel"; did you mean "title"?`,
		"any(keys(steps), # == \"other\")": "", // what is there at all
	} {
		_, err := compileLate(text, []string{"a"})
		message := ""
		if err != nil {
			message, _ = told(err)
		}
		if (want == "") != (err == nil) || !strings.Contains(message, want) {
			t.Errorf("%s: %q, want %q", text, message, want)
		}
	}
}
