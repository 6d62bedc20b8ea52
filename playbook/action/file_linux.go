package action

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// inode names a file for as long as it is held open; afterwards the number is given out again.
type inode struct{ dev, ino uint64 }

func inodeOf(st unix.Stat_t) inode { return inode{uint64(st.Dev), st.Ino} }

// place is where a file is, or may be: the folder is held, and none on the way to it was a
// symbolic link.
type place struct {
	path string
	dir  int // O_PATH
	name string
}

// openPlace goes to the folder of a path, one name after the other. Whoever may write to one
// of the folders can change what is there at any moment, but not lead astray. It returns
// fs.ErrNotExist where there is no such folder, and refuses those in private and all of a
// user's own making. The caller closes the place.
func openPlace(path string, private []inode) (place, error) {
	names := strings.Split(path[1:], "/")
	p := place{path: path, name: names[len(names)-1]}
	mounts, err := readMounts("/proc/self")
	if err != nil {
		return p, err
	}
	fd, err := unix.Open("/", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return p, fmt.Errorf("/: %w", err)
	}
	for i, name := range names {
		// Before anything is asked of it: some file systems never answer.
		if err = mounts.check(fd); err == nil {
			err = notOneOf(fd, private)
		}
		if err != nil {
			break
		}
		if i == len(names)-1 {
			p.dir = fd
			return p, nil
		}
		next, err2 := openat(fd, name, unix.O_PATH|unix.O_DIRECTORY)
		if err2 != nil {
			err = notFolder(fd, name, err2)
			break
		}
		unix.Close(fd)
		fd = next
	}
	unix.Close(fd)
	if reason, refused := Reason(err); refused {
		return p, Refuse("%s: %s", quoted(path), reason)
	}
	return p, fmt.Errorf("%s: %w", quoted(path), err)
}

func (p place) close() { unix.Close(p.dir) }

