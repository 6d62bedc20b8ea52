package playbook

import (
	"fmt"
	"strings"

	"riposte/ledger"
)

// Revert adds to a settled alert the steps that undo what was done about it, the last
// first: all that can be, or the one named PLAYBOOK/STEP. It says which, or why none.
func Revert(body *ledger.Body, step string) (undone []string, err error) {
	var names []string
	found := false
	for i := len(body.Steps) - 1; i >= 0; i-- {
		s := body.Steps[i]
		if s.Undoes != "" || step != "" && s.Name() != step {
			names = append(names, s.Name())
			continue
		}
		found = true
		if addUndo(body, s) {
			undone = append(undone, s.Name())
		}
	}
	switch {
	case len(undone) > 0:
		return undone, nil
	case !found && step != "":
		return nil, fmt.Errorf("it has no step %q; it has %s", step, strings.Join(names, ", "))
	}
	var came []string
	for _, s := range body.Steps {
		if step == "" || s.Name() == step {
			came = append(came, s.Name()+" is "+s.Outcome)
		}
	}
	return nil, fmt.Errorf("nothing of it stands that can be undone: %s (a process that was ended cannot be brought back, and what is undone once stays so)", strings.Join(came, ", "))
}
