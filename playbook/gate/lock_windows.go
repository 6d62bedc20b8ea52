package gate

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"golang.org/x/sys/windows"
)

// tryLock locks one byte far beyond the file's content: locks on Windows are mandatory,
// and a peer must be able to read who holds it.
func tryLock(f *os.File) (bool, error) {
	return tryByte(f, windows.LOCKFILE_EXCLUSIVE_LOCK)
}

// tryShared takes the lock together with others who only look whether it is free.
func tryShared(f *os.File) (bool, error) { return tryByte(f, 0) }

func tryByte(f *os.File, how uint32) (bool, error) {
	err := lockByte(f, how|windows.LOCKFILE_FAIL_IMMEDIATELY)
	if errors.Is(err, windows.ERROR_LOCK_VIOLATION) || errors.Is(err, windows.ERROR_IO_PENDING) {
		return false, nil
	}
	return err == nil, err
}

func lockWait(f *os.File) error { return lockByte(f, windows.LOCKFILE_EXCLUSIVE_LOCK) }

func lockByte(f *os.File, flags uint32) error {
	at := windows.Overlapped{OffsetHigh: 1 << 20}
	return windows.LockFileEx(windows.Handle(f.Fd()), flags, 0, 1, 0, &at)
}

func fileIdentity(info fs.FileInfo) string { return info.Name() }

func openFolder(dir string) (*os.Root, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("create the folder %s: %w", dir, err)
	}
	return os.OpenRoot(dir)
}
