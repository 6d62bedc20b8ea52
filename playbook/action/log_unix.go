//go:build unix

package action

import "golang.org/x/sys/unix"

// noFollow makes open fail on a symbolic link, and not wait for the reader of a FIFO, put
// there since the file was looked at.
const noFollow = unix.O_NOFOLLOW | unix.O_NONBLOCK
