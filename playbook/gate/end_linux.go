package gate

import (
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"riposte/stream/proc"
)

var errNotDue = errors.New("its time is not up")

// End kills a holder that has overstayed: frozen or hung inside a step, it keeps the lock
// that its successor needs. The kernel frees the lock with it. End does nothing to a
// holder whose time is not up or whose identity does not match.
func (g *Gate) End(h Holder) error {
	switch {
	case h.Replica == g.replica || h.PID <= 1 || h.Until.IsZero() || time.Now().Before(h.Until):
		return errNotDue
	case h.PIDNS != g.self.PIDNS:
		return fmt.Errorf("%s is numbered in another PID namespace", h.Replica)
	}
	fd, err := unix.PidfdOpen(h.PID, 0)
	if errors.Is(err, unix.ESRCH) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("pidfd of %s: %w", h.Replica, err)
	}
	defer unix.Close(fd)
	st, err := proc.ReadStat(h.PID)
	if errors.Is(err, proc.ErrGone) {
		return nil
	}
	if err != nil {
		return err
	}
	if st.StartTicks != h.Ticks {
		return nil // the PID was reused: the holder is gone
	}
	return unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0)
}
