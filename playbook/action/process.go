package action

import (
	"fmt"
	"time"

	"riposte/stream"
)

// Process is the identity of the process that an alert names, unchecked; where a field is
// zero the alert did not say. Every effect on a process holds on to it by hold, which checks
// all of it on the very process.
type Process struct {
	PID        int64     `json:"pid"`
	Described  int64     `json:"described_pid,omitempty"` // process.pid: whom the fields below describe
	StartTicks uint64    `json:"start_ticks,omitempty"`
	BootID     string    `json:"boot_id,omitempty"`
	PIDNS      uint64    `json:"pid_ns,omitempty"`
	Name       string    `json:"name,omitempty"`
	Exe        string    `json:"exe,omitempty"`
	SeenUntil  time.Time `json:"seen_until"` // without StartTicks: it must have started before
}

const (
	maxPID    = 1 << 22 // PID_MAX_LIMIT, include/linux/threads.h: PIDs are below it
	maxPath   = 4096    // PATH_MAX
	maxBootID = 36      // a UUID
)

// processOf is the process to act on, if the alert names one.
func processOf(a *stream.Alert, seen Seen) (Process, bool) {
	pid, ok := a.PID()
	if !ok {
		return Process{}, false
	}
	t := Process{PID: pid, SeenUntil: seen.Until}
	if p := a.Process; p != nil {
		t.Described = p.PID
		t.StartTicks, t.BootID, t.PIDNS = p.StartTicks, clip(p.BootID, maxBootID), p.PIDNS
		t.Name, t.Exe = clip(p.Name, maxField), clip(p.Exe, maxPath)
	}
	return t, true
}

// What the field target of a `with` block may say.
const (
	targetProcess = "process" // the one the alert names, the default
	targetParent  = "parent"  // the one that started it, by the alert's process.parent
)

func validTarget(target string) error {
	if target != targetProcess && target != targetParent {
		return fmt.Errorf("target: %q is not one of %s, %s", target, targetParent, targetProcess)
	}
	return nil
}

// targetOf is the process that a `with` block means, if the alert names it. The parent has
// an identity of its own, and the boot and namespace of the process it is described with.
func targetOf(a *stream.Alert, seen Seen, target string) (Process, bool) {
	if target != targetParent {
		return processOf(a, seen)
	}
	if a.Process == nil || a.Process.Parent == nil || a.Process.Parent.PID == 0 {
		return Process{}, false
	}
	child, p := a.Process, a.Process.Parent
	return Process{
		PID: p.PID, Described: p.PID, StartTicks: p.StartTicks, BootID: clip(child.BootID, maxBootID), PIDNS: child.PIDNS,
		Name: clip(p.Name, maxField), Exe: clip(p.Exe, maxPath), SeenUntil: seen.Until,
	}, true
}

// processTarget begins the name of what effects on a process take turns at.
const processTarget = "process/"

func (t Process) target() string { return fmt.Sprint(processTarget, t.PID) }

// Targets implements Effect.
func (t Process) Targets() []string { return []string{t.target()} }

// String is the process for a person: "PID 4711 (bash)".
func (t Process) String() string {
	if t.Name == "" {
		return fmt.Sprintf("PID %d", t.PID)
	}
	return fmt.Sprintf("PID %d (%s)", t.PID, printable(clip(t.Name, 80)))
}

// contradiction refuses what can be refused without looking at the host.
func (t Process) contradiction() error {
	switch {
	case t.PID <= 1 || t.PID >= maxPID:
		return Refuse("PID %d is not one to act on: want 2 to %d", t.PID, maxPID-1)
	case len(t.BootID) > maxBootID:
		return Refuse("boot_id has more than the %d bytes of a boot ID", maxBootID)
	case t.Described != 0 && t.Described != t.PID:
		return Refuse("the alert contradicts itself: actionable_pid is %d, process.pid is %d; give the identity of the process to act on", t.PID, t.Described)
	}
	return nil
}

// toSignal is what it takes to signal any process, and to tell which one it is.
func toSignal(ownUID bool) []Capability {
	if ownUID {
		return nil
	}
	return []Capability{CapKill, CapSysPtrace}
}

func (t Process) receipt(o Outcome, format string, args ...any) Receipt {
	return Receipt{o, fmt.Sprintf("PID %d ", t.PID) + fmt.Sprintf(format, args...)}
}
