package action

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"

	"riposte/stream/proc"
)

// permitted refuses a file that must stay where it is.
func permitted(env Env, st unix.Stat_t, path string) error {
	var own unix.Stat_t
	if err := unix.Stat("/proc/self/exe", &own); err != nil {
		return Refuse("the executable of this process cannot be told from others: %v", err)
	}
	switch {
	case packaged(path, st):
		return Refuse("%s is a file of the system's: root's, writable by root alone, and in a folder of packages", quoted(path))
	case inodeOf(st) == inodeOf(own):
		return Refuse("%s is Riposte", quoted(path))
	case st.Size > maxFile:
		return Refuse("%s has %d bytes, more than %d", quoted(path), st.Size, maxFile)
	case env.OwnUID && int(st.Uid) != os.Geteuid():
		return Refuse("%s belongs to user %d; with --own-uid only files of user %d are moved", quoted(path), st.Uid, os.Geteuid())
	}
	if g, ok := env.Guard.(FileGuard); ok {
		if err := g.File(path); err != nil {
			return err
		}
	}
	return unprotected(env, inodeOf(st), path)
}

// unprotected refuses a file that a protected process runs.
func unprotected(env Env, id inode, path string) error {
	files, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return err
	}
	for _, file := range files {
		pid, err := strconv.Atoi(filepath.Base(file))
		if err != nil {
			continue
		}
		does, err := runs(pid, id)
		if err != nil && env.OwnUID {
			continue // another user's, who runs no file of this one that the guard would protect
		}
		if err != nil {
			return Refuse("whether PID %d runs %s cannot be told: %v", pid, quoted(path), err)
		}
		if !does {
			continue
		}
		st, err := proc.ReadStat(pid)
		if errors.Is(err, proc.ErrGone) {
			continue
		}
		if err != nil {
			return Refuse("whether PID %d, which runs %s, is protected cannot be told: %v", pid, quoted(path), err)
		}
		err = env.Guard.Process(st)
		if reason, refused := Reason(err); refused {
			if does, err := runs(pid, id); err == nil && !does {
				continue // it has gone meanwhile, or runs another program
			}
			return Refuse("%s is what a protected process runs: %s", quoted(path), reason)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// runs says whether a process runs the file. It asks nothing of the file system of an
// executable, which may be a program that does not answer, or not to root: the file asked
// about is on none of those.
func runs(pid int, id inode) (bool, error) {
	fd, err := unix.Open(fmt.Sprintf("/proc/%d/exe", pid), unix.O_PATH|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ESRCH) {
		return false, nil // it has gone, or is the kernel's
	}
	if err != nil {
		return false, err
	}
	defer unix.Close(fd)
	var st unix.Statx_t
	if err := unix.Statx(fd, "", unix.AT_EMPTY_PATH|unix.AT_STATX_DONT_SYNC, unix.STATX_INO, &st); err != nil {
		return false, nil
	}
	return inode{unix.Mkdev(st.Dev_major, st.Dev_minor), st.Ino} == id, nil
}
