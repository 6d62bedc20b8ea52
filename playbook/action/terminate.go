package action

import (
	"fmt"
	"time"

	"riposte/stream"
)

// TerminateSpec is the `with` block of terminate_process.
type TerminateSpec struct {
	// Grace is how long the process has to end by itself after SIGTERM before it gets
	// SIGKILL: 0 to 60 s, default 1 s. 0 sends SIGKILL at once. A tree gets none.
	Grace Span `yaml:"grace" template:"duration"`
	// Target is process, the default: the one the alert names; or parent: the one that
	// started it, by the alert's process.parent.
	Target string `yaml:"target"`
	// Tree says to end all that the process has started as well, and what that has started.
	Tree bool `yaml:"tree"`
}

const maxGrace = time.Minute

func newTerminateSpec() *TerminateSpec {
	return &TerminateSpec{Grace: "1s", Target: targetProcess}
}

// Validate implements Spec.
func (s *TerminateSpec) Validate() error {
	if grace, err := s.Grace.parse(); err != nil {
		return fmt.Errorf("grace: %w", err)
	} else if grace < 0 || grace > maxGrace {
		return fmt.Errorf("grace: %s is not within 0s to %s", grace, Duration(maxGrace))
	}
	return validTarget(s.Target)
}

// Resolve implements Spec. It returns nil where the alert names no such process.
func (s *TerminateSpec) Resolve(a *stream.Alert, seen Seen) Effect {
	p, ok := targetOf(a, seen, s.Target)
	if !ok {
		return nil
	}
	return &TerminateProcess{Process: p, Grace: Duration(s.Takes()), Tree: s.Tree}
}

// Takes is how long Apply takes at most where nothing is wrong: a step's timeout must
// leave more.
func (s *TerminateSpec) Takes() time.Duration {
	if s.Tree {
		return 0
	}
	return time.Duration(s.Grace.Duration())
}

// Capabilities implements Spec.
func (s *TerminateSpec) Capabilities(ownUID bool) []Capability { return toSignal(ownUID) }

// TerminateProcess ends one process: SIGTERM, a grace period, SIGKILL, and then the exit
// is observed. Of a tree all members are stopped first, and then killed.
type TerminateProcess struct {
	Process
	Grace Duration `json:"grace"`
	Tree  bool     `json:"tree,omitempty"`
}

// Describe implements Effect.
func (t *TerminateProcess) Describe() string {
	if t.Tree {
		return "terminate " + t.Process.String() + " and its descendants"
	}
	return "terminate " + t.Process.String()
}

// contradiction refuses what can be refused without looking at the host.
func (t *TerminateProcess) contradiction() error {
	if t.Grace < 0 || t.Grace > Duration(maxGrace) {
		return Refuse("a grace of %s is not within 0s to %s", t.Grace, Duration(maxGrace))
	}
	return t.Process.contradiction()
}
