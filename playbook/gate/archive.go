package gate

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
)

// Archive reads a host's receipts from outside, for an audit: it takes no lock, leaves no
// life file and changes nothing.
type Archive struct{ roots []*os.Root }

// OpenArchive opens the folders of a gate. A state folder that is not there holds nothing.
func OpenArchive(runtimeDir, stateDir string) (*Archive, error) {
	a := &Archive{}
	for _, dir := range []string{runtimeDir, stateDir} {
		if dir == "" {
			continue
		}
		root, err := os.OpenRoot(dir)
		if errors.Is(err, fs.ErrNotExist) && dir == stateDir {
			continue
		}
		if err != nil {
			return nil, errors.Join(fmt.Errorf("receipts: %w", err), a.Close())
		}
		a.roots = append(a.roots, root)
	}
	return a, nil
}

// Receipt returns the outcome closed in a step's receipt, empty while it is open, and the
// newest epoch that has passed. ok is false where there is no receipt.
func (a *Archive) Receipt(key string) (outcome string, epoch uint64, ok bool, err error) {
	for _, root := range a.roots {
		f, err := root.Open(stepDir + "/" + hash(key))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return "", 0, false, fmt.Errorf("receipt of %s: %w", key, err)
		}
		r, _, err := readReceipt(f)
		if err = errors.Join(err, f.Close()); err != nil {
			return "", 0, false, fmt.Errorf("receipt of %s: %w", key, err)
		}
		if r.newest.Epoch == 0 && r.closed == nil { // opened, and nothing written yet
			continue
		}
		if r.closed != nil {
			outcome = r.closed.Outcome
		}
		return outcome, r.newest.Epoch, true, nil
	}
	return "", 0, false, nil
}

// Close lets go of the folders.
func (a *Archive) Close() error {
	var errs []error
	for _, root := range a.roots {
		errs = append(errs, root.Close())
	}
	return errors.Join(errs...)
}
