package gate

import (
	"context"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// Watch calls changed whenever a process of this host closes its life file, which the
// kernel does at its death (inotify(7), IN_CLOSE_WRITE), until ctx ends.
func (g *Gate) Watch(ctx context.Context, changed func()) error {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return fmt.Errorf("inotify: %w", err)
	}
	events := os.NewFile(uintptr(fd), "inotify") // non-blocking: Close ends a Read
	if _, err := unix.InotifyAddWatch(fd, g.run.Name()+"/"+lifeDir, unix.IN_CLOSE_WRITE); err != nil {
		return errors.Join(fmt.Errorf("inotify: %w", err), events.Close())
	}
	defer context.AfterFunc(ctx, func() { events.Close() })()
	changed() // whoever died before anybody watched
	buf := make([]byte, 4096)
	for {
		if _, err := events.Read(buf); err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return errors.Join(fmt.Errorf("inotify: %w", err), events.Close())
		}
		changed()
	}
}
