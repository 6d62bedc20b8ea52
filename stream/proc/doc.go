// Package proc reads what /proc says of a process, the same way at both ends of the
// stream: the sensor writes an identity into the alert, the responder compares it with
// the process it is about to act on.
//
// A PID alone never names a process: the kernel reuses it. What names one for good is
// boot ID + PID + start ticks (field 22 of /proc/PID/stat) + the PID namespace in which
// the PID is numbered. See proc(5), pid_namespaces(7).
package proc

import "errors"

// ErrGone says that no process has that PID (any more).
var ErrGone = errors.New("no such process")

// ErrUnsupported says that this system has no /proc to read.
var ErrUnsupported = errors.New("process identity needs Linux")

// Stat is what /proc/PID/stat says.
type Stat struct {
	PID        int
	Comm       string // at most 15 bytes, chosen by the process itself
	State      byte   // R, S, D, T, Z, ...
	PPID       int
	Flags      uint64 // PF_*, see include/linux/sched.h
	StartTicks uint64 // since boot, in units of 1/100 s
}

// Zombie says that the process has exited and merely waits for its parent.
func (s Stat) Zombie() bool { return s.State == 'Z' || s.State == 'X' }

// KernelThread says that the process has no user space.
func (s Stat) KernelThread() bool { const pfKthread = 0x00200000; return s.Flags&pfKthread != 0 }

// Exiting says that the first thread is on its way out, or has gone: other threads may live
// on. Such a thread shows no executable any more, long before it is a zombie.
func (s Stat) Exiting() bool { const pfExiting = 0x4; return s.Flags&pfExiting != 0 }

// Info describes a process.
type Info struct {
	Stat
	Name string // base name of argv[0] if it extends Comm, else Comm
	Exe  string // empty where it cannot be read
	Argv []string
	UID  int
}
