package sensor

import (
	"runtime"

	"golang.org/x/sys/unix"
)

// hurry puts this thread before others until the returned function is called. A process
// that lives for milliseconds has to be read before it is gone, also on a machine where
// everything is busy; this thread sleeps unless a process starts.
func hurry() (calm func()) {
	const thread, first = 0, -20 // the calling thread, as Linux has it
	runtime.LockOSThread()
	before, err := unix.Getpriority(unix.PRIO_PROCESS, thread)
	if err != nil || unix.Setpriority(unix.PRIO_PROCESS, thread, first) != nil {
		return runtime.UnlockOSThread // not permitted: as fast as it goes
	}
	return func() {
		_ = unix.Setpriority(unix.PRIO_PROCESS, thread, 20-before) // the system call returns 20 - nice
		runtime.UnlockOSThread()
	}
}
