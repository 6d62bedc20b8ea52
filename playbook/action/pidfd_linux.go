package action

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// pidfd is a descriptor that refers to one process for good, whatever becomes of its PID.
type pidfd int

// pollSlice bounds how late a cancelled context is noticed. An exit is noticed at once.
const pollSlice = 20 * time.Millisecond

func (fd pidfd) close() error { return unix.Close(int(fd)) }

// signal sends a signal. It returns ESRCH where the process has exited and been waited for.
func (fd pidfd) signal(sig unix.Signal) error {
	err := unix.PidfdSendSignal(int(fd), sig, nil, 0)
	if errors.Is(err, unix.EPERM) {
		return fmt.Errorf("%s: %w: grant CAP_KILL, or act on own processes only (--own-uid)", unix.SignalName(sig), err)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", unix.SignalName(sig), err)
	}
	return nil
}

// exited waits for at most d. The descriptor is readable once the last thread has exited;
// neither kill(2) with signal 0 nor state Z in /proc can tell, for a zombie still takes
// signals, and a process whose first thread has exited looks like one while it lives on.
func (fd pidfd) exited(d time.Duration) (bool, error) {
	fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	n, err := unix.Poll(fds, int((d+time.Millisecond-1)/time.Millisecond))
	if errors.Is(err, unix.EINTR) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("poll of a pidfd: %w", err)
	}
	return n > 0 && fds[0].Revents&unix.POLLIN != 0, nil
}

// wait waits for the exit until d is over or ctx ends, which is an error.
func (fd pidfd) wait(ctx context.Context, d time.Duration) (bool, error) {
	deadline := time.Now().Add(d)
	for {
		left := time.Until(deadline)
		exited, err := fd.exited(max(0, min(left, pollSlice)))
		if exited || err != nil {
			return exited, err
		}
		if err := ctx.Err(); err != nil {
			return false, fmt.Errorf("no exit observed: %w", err)
		}
		if left <= 0 {
			return false, nil
		}
	}
}
