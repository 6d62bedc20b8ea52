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
	pid, ok := a.PID()
	if !ok {
		return nil
	}
	t := &TerminateProcess{PID: pid, SeenUntil: seen.Until, Grace: Duration(s.Grace)}
	if p := a.Process; p != nil {
		t.Described = p.PID
		t.StartTicks, t.BootID, t.PIDNS = p.StartTicks, clip(p.BootID, maxBootID), p.PIDNS
		t.Name, t.Exe = clip(p.Name, maxField), clip(p.Exe, maxPath)
	}
	return t
}

// Takes is how long Apply takes at most where nothing is wrong: a step's timeout must
// leave more.
func (s *TerminateSpec) Takes() time.Duration { return s.Grace }

// Capabilities implements Spec.
func (s *TerminateSpec) Capabilities(ownUID bool) []Capability {
	if ownUID {
		return nil
	}
	return []Capability{CapKill, CapSysPtrace}
}

// TerminateProcess ends one process: SIGTERM, a grace period, SIGKILL, and then the exit
// is observed. Its fields are the identity that the alert gave, unchecked; where a field
// is zero the alert did not say.
type TerminateProcess struct {
	PID        int64     `json:"pid"`
	Described  int64     `json:"described_pid,omitempty"` // process.pid: whom the fields below describe
	StartTicks uint64    `json:"start_ticks,omitempty"`
	BootID     string    `json:"boot_id,omitempty"`
	PIDNS      uint64    `json:"pid_ns,omitempty"`
	Name       string    `json:"name,omitempty"`
	Exe        string    `json:"exe,omitempty"`
	SeenUntil  time.Time `json:"seen_until"` // without StartTicks: it must have started before
	Grace      Duration  `json:"grace"`
}

const (
	maxPID    = 1 << 22 // PID_MAX_LIMIT, include/linux/threads.h: PIDs are below it
	maxPath   = 4096    // PATH_MAX
	maxBootID = 36      // a UUID
)

// Targets implements Effect.
func (t *TerminateProcess) Targets() []string { return []string{fmt.Sprintf("process/%d", t.PID)} }

// Describe implements Effect.
func (t *TerminateProcess) Describe() string {
	if t.Name == "" {
		return fmt.Sprintf("terminate PID %d", t.PID)
	}
	return fmt.Sprintf("terminate PID %d (%s)", t.PID, printable(clip(t.Name, 80)))
}

// contradiction refuses what can be refused without looking at the host.
func (t *TerminateProcess) contradiction() error {
	switch {
	case t.PID <= 1 || t.PID >= maxPID:
		return Refuse("PID %d is not one to act on: want 2 to %d", t.PID, maxPID-1)
	case len(t.BootID) > maxBootID:
		return Refuse("boot_id has more than the %d bytes of a boot ID", maxBootID)
	case t.Described != 0 && t.Described != t.PID:
		return Refuse("the alert contradicts itself: actionable_pid is %d, process.pid is %d; give the identity of the process to act on", t.PID, t.Described)
	case t.Grace < 0 || t.Grace > Duration(maxGrace):
		return Refuse("a grace of %s is not within 0s to %s", t.Grace, Duration(maxGrace))
	}
	return nil
}
