//go:build !linux

package guard

import (
	"runtime"

	"riposte/playbook/action"
	"riposte/stream/proc"
)

// Process implements action.Guard. It refuses: without /proc nothing is known of a
// process.
func (f *Floor) Process(st proc.Stat) error {
	return action.Refuse("what PID %d is cannot be read on %s", st.PID, runtime.GOOS)
}

// kinship is nothing where no process is acted on.
type kinship struct{}

// Close does nothing: nothing is held.
func (f *Floor) Close() error { return nil }
