package action

import "riposte/stream"

// SuspendSpec is the `with` block of suspend_process.
type SuspendSpec struct {
	// Target is process, the default: the one the alert names; or parent: the one that
	// started it, by the alert's process.parent.
	Target string `yaml:"target"`
}

func newSuspendSpec() *SuspendSpec { return &SuspendSpec{Target: targetProcess} }

// Validate implements Spec.
func (s *SuspendSpec) Validate() error { return validTarget(s.Target) }

// Resolve implements Spec. It returns nil where the alert names no such process.
func (s *SuspendSpec) Resolve(a *stream.Alert, seen Seen) Effect {
	p, ok := targetOf(a, seen, s.Target)
	if !ok {
		return nil
	}
	return &SuspendProcess{p}
}

// Capabilities implements Spec.
func (s *SuspendSpec) Capabilities(ownUID bool) []Capability { return toSignal(ownUID) }

// SuspendProcess keeps one process from running, and leaves it there to be looked at, ended or
// resumed.
type SuspendProcess struct{ Process }

var _ Reversible = (*SuspendProcess)(nil)

// Describe implements Effect.
func (s *SuspendProcess) Describe() string { return "suspend " + s.Process.String() }

// Undo implements Reversible: it takes back this step's claim, and the suspension where no other
// step asks for it.
func (s *SuspendProcess) Undo() (string, Effect) {
	return "resume_process", &ResumeProcess{Process: s.Process, Undo: true}
}
