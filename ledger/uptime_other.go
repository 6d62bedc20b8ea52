//go:build !linux

package ledger

import "time"

var start = time.Now()

// uptime is Go's monotonic clock, which on Windows counts the time a host is suspended.
func uptime() time.Duration { return time.Since(start) }
