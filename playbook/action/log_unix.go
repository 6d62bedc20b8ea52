//go:build unix

package action

import (
	"errors"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// noFollow makes open fail on a symbolic link, and not wait for the reader of a FIFO, put
// there since the file was looked at.
const noFollow = unix.O_NOFOLLOW | unix.O_NONBLOCK

// lockLog waits for at most d until nobody else writes. A flock(2) that waits could not be
// given up. A file system without locks is written to all the same.
func lockLog(file *os.File, d time.Duration) {
	pause := 20 * time.Microsecond // a line takes less to be written
	for deadline := time.Now().Add(d); ; pause = min(2*pause, time.Millisecond) {
		err := unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		again := errors.Is(err, unix.EWOULDBLOCK) || errors.Is(err, unix.EINTR)
		if !again || time.Now().After(deadline) {
			return
		}
		time.Sleep(pause)
	}
}
