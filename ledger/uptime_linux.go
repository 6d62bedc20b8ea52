package ledger

import (
	"time"

	"golang.org/x/sys/unix"
)

// uptime is a clock that counts the time a host is suspended, as the server's clock does
// meanwhile: CLOCK_BOOTTIME, see clock_gettime(2). Go's own monotonic clock stands still.
func uptime() time.Duration {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &now); err != nil {
		panic(err) // every kernel since 2.6.39 has it
	}
	return time.Duration(now.Nano())
}
