//go:build unix

package gate

import (
	"fmt"
	"io/fs"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// tryLock takes the file's exclusive lock if it is free. flock(2) belongs to the open
// file description: a child that inherits the descriptor keeps it.
func tryLock(f *os.File) (bool, error) { return tryFlock(f, unix.LOCK_EX) }

// tryShared takes the lock together with others who only look whether it is free.
func tryShared(f *os.File) (bool, error) { return tryFlock(f, unix.LOCK_SH) }

func tryFlock(f *os.File, how int) (bool, error) {
	for {
		switch err := unix.Flock(int(f.Fd()), how|unix.LOCK_NB); err {
		case nil:
			return true, nil
		case unix.EINTR:
		case unix.EWOULDBLOCK:
			return false, nil
		default:
			return false, err
		}
	}
}

func lockWait(f *os.File) error {
	for {
		if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != unix.EINTR {
			return err
		}
	}
}

func fileIdentity(info fs.FileInfo) string {
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		return fmt.Sprint(st.Dev, st.Ino)
	}
	return ""
}

// openFolder creates the folder if need be and refuses one that somebody else could
// write to: whoever can remove a receipt can have an effect repeated.
func openFolder(dir string) (*os.Root, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("create the folder %s: %w; create it, owned by this user with mode 0700, or name another", dir, err)
	}
	info, err := os.Lstat(dir)
	if err != nil {
		return nil, err
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	switch {
	case !info.IsDir():
		return nil, fmt.Errorf("%s is not a folder (a symbolic link will not do)", dir)
	case !ok || int(st.Uid) != os.Geteuid():
		return nil, fmt.Errorf("%s belongs to another user; name a folder of your own", dir)
	case info.Mode().Perm()&0o077 != 0:
		return nil, fmt.Errorf("%s is open to others (mode %04o); chmod 0700 it", dir, info.Mode().Perm())
	}
	if err := checkFilesystem(dir); err != nil {
		return nil, err
	}
	return os.OpenRoot(dir)
}
