package action

import (
	"os"
	"regexp"
	"slices"
	"testing"
)

// Every outcome that is declared can be asked for.
func TestOutcomes(t *testing.T) {
	src, err := os.ReadFile("action.go")
	if err != nil {
		t.Fatal(err)
	}
	var declared []Outcome
	for _, m := range regexp.MustCompile(`(?m)^\t[A-Z]\w+ +Outcome = "(\w+)"`).FindAllSubmatch(src, -1) {
		declared = append(declared, Outcome(m[1]))
	}
	if got := Outcomes(); len(declared) < 20 || !slices.Equal(got, declared) {
		t.Errorf("Outcomes are %v, declared are %v", got, declared)
	}
}
