package action

import "riposte/stream"

// ResumeSpec is the `with` block of resume_process.
type ResumeSpec struct {
	// Target is process, the default: the one the alert names; or parent: the one that
	// started it, by the alert's process.parent.
	Target string `yaml:"target"`
}

func newResumeSpec() *ResumeSpec { return &ResumeSpec{Target: targetProcess} }

// Validate implements Spec.
func (s *ResumeSpec) Validate() error { return validTarget(s.Target) }

// Resolve implements Spec. It returns nil where the alert names no such process.
func (s *ResumeSpec) Resolve(a *stream.Alert, seen Seen) Effect {
	p, ok := targetOf(a, seen, s.Target)
	if !ok {
		return nil
	}
	return &ResumeProcess{Process: p}
}

// Capabilities implements Spec.
func (s *ResumeSpec) Capabilities(ownUID bool) []Capability { return toSignal(ownUID) }

// ResumeProcess lets a suspended process go on, whoever has suspended it; or takes back what one
// step did to it, where Undo is set.
type ResumeProcess struct {
	Process
	// Undo says that only the suspension of step Env.Undoes is taken back, and where that is not
	// known those of this very alert.
	Undo bool `json:"undo,omitempty"`
}

// Describe implements Effect.
func (r *ResumeProcess) Describe() string {
	if r.Undo {
		return "take back the suspension of " + r.Process.String()
	}
	return "resume " + r.Process.String()
}
