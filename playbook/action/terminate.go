package action

import (
	"fmt"
	"time"

	"riposte/stream"
)

// TerminateSpec is the `with` block of terminate_process.
type TerminateSpec struct {
	// Grace is how long the process has to end by itself after SIGTERM before it gets
	// SIGKILL: 0 to 60 s, default 1 s. 0 sends SIGKILL at once.
	Grace time.Duration `yaml:"grace"`
}

const maxGrace = time.Minute

func newTerminateSpec() *TerminateSpec { return &TerminateSpec{Grace: time.Second} }

// Validate implements Spec.
func (s *TerminateSpec) Validate() error {
	if s.Grace < 0 || s.Grace > maxGrace {
		return fmt.Errorf("grace: %s is not within 0s to %s", s.Grace, Duration(maxGrace))
	}
	return nil
}

// Resolve implements Spec. It returns nil where the alert names no process.
func (s *TerminateSpec) Resolve(a *stream.Alert, seen Seen) Effect {
	p, ok := processOf(a, seen)
	if !ok {
		return nil
	}
	return &TerminateProcess{Process: p, Grace: Duration(s.Grace)}
}

// Takes is how long Apply takes at most where nothing is wrong: a step's timeout must
// leave more.
func (s *TerminateSpec) Takes() time.Duration { return s.Grace }

// Capabilities implements Spec.
func (s *TerminateSpec) Capabilities(ownUID bool) []Capability { return toSignal(ownUID) }

// TerminateProcess ends one process: SIGTERM, a grace period, SIGKILL, and then the exit
// is observed.
type TerminateProcess struct {
	Process
	Grace Duration `json:"grace"`
}

// Describe implements Effect.
func (t *TerminateProcess) Describe() string { return "terminate " + t.Process.String() }

// contradiction refuses what can be refused without looking at the host.
func (t *TerminateProcess) contradiction() error {
	if t.Grace < 0 || t.Grace > Duration(maxGrace) {
		return Refuse("a grace of %s is not within 0s to %s", t.Grace, Duration(maxGrace))
	}
	return t.Process.contradiction()
}
