package main

import (
	"fmt"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// decoys starts processes that sleep. They are our children, so that nobody else can take
// their PIDs before we have seen them end.
func (l *lab) decoys(n int) (pids []int, err error) {
	attr := &syscall.ProcAttr{Env: []string{}, Files: []uintptr{0, 1, 2}, Sys: &leash}
	return pids, l.thread.do(func() error {
		for range n {
			pid, err := syscall.ForkExec(l.busybox, []string{"sleep", "600"}, attr)
			if err != nil {
				return fmt.Errorf("start a decoy: %w", err)
			}
			pids = append(pids, pid)
			l.alive[pid] = true
		}
		return nil
	})
}

// deaths waits until decoys have ended, and says when each was seen to. What outlives the
// time given for all is missed; it is ended here, and has no entry.
func (l *lab) deaths(pids []int, within time.Duration) (map[int]time.Time, error) {
	poll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, err
	}
	defer unix.Close(poll)
	byFD := map[int32]int{}
	for _, pid := range pids {
		fd, err := unix.PidfdOpen(pid, 0)
		if err != nil {
			return nil, fmt.Errorf("pidfd of decoy %d: %w", pid, err)
		}
		defer unix.Close(fd)
		byFD[int32(fd)] = pid
		if err := unix.EpollCtl(poll, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(fd)}); err != nil {
			return nil, err
		}
	}
	seen, deadline := map[int]time.Time{}, time.Now().Add(within)
	events := make([]unix.EpollEvent, 64)
	for len(seen) < len(pids) && time.Now().Before(deadline) {
		n, err := unix.EpollWait(poll, events, 100)
		if err != nil && err != unix.EINTR {
			return nil, err
		}
		for _, e := range events[:max(n, 0)] {
			pid := byFD[e.Fd]
			seen[pid] = time.Now()
			_ = unix.EpollCtl(poll, unix.EPOLL_CTL_DEL, int(e.Fd), nil)
			l.reap(pid)
		}
	}
	for _, pid := range pids {
		if seen[pid].IsZero() {
			l.put(pid)
		}
	}
	return seen, nil
}

// reap takes a child that has ended out of the table of processes.
func (l *lab) reap(pid int) {
	_, _ = syscall.Wait4(pid, nil, 0, nil)
	delete(l.alive, pid)
}

// put ends a decoy that nobody else has.
func (l *lab) put(pid int) {
	if l.alive[pid] {
		_ = syscall.Kill(pid, syscall.SIGKILL)
		l.reap(pid)
	}
}

// busybox is a small static program; what loads libraries takes longer to start and to end.
func busybox() (string, error) {
	for _, path := range []string{"/bin/busybox", "/usr/bin/busybox"} {
		if st, err := os.Stat(path); err == nil && st.Mode().IsRegular() {
			return path, nil
		}
	}
	return "", fmt.Errorf("no busybox; on Debian: apt-get install busybox-static")
}
