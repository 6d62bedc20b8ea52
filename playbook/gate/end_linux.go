package gate

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"riposte/stream/proc"
)

// End kills a holder that has overstayed: frozen or hung inside a step, it keeps the lock
// that its successor needs. The kernel frees the lock with it. It does nothing to a holder
// whose time is not up, or that is gone: another process has its PID, or nobody. ended says
// that there was one to kill; an error says why it could not be.
func (g *Gate) End(h Holder) (ended bool, err error) {
	if !g.overstayed(h) {
		return false, nil
	}
	if h.PIDNS != g.self.PIDNS {
		return false, fmt.Errorf("%s, PID %d, is in another PID namespace than this replica", h.Replica, h.PID)
	}
	fd, err := unix.PidfdOpen(h.PID, 0)
	if errors.Is(err, unix.ESRCH) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("pidfd of %s: %w", h.Replica, err)
	}
	defer unix.Close(fd)
	st, err := proc.ReadStat(h.PID)
	if errors.Is(err, proc.ErrGone) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if st.StartTicks != h.Ticks {
		return false, nil // the PID was reused
	}
	if err := unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0); err != nil && !errors.Is(err, unix.ESRCH) {
		return false, fmt.Errorf("kill %s, PID %d: %w", h.Replica, h.PID, err)
	}
	return true, nil
}
