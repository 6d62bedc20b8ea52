package action

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Probe implements Effect.
func (r *RestoreFile) Probe(ctx context.Context, env Env) (Receipt, bool, error) {
	s, err := r.look(ctx, env)
	if err != nil {
		return Receipt{}, false, err
	}
	defer s.close()
	return r.judge(s)
}

// Apply implements Effect.
func (r *RestoreFile) Apply(ctx context.Context, env Env) (Receipt, error) {
	s, err := r.look(ctx, env)
	if err != nil {
		return Receipt{}, err
	}
	defer s.close()
	if receipt, inPlace, err := r.judge(s); inPlace || err != nil {
		return receipt, err
	}
	if err := ctx.Err(); err != nil {
		return Receipt{}, fmt.Errorf("%s: not begun: %w", r.Describe(), err)
	}
	if !s.back && !s.settled {
		if err := s.putBack(ctx); err != nil {
			return Receipt{}, fmt.Errorf("%s: %w", r.Describe(), err)
		}
	}
	if err := s.settle(ctx); err != nil {
		return Receipt{}, fmt.Errorf("%s: it is where it was, but still in the vault: %w", r.Describe(), err)
	}
	after, err := r.look(ctx, env)
	if err != nil {
		return Receipt{}, fmt.Errorf("look whether %s is back: %w", quoted(s.was.Path), err)
	}
	defer after.close()
	receipt, inPlace, err := r.judge(after)
	receipt.Reason += s.lacks
	if err == nil && !inPlace {
		err = fmt.Errorf("%s: not observed afterwards", r.Describe())
	}
	return receipt, err
}

// shelf is what a restore found: the entry of the vault, and whether the file is back.
type shelf struct {
	*entry
	was     *deposit
	settled bool   // the manifest says that it was restored
	content bool   // is still there
	back    bool   // the content stands where it was
	lacks   string // what it could not be given
}

func (s *shelf) close() { s.entry.close() }

// look finds the entry, and refuses where something else stands in the way.
func (r *RestoreFile) look(ctx context.Context, env Env) (*shelf, error) {
	if err := r.check(); err != nil {
		return nil, err
	}
	e, err := r.find(env)
	if err != nil {
		return nil, err
	}
	s := &shelf{entry: e}
	if err := s.load(ctx, r.Path); err != nil {
		s.close()
		return nil, err
	}
	return s, nil
}

func (s *shelf) load(ctx context.Context, path string) (err error) {
	if s.was, s.settled, err = s.entry.either(); err != nil {
		return err
	}
	switch {
	case s.was == nil:
		return Refuse("entry %s of the vault is not complete: what it is about was not quarantined", s.name)
	case path != "" && !s.was.about(path):
		return Refuse("entry %s of the vault is about %s, not %s", s.name, quoted(s.was.Path), quoted(path))
	case s.was.From == fromProcess:
		return Refuse("nothing was at %s when it was quarantined: its content, which a process ran, stays in entry %s of the vault", quoted(s.was.Path), s.name)
	}
	_, err = s.Lstat(contentFile)
	if s.content = err == nil; err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("vault: %w", err)
	}
	if s.settled {
		return nil // what became of the file since is another matter
	}
	at, err := openRegular(s.was.Path, nil)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer at.close()
	if at.stat.Size == s.was.Size {
		digest, err := (&scene{at: at}).digest(ctx)
		if err != nil {
			return err
		}
		mode, err := s.was.mode()
		if err != nil {
			return err
		}
		s.back = digest == s.was.SHA256
		if s.back && (at.stat.Uid != s.was.UID || at.stat.Gid != s.was.GID || at.stat.Mode&0o7777 != mode) {
			return Refuse("a file of the same content stands at %s, but was %s of %d:%d and is %o of %d:%d: move it away first",
				quoted(s.was.Path), s.was.Mode, s.was.UID, s.was.GID, at.stat.Mode&0o7777, at.stat.Uid, at.stat.Gid)
		}
	}
	if !s.back {
		return Refuse("another file stands at %s: move it away first", quoted(s.was.Path))
	}
	return nil
}

// judge says whether the file is back, and no more in the vault.
func (r *RestoreFile) judge(s *shelf) (Receipt, bool, error) {
	if !s.settled || s.content {
		return Receipt{}, false, nil
	}
	return Receipt{Restored, fmt.Sprintf("%s, %d bytes of SHA-256 %s, mode %s of user %d", quoted(s.was.Path), s.was.Size, s.was.SHA256, s.was.Mode, s.was.UID)}, true, nil
}

