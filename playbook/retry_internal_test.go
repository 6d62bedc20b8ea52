package playbook

import (
	"errors"
	"testing"
	"time"

	"riposte/ledger"
	"riposte/playbook/action"
)

// A pause is at least what somebody outside asks for, within what the playbook allows and what
// is left of the step's time.
func TestPauseBeforeRetry(t *testing.T) {
	const year = 365 * 24 * time.Hour
	retry := ledger.Retry{Attempts: 5, Initial: 20 * time.Millisecond, Max: time.Minute}
	for _, c := range []struct {
		what        string
		nth         int
		after, left time.Duration // after 0: nobody asks for anything
		least, most time.Duration
	}{
		{"as the playbook says", 1, 0, 0, 10 * time.Millisecond, 30 * time.Millisecond},
		{"and longer", 3, 0, 0, 20 * time.Millisecond, 70 * time.Millisecond},
		{"and no longer than that", 100, 0, 0, 30 * time.Second, 90 * time.Second},
		{"as somebody asks", 1, 7 * time.Second, 0, 7 * time.Second, 7 * time.Second},
		{"he asks for less", 100, time.Millisecond, 0, 30 * time.Second, 90 * time.Second},
		{"he asks for a year", 1, year, 0, time.Minute, time.Minute},
		{"the step is too old before that", 1, year, 3 * time.Second, 3 * time.Second, 3 * time.Second},
		{"it is too old soon", 100, 0, time.Second, time.Second, time.Second},
		{"it is too old already", 1, 0, -time.Hour, 10 * time.Millisecond, 30 * time.Millisecond},
	} {
		cause := errors.New("x")
		if c.after > 0 {
			cause = &action.Later{After: c.after}
		}
		if got := pause(retry, c.nth, cause, c.left); got < c.least || got > c.most {
			t.Errorf("%s: %s, want %s to %s", c.what, got, c.least, c.most)
		}
	}
}
