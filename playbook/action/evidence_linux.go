package action

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Probe implements Effect. Evidence is in place where the file of this very step is there,
// complete; and where the process has gone, for there is nothing left to collect.
func (c *CollectEvidence) Probe(ctx context.Context, env Env) (Receipt, bool, error) {
	if err := c.check(); err != nil {
		return Receipt{}, false, err
	}
	folder, err := openEvidence(env)
	if err == nil {
		defer folder.Close()
		if r, ok := c.collected(folder, env); ok {
			return r, true, nil
		}
	} else if !errors.Is(err, fs.ErrNotExist) { // Apply makes it
		return Receipt{}, false, err
	}
	target, gone, err := c.look(ctx, env)
	if err != nil {
		return Receipt{}, false, err
	}
	if gone {
		return c.receipt(AlreadyGone, "had exited before; there is no evidence of it"), true, nil
	}
	return Receipt{}, false, target.close()
}

// Apply implements Effect.
func (c *CollectEvidence) Apply(ctx context.Context, env Env) (Receipt, error) {
	if err := c.check(); err != nil {
		return Receipt{}, err
	}
	if err := ctx.Err(); err != nil {
		return Receipt{}, fmt.Errorf("%s: not begun: %w", c.Describe(), err)
	}
	if err := makeEvidence(env); err != nil {
		return Receipt{}, err
	}
	folder, err := openEvidence(env)
	if err != nil {
		return Receipt{}, err
	}
	defer folder.Close()
	if r, ok := c.collected(folder, env); ok {
		return r, nil
	}
	target, gone, err := c.look(ctx, env)
	if err != nil {
		return Receipt{}, err
	}
	if gone {
		return c.receipt(AlreadyGone, "had exited before; there is no evidence of it"), nil
	}
	defer target.close()
	r, err := c.write(ctx, env, folder, target)
	if err != nil {
		return Receipt{}, fmt.Errorf("%s: %w", c.Describe(), err)
	}
	return r, nil
}

// write collects into a file of another name, which takes its own once it is whole and on
// disk: a later step may end the process, and then there is no second try.
func (c *CollectEvidence) write(ctx context.Context, env Env, folder *os.Root, target pidfd) (r Receipt, err error) {
	if err := enoughRoom(folder, c.MaxSize); err != nil {
		return Receipt{}, err
	}
	sweepEvidence(folder, env.Key)
	name := "." + evidenceStem(env.Key) + "." + rand.Text() + ".tmp"
	file, err := folder.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return Receipt{}, err
	}
	defer func() {
		err = errors.Join(err, file.Close())
		if name != "" {
			err = errors.Join(err, folder.Remove(name))
		}
	}()
	// A writer that lives holds the lock: sweepEvidence tells by it.
	if err := unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return Receipt{}, fmt.Errorf("lock %s: %w", file.Name(), err)
	}
	a, err := c.collect(ctx, env, target, file)
	if err != nil {
		return Receipt{}, err
	}
	if err := ctx.Err(); err != nil { // a stop, or parts that took all the time and more
		return Receipt{}, fmt.Errorf("not finished: %w", context.Cause(ctx))
	}
	if nothing := a.empty(); nothing != nil {
		if gone, err := target.exited(0); err == nil && gone {
			return c.receipt(AlreadyGone, "exited before anything of it was read; there is no evidence of it"), nil
		}
		return Receipt{}, fmt.Errorf("nothing of it can be read: %w", nothing)
	}
	sum, size, err := a.close()
	if err != nil {
		return Receipt{}, err
	}
	if err := file.Sync(); err != nil {
		return Receipt{}, err
	}
	if err := folder.Rename(name, evidenceName(env.Key)); err != nil {
		return Receipt{}, err
	}
	name = ""
	if err := syncFolder(folder); err != nil {
		return Receipt{}, err
	}
	return c.describe(folder, env, a.manifest, sum, size), nil
}

// describe is the receipt for a complete file.
func (c *CollectEvidence) describe(folder *os.Root, env Env, m manifest, sum string, size int64) Receipt {
	var notes strings.Builder
	if !m.Alive {
		notes.WriteString("; it exited meanwhile")
	}
	if m.ExeChanged {
		notes.WriteString("; it ran another executable by the end")
	}
	cut := 0
	for _, part := range m.Members {
		if part.Truncated || part.Error != "" {
			cut++
		}
	}
	if cut > 0 {
		fmt.Fprintf(&notes, "; %d of %d parts are missing or not whole, see its %s", cut, len(m.Members), manifestName)
	}
	return c.receipt(Collected, "in %s, SHA-256 %s, %d bytes%s", filepath.Join(folder.Name(), evidenceName(env.Key)), sum, size, &notes)
}