// find opens the entry that is asked for. Of those of this alert there should be one.
func (r *RestoreFile) find(env Env) (*entry, error) {
	if r.Entry != "" {
		e, err := openEntry(env, r.Entry, false)
		if errors.Is(err, fs.ErrNotExist) {
			return nil, Refuse("there is no entry %s in the vault", r.Entry)
		}
		return e, err
	}
	vault, err := openVault(env, false)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, Refuse("the vault is empty")
	}
	if err != nil {
		return nil, err
	}
	defer vault.Close()
	dir, err := vault.Open(".")
	if err != nil {
		return nil, fmt.Errorf("vault: %w", err)
	}
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return nil, fmt.Errorf("vault: %w", err)
	}
	var found []string
	for _, name := range names {
		mine, err := r.mine(env, name)
		if err != nil {
			return nil, err
		}
		if mine {
			found = append(found, name)
		}
	}
	switch len(found) {
	case 0:
		return nil, Refuse("nothing of %s was quarantined for this alert", quoted(r.Path))
	case 1:
		return openEntry(env, found[0], false)
	}
	return nil, Refuse("%s was quarantined more than once for this alert; say which by `entry`: %s", quoted(r.Path), clip(strings.Join(found, ", "), 1000))
}

// mine says whether an entry is about the path and was made for this alert.
func (r *RestoreFile) mine(env Env, name string) (bool, error) {
	if !hexDigest.MatchString(name) {
		return false, nil
	}
	e, err := openEntry(env, name, false)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer e.close()
	m, _, err := e.either()
	if err != nil {
		return false, err
	}
	return m != nil && m.Alert == env.AlertID && m.about(r.Path), nil
}

// either reads the manifest of an entry, by whichever name it has. It is nil where the entry is
// not complete.
func (e *entry) either() (m *deposit, restored bool, err error) {
	if m, err = e.read(manifestFile); m != nil || err != nil {
		return m, false, err
	}
	m, err = e.read(restoredFile)
	return m, true, err
}

// about says whether a path meant this file: a name may end like that of a deleted one.
func (m *deposit) about(path string) bool {
	return m.Path == path || m.Path == path+deleted
}

// putBack makes the file again, unseen until it is whole, and gives it its name if nothing else
// has that.
func (s *shelf) putBack(ctx context.Context) error {
	at, err := openPlace(s.was.Path, nil)
	if errors.Is(err, fs.ErrNotExist) {
		return Refuse("the folder of %s is gone: make it again first", quoted(s.was.Path))
	}
	if err != nil {
		return err
	}
	defer at.close()
	content, err := s.Open(contentFile)
	if err != nil {
		return fmt.Errorf("vault: %w", err)
	}
	defer content.Close()
	fd, err := unix.Openat(at.dir, ".", unix.O_TMPFILE|unix.O_WRONLY|unix.O_CLOEXEC, 0o600)
	if errors.Is(err, unix.EOPNOTSUPP) {
		return Refuse("the file system of %s knows no files without a name: copy %s/%s/%s of the state folder there by hand", quoted(s.was.Path), vaultDir, s.name, contentFile)
	}
	if err != nil {
		return fmt.Errorf("make a file: %w", err)
	}
	f := os.NewFile(uintptr(fd), s.was.Path)
	defer f.Close()
	if err := s.fill(ctx, f, content); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("written, but without a name: %w", err)
	}
	err = unix.Linkat(unix.AT_FDCWD, "/proc/self/fd/"+strconv.Itoa(fd), at.dir, at.name, unix.AT_SYMLINK_FOLLOW)
	switch {
	case errors.Is(err, unix.EEXIST):
		return Refuse("another file stands at %s: move it away first", quoted(s.was.Path))
	case err != nil:
		return fmt.Errorf("link %s: %w", quoted(s.was.Path), err)
	}
	return at.sync()
}

// fill gives a file the content and all else that the manifest has of it.
func (s *shelf) fill(ctx context.Context, f *os.File, content io.Reader) error {
	digest, size, err := copyHashed(ctx, f, content)
	if err != nil {
		return fmt.Errorf("copy out of the vault: %w", err)
	}
	if digest != s.was.SHA256 || size != s.was.Size {
		return Refuse("the content in entry %s of the vault is not what was put there: SHA-256 %s, want %s", s.name, digest, s.was.SHA256)
	}
	mode, err := s.was.mode()
	if err != nil {
		return err
	}
	fd := int(f.Fd())
	if err := unix.Fchown(fd, int(s.was.UID), int(s.was.GID)); err != nil {
		return fmt.Errorf("chown to %d:%d: %w", s.was.UID, s.was.GID, err)
	}
	// After chown, which takes setuid and file capabilities away; and before chmod, for the
	// access list changes the mode.
	if s.lacks, err = s.was.give(fd); err != nil {
		return err
	}
	if err := unix.Fchmod(fd, mode); err != nil {
		return fmt.Errorf("chmod to %s: %w", s.was.Mode, err)
	}
	when, err := unix.TimeToTimespec(s.was.ModTime)
	if err == nil {
		err = unix.UtimesNanoAt(unix.AT_FDCWD, "/proc/self/fd/"+strconv.Itoa(fd), []unix.Timespec{when, when}, 0)
	}
	return errors.Join(err, f.Sync())
}

// settle takes the content out of the vault. The manifest stays, under another name, and says
// that the file was restored.
func (s *shelf) settle(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if !s.settled {
		if err := s.Rename(manifestFile, restoredFile); err != nil {
			return err
		}
		if err := syncRoot(s.Root); err != nil {
			return err
		}
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	return s.remove(contentFile)
}
