package strict

import (
	"strings"
	"testing"
)

type inner struct {
	Grace string `yaml:"grace"`
}

type doc struct {
	Name  string  `yaml:"name"`
	Steps []inner `yaml:"steps"`
}

func TestErrorsNameThePlace(t *testing.T) {
	for _, c := range []struct{ src, want string }{
		{"name: x\nstesp: []\n", `f.yaml:2:1: unknown field "stesp"; did you mean "steps"?`},
		{"name: x\nsteps:\n  - grace: 1s\n  - graec: 1s\n", `f.yaml:4:5: unknown field "graec"; did you mean "grace"?`},
		{"name: [1]\n", "f.yaml:1:7: "},
		{"name: 'x\n", "f.yaml:1:7: "},
		{"name: x\nname: y\n", "f.yaml:2:1: "},
		{"name: x\n---\nname: y\n", "a second document"},
		{"", "f.yaml: empty"},
		{"qqqqqqqqqq: 1\n", `unknown field "qqqqqqqqqq"; valid are name, steps`},
		{"name: x\ngrace: 1s\n", `f.yaml:2:1: unknown field "grace"; did you mean "name"?`},
		{"name: x\nsteps: [{steps: 1s}]\n", `unknown field "steps"; valid are grace`},
	} {
		node, err := Parse("f.yaml", []byte(c.src))
		if err == nil {
			err = Decode("f.yaml", node, &doc{})
		}
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%q: got %v, want %q", c.src, err, c.want)
		}
	}
}

func FuzzDecode(f *testing.F) {
	f.Add([]byte("name: x\nsteps: [{grace: 1s}]\n"))
	f.Add([]byte("a: &a [*a, *a]"))
	f.Fuzz(func(t *testing.T, src []byte) {
		if node, err := Parse("f", src); err == nil {
			_ = Decode("f", node, &doc{})
		}
	})
}