// openat opens what has a name in a folder, and never follows a symbolic link.
func openat(dir int, name string, flags int) (fd int, err error) {
	for {
		fd, err = unix.Openat(dir, name, flags|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		if err != unix.EINTR {
			return fd, err
		}
	}
}

// notFolder says why something could not be entered.
func notFolder(dir int, name string, err error) error {
	var st unix.Stat_t
	switch {
	case errors.Is(err, unix.ENAMETOOLONG):
		return Refuse("%q is too long for a name", clip(name, 80))
	case !errors.Is(err, unix.ENOTDIR) && !errors.Is(err, unix.ELOOP):
		return err
	case unix.Fstatat(dir, name, &st, unix.AT_SYMLINK_NOFOLLOW) == nil && st.Mode&unix.S_IFMT == unix.S_IFLNK:
		return Refuse("%q is a symbolic link; give the path that it leads to", clip(name, 80))
	}
	return fs.ErrNotExist // a file, in which there is none
}

func notOneOf(fd int, private []inode) error {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	if slices.Contains(private, inodeOf(st)) {
		return Refuse("it is in a folder of Riposte's own")
	}
	return nil
}

// file is a regular file at its place. It is held: the inode stays its own.
type file struct {
	place
	fd   int // O_PATH
	stat unix.Stat_t
}

// openRegular opens what is at a path, without any right to read it. It returns fs.ErrNotExist
// where there is nothing, and refuses what is no regular file.
func openRegular(path string, private []inode) (*file, error) {
	at, err := openPlace(path, private)
	if err != nil {
		return nil, err
	}
	f, err := at.open()
	if err != nil {
		at.close()
		if reason, refused := Reason(err); refused {
			return nil, Refuse("%s: %s", quoted(path), reason)
		}
		return nil, fmt.Errorf("%s: %w", quoted(path), err)
	}
	return f, nil
}

// open opens the file at a place, which is then the file's to close.
func (p place) open() (*file, error) {
	fd, err := openat(p.dir, p.name, unix.O_PATH)
	switch {
	case errors.Is(err, unix.ENAMETOOLONG):
		return nil, Refuse("its name is too long")
	case err != nil:
		return nil, err
	}
	f := &file{place: p, fd: fd}
	mounts, err := readMounts("/proc/self")
	if err == nil {
		err = mounts.check(fd)
	}
	if err == nil {
		err = unix.Fstat(fd, &f.stat)
	}
	if err == nil && f.stat.Mode&unix.S_IFMT != unix.S_IFREG {
		err = Refuse("it is %s, no regular file", kindOf(f.stat.Mode))
	}
	if err != nil {
		unix.Close(fd)
		return nil, err
	}
	return f, nil
}

func (f *file) close() {
	if f != nil {
		unix.Close(f.fd)
		f.place.close()
	}
}

func kindOf(mode uint32) string {
	switch mode & unix.S_IFMT {
	case unix.S_IFLNK:
		return "a symbolic link"
	case unix.S_IFDIR:
		return "a folder"
	case unix.S_IFCHR, unix.S_IFBLK:
		return "a device"
	case unix.S_IFIFO:
		return "a pipe"
	}
	return "a socket"
}

// there says whether the name still is this very file's.
func (f *file) there() (bool, error) {
	var st unix.Stat_t
	err := unix.Fstatat(f.dir, f.name, &st, unix.AT_SYMLINK_NOFOLLOW)
	if errors.Is(err, unix.ENOENT) {
		return false, nil
	}
	return err == nil && inodeOf(st) == inodeOf(f.stat), err
}

// unlink removes the name, if it still is this very file's. Whoever may write to the folder
// can put another file there in between, but only one that he could remove as well.
func (f *file) unlink() error {
	there, err := f.there()
	if err != nil {
		return fmt.Errorf("look at %s again: %w", quoted(f.path), err)
	}
	if !there {
		return fmt.Errorf("%s was replaced while it was looked at", quoted(f.path))
	}
	err = unix.Unlinkat(f.dir, f.name, 0)
	switch {
	case errors.Is(err, unix.EPERM):
		return fmt.Errorf("unlink %s: %w; is it immutable, or its folder append-only (lsattr)? then chattr -i -a", quoted(f.path), err)
	case err != nil:
		return fmt.Errorf("unlink %s: %w", quoted(f.path), err)
	}
	return f.place.sync()
}

// sync makes what was done to the name outlive a power cut.
func (p place) sync() error {
	fd, err := unix.Openat(p.dir, ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err == nil {
		err = errors.Join(unix.Fsync(fd), unix.Close(fd))
	}
	if err != nil {
		return fmt.Errorf("sync the folder of %s: %w", quoted(p.path), err)
	}
	return nil
}

// reader opens a file that is held by an O_PATH descriptor for reading, and leaves no trace in
// its access time where that is allowed.
func reader(fd int) (*os.File, error) {
	self := "/proc/self/fd/" + strconv.Itoa(fd)
	const flags = unix.O_RDONLY | unix.O_NONBLOCK | unix.O_CLOEXEC // not to wait for a lease
	r, err := unix.Open(self, flags|unix.O_NOATIME, 0)
	if errors.Is(err, unix.EPERM) {
		r, err = unix.Open(self, flags, 0)
	}
	if err != nil {
		return nil, fmt.Errorf("open for reading: %w", err)
	}
	return os.NewFile(uintptr(r), self), nil
}

// born is when the inode was made, in nanoseconds, or 0 where the file system does not say. It
// tells a file from a later one that was given the same number.
func born(fd int) int64 {
	var st unix.Statx_t
	err := unix.Statx(fd, "", unix.AT_EMPTY_PATH|unix.AT_STATX_DONT_SYNC, unix.STATX_BTIME, &st)
	if err != nil || st.Mask&unix.STATX_BTIME == 0 {
		return 0
	}
	return st.Btime.Sec*int64(time.Second) + int64(st.Btime.Nsec)
}

// packaged says that a file is one of the system's: root's, writable by root alone, and in a
// folder that only packages write to.
func packaged(path string, st unix.Stat_t) bool {
	const othersWrite = 0o022
	if st.Uid != 0 || st.Mode&othersWrite != 0 {
		return false
	}
	top, _, _ := strings.Cut(path[1:], "/")
	return slices.Contains([]string{"usr", "bin", "sbin", "etc", "boot"}, top) || strings.HasPrefix(top, "lib")
}

// privateFolders are the folders of Riposte's own that no effect reaches into: that of what
// effects keep, and the gate's, in which its locked files are.
func privateFolders(env Env) (list []inode, err error) {
	folders := []string{env.State}
	for _, f := range env.Locks {
		name, err := os.Readlink("/proc/self/fd/" + strconv.Itoa(int(f.Fd())))
		if err != nil {
			return nil, fmt.Errorf("the gate's folder: %w", err)
		}
		folders = append(folders, filepath.Dir(filepath.Dir(name))) // in steps/ or targets/
	}
	for _, folder := range folders {
		var st unix.Stat_t
		if err := unix.Stat(folder, &st); err != nil {
			return nil, fmt.Errorf("folder %s: %w", folder, err)
		}
		list = append(list, inodeOf(st))
	}
	return list, nil
}
