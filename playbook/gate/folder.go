package gate

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"
)

const (
	lifeDir, stepDir, targetDir, claimDir = "life", "steps", "targets", "claims"
	floorFile, idFile                     = "floor", "gate-id"
)

// folder is a runtime or a state folder. The folders of receipts, targets and claims are
// kept open: every step passes through them.
type folder struct {
	*os.Root
	steps, targets, claims *os.Root
}

func openGateFolder(dir string) (*folder, error) {
	root, err := openFolder(dir)
	if err != nil {
		return nil, err
	}
	f := &folder{Root: root}
	for _, dir := range []string{lifeDir, stepDir, targetDir, claimDir} {
		if err := root.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
			return nil, errors.Join(fmt.Errorf("gate: %w", err), f.Close())
		}
	}
	if f.steps, err = root.OpenRoot(stepDir); err == nil {
		f.targets, err = root.OpenRoot(targetDir)
	}
	if err == nil {
		f.claims, err = root.OpenRoot(claimDir)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("gate: %w", err), f.Close())
	}
	return f, nil
}

// Close lets go of the folder and of those in it.
func (f *folder) Close() error {
	err := f.Root.Close()
	for _, dir := range []*os.Root{f.steps, f.targets, f.claims} {
		if dir != nil {
			err = errors.Join(err, dir.Close())
		}
	}
	return err
}

// lock opens and locks the file of a step or target, without waiting.
func lock(dir *os.Root, what string) (*os.File, error) {
	name := hash(what)
	for {
		f, err := dir.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o600)
		if err != nil {
			return nil, fmt.Errorf("gate: %w", err)
		}
		switch ok, err := tryLock(f); {
		case err != nil:
			return nil, errors.Join(fmt.Errorf("lock %s: %w", what, err), f.Close())
		case !ok && fenced:
			r, _, _ := readReceipt(f) // without the lock: a hint at who holds it
			return nil, errors.Join(&BusyError{what, r.holder, r.closed}, f.Close())
		}
		// Somebody may have unlinked the file between our open and our lock.
		mine, err1 := f.Stat()
		there, err2 := dir.Lstat(name)
		if err1 == nil && err2 == nil && os.SameFile(mine, there) {
			return f, nil
		}
		f.Close()
		if err := errors.Join(err1, err2); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("gate: %w", err)
		}
	}
}

// readFloor is the epoch at or below which no token passes, because receipts it could have
// met were removed.
func readFloor(root *os.Root) (uint64, error) {
	raw, err := root.ReadFile(floorFile)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("gate floor: %w", err)
	}
	n, err := parseFloor(raw)
	if err != nil {
		return 0, fmt.Errorf("gate floor: %w; remove %s/%s while no responder runs", err, root.Name(), floorFile)
	}
	return n, nil
}

func parseFloor(raw []byte) (uint64, error) {
	return strconv.ParseUint(strings.TrimSpace(string(raw)), 10, 64)
}

// hash names a file after what it guards, never by an outside string.
func hash(parts ...string) string {
	sum := sha256.Sum256([]byte(strings.Join(parts, "\x00")))
	return hex.EncodeToString(sum[:])
}
