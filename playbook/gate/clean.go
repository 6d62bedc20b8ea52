package gate

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"time"
)

// Clean removes receipts and target files last written before a time, and says how many.
// Receipts must outlive the ledger entries that could still ask for them. It raises the
// floor first, so that a stale token that would have met a removed receipt meets the floor;
// once, because whoever was granted something before that has to begin anew.
func (g *Gate) Clean(before time.Time) (removed int, err error) {
	for _, root := range []*folder{g.run, g.state} {
		if root == nil {
			continue
		}
		for _, dir := range []string{stepDir, targetDir} {
			n, err := g.cleanFolder(root.Root, dir, before)
			removed += n
			if err != nil {
				return removed, fmt.Errorf("clean the gate: %w", err)
			}
		}
	}
	return removed, nil
}

func (g *Gate) cleanFolder(root *os.Root, dir string, before time.Time) (removed int, err error) {
	entries, err := fs.ReadDir(root.FS(), dir)
	if err != nil {
		return 0, err
	}
	var errs []error
	raised := dir != stepDir // a target's file keeps no token out
	for _, e := range entries {
		name := dir + "/" + e.Name()
		info, err := root.Lstat(name)
		if err != nil || info.ModTime().After(before) {
			continue
		}
		if !raised {
			if err := g.raiseFloor(root, uint64(time.Now().UnixMicro())); err != nil {
				return 0, err
			}
			raised = true
		}
		ok, err := g.cleanFile(root, name, before)
		if err != nil { // one that cannot be read must not keep all the others
			errs = append(errs, err)
		}
		if ok {
			removed++
		}
	}
	return removed, errors.Join(errs...)
}

func (g *Gate) cleanFile(root *os.Root, name string, before time.Time) (bool, error) {
	f, err := root.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		return false, err
	}
	defer f.Close()
	if ok, err := tryLock(f); !ok {
		return false, err // somebody is inside: not old
	}
	mine, err1 := f.Stat()
	there, err2 := root.Lstat(name)
	if err1 != nil || err2 != nil || !os.SameFile(mine, there) {
		return false, nil // removed meanwhile; what has its name now is new
	}
	if mine.ModTime().After(before) {
		return false, nil // somebody was inside since we looked
	}
	r, _, err := readReceipt(f)
	if err != nil {
		return false, err
	}
	if err := g.raiseFloor(root, r.newest.Epoch); err != nil { // above the floor if Redis's clock is ahead
		return false, err
	}
	return true, root.Remove(name)
}

func (g *Gate) raiseFloor(root *os.Root, to uint64) error {
	lock, err := root.OpenFile(floorFile+".lock", os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	defer lock.Close()
	if err := lockWait(lock); err != nil {
		return err
	}
	now, err := readFloor(root)
	if err != nil || now >= to {
		return err
	}
	// Written aside, synced and renamed: a reader never meets half a number, nor none after a
	// power cut.
	f, err := root.OpenFile(floorFile+".new", os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.WriteString(strconv.FormatUint(to, 10) + "\n")
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	return root.Rename(floorFile+".new", floorFile)
}