// collected is the receipt of an earlier attempt whose file is there, complete.
func (c *CollectEvidence) collected(folder *os.Root, env Env) (Receipt, bool) {
	file, err := folder.OpenFile(evidenceName(env.Key), os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return Receipt{}, false
	}
	defer file.Close()
	m, sum, size, err := readArchive(file)
	if err != nil || m.Key != env.Key {
		return Receipt{}, false
	}
	// Whoever renamed it may have died before the folder was synced.
	if err := syncFolder(folder); err != nil {
		return Receipt{}, false
	}
	return c.describe(folder, env, m, sum, size), true
}

var errNoState = errors.New("evidence is kept below the state folder, and there is none: set --state-dir")

// makeEvidence makes the folder of evidence, if need be.
func makeEvidence(env Env) error {
	if env.State == "" {
		return errNoState
	}
	if err := os.Mkdir(filepath.Join(env.State, evidenceDir), 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("state folder: %w", err)
	}
	return nil
}

// openEvidence opens the folder of evidence, which is this user's alone.
func openEvidence(env Env) (*os.Root, error) {
	if env.State == "" {
		return nil, errNoState
	}
	dir, err := filepath.Abs(filepath.Join(env.State, evidenceDir)) // the reason of an outcome names it
	if err != nil {
		return nil, fmt.Errorf("state folder: %w", err)
	}
	st, err := os.Lstat(dir)
	if err != nil {
		return nil, fmt.Errorf("state folder: %w", err)
	}
	if !st.IsDir() || st.Mode().Perm()&0o077 != 0 {
		return nil, fmt.Errorf("%s is %s: want a folder that is this user's alone (chmod 700)", dir, st.Mode())
	}
	return os.OpenRoot(dir)
}

// enoughRoom says no where evidence of the full size would not fit: half a file would be
// evidence of nothing, and a full disk harms others.
func enoughRoom(folder *os.Root, want Size) error {
	if free, err := room(folder); err != nil || free < int64(want) {
		return errors.Join(err, fmt.Errorf("the file system of %s has %d MiB left, less than max_size (%s): remove evidence that was copied elsewhere, or lower max_size",
			folder.Name(), free>>20, want))
	}
	return nil
}

// spare is what files that are kept leave free on the file system of the state folder: claims
// and receipts are written there, without which nothing is done any more.
const spare = 32 << 20

// room is how many bytes there is room for on a folder's file system, but for the spare ones.
func room(folder *os.Root) (int64, error) {
	dir, err := folder.Open(".")
	if err != nil {
		return 0, err
	}
	defer dir.Close()
	var st unix.Statfs_t
	if err := unix.Fstatfs(int(dir.Fd()), &st); err != nil {
		return 0, fmt.Errorf("look at the file system of %s: %w", folder.Name(), err)
	}
	return max(0, int64(st.Bavail)*int64(st.Bsize)-spare), nil
}

// sweepEvidence removes what writers of the same step have left behind that died.
func sweepEvidence(folder *os.Root, key string) {
	dir, err := folder.Open(".")
	if err != nil {
		return
	}
	defer dir.Close()
	names, _ := dir.Readdirnames(-1)
	for _, name := range names {
		if !strings.HasPrefix(name, "."+evidenceStem(key)+".") || !strings.HasSuffix(name, ".tmp") {
			continue
		}
		file, err := folder.OpenFile(name, os.O_WRONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
		if err != nil {
			continue
		}
		if unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB) == nil {
			_ = folder.Remove(name) // what is left takes room, and does no other harm
		}
		file.Close()
	}
}

func syncFolder(folder *os.Root) error {
	dir, err := folder.Open(".")
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

// patience is how long one read of what belongs to the process may take. It can withhold its
// own memory and files, by a file system of its own for one.
const patience = 2 * time.Second

// within runs a read and waits for it for at most d, and no longer than ctx. One that does not
// come back is left to itself, for nothing can be done about it: it keeps a thread until the
// kernel has an answer, and what it reads is dropped.
func within[T any](ctx context.Context, d time.Duration, read func() (T, error)) (T, error) {
	type answer struct {
		value T
		err   error
	}
	answers := make(chan answer, 1)
	go func() {
		value, err := read()
		answers <- answer{value, err}
	}()
	timer := time.NewTimer(d)
	defer timer.Stop()
	var none T
	select {
	case a := <-answers:
		return a.value, a.err
	case <-timer.C:
		return none, fmt.Errorf("no answer within %s", d)
	case <-ctx.Done():
		return none, context.Cause(ctx)
	}
}
