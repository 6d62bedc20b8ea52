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
	"time"

	"golang.org/x/sys/unix"
)

// Probe implements Effect.
func (q *QuarantineFile) Probe(ctx context.Context, env Env) (Receipt, bool, error) {
	s, err := q.look(ctx, env)
	if err != nil {
		return Receipt{}, false, err
	}
	defer s.close()
	if r, inPlace := q.judge(s); inPlace {
		return r, true, nil
	}
	if q.SHA256 == "" || s.kept() {
		return Receipt{}, false, nil
	}
	digest, err := s.digest(ctx)
	if err == nil && digest != strings.ToLower(q.SHA256) {
		err = Refuse("the SHA-256 of %s is %s, not %s", quoted(q.Path), digest, q.SHA256)
	}
	return Receipt{}, false, err
}

// Apply implements Effect.
func (q *QuarantineFile) Apply(ctx context.Context, env Env) (Receipt, error) {
	s, err := q.look(ctx, env)
	if err != nil {
		return Receipt{}, err
	}
	defer s.close()
	if r, inPlace := q.judge(s); inPlace {
		return r, nil
	}
	if err := ctx.Err(); err != nil {
		return Receipt{}, fmt.Errorf("%s: not begun: %w", q.Describe(), err)
	}
	if !s.kept() {
		if err := q.keep(ctx, env, s); err != nil {
			return Receipt{}, fmt.Errorf("%s: %w", q.Describe(), err)
		}
	}
	if err := ctx.Err(); err != nil {
		return Receipt{}, fmt.Errorf("%s: copied into the vault, but not removed: %w", q.Describe(), err)
	}
	more := ""
	if s.at != nil {
		more = s.at.changed() + others(uint64(s.at.stat.Nlink)-1)
		if err := s.at.unlink(); err != nil {
			return Receipt{}, fmt.Errorf("%s: %w", q.Describe(), err)
		}
	}
	after, err := q.look(ctx, env)
	if err != nil {
		return Receipt{}, fmt.Errorf("look whether %s is gone: %w", quoted(q.Path), err)
	}
	defer after.close()
	r, inPlace := q.judge(after)
	if !inPlace {
		return Receipt{}, fmt.Errorf("%s: it is there again: something puts it back", q.Describe())
	}
	r.Reason += more + s.said
	return r, nil
}

// changed says that the file was written to since it was opened.
func (f *file) changed() string {
	var now unix.Stat_t
	if err := unix.Fstat(f.fd, &now); err == nil && now.Mtim == f.stat.Mtim && now.Size == f.stat.Size {
		return ""
	}
	return "; it was written to while it was copied, so that the copy may be of no one moment"
}

// others says that a file has more names, which nobody can find but by a search of the whole
// file system.
func others(n uint64) string {
	if n == 0 {
		return ""
	}
	return fmt.Sprintf("; it has %d more names (hard links), which are still there", n)
}

// scene is what an effect found: the file, or what its process runs where the file has gone,
// and what the vault holds of this step.
type scene struct {
	at      *file       // what is to be removed; nil where nothing is
	another bool        // something else stands there
	exe     *os.File    // the content, where there is no file any more
	stat    unix.Stat_t // of exe
	said    string      // about the process
	held    *deposit    // in the vault
	same    bool        // at has the content that is in the vault
}

// kept says that what is there is in the vault already.
func (s *scene) kept() bool { return s.held != nil && s.same }

func (s *scene) close() {
	s.at.close()
	if s.exe != nil {
		s.exe.Close()
	}
}

// look finds out all there is to know, and refuses what must not be touched.
func (q *QuarantineFile) look(ctx context.Context, env Env) (*scene, error) {
	if err := q.check(); err != nil {
		return nil, err
	}
	if env.State == "" {
		return nil, Refuse("there is no folder to keep files in: set --state-dir")
	}
	s := new(scene)
	e, err := openEntry(env, entryName(env.Key), false)
	if err == nil {
		var restored bool
		s.held, restored, err = e.either()
		e.close()
		switch {
		case s.held != nil && !s.held.about(q.Path): // the alert's ID was used before
			return nil, Refuse("entry %s of the vault is about %s: move it away first", entryName(env.Key), quoted(s.held.Path))
		case s.held != nil && restored: // what was undone does not come back
			return nil, Refuse("%s was quarantined by this very step before, and restored", quoted(q.Path))
		}
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	if s.held != nil {
		err = q.compare(ctx, env, s)
	} else {
		err = q.find(ctx, env, s)
	}
	if err == nil && s.at != nil {
		err = permitted(env, s.at.stat, s.at.path)
	}
	if err != nil {
		s.close()
		return nil, err
	}
	return s, nil
}

// compare looks what stands where the file was taken from.
func (q *QuarantineFile) compare(ctx context.Context, env Env, s *scene) error {
	private, err := privateFolders(env)
	if err != nil {
		return err
	}
	at, err := openRegular(s.held.Path, private)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if _, refused := Reason(err); refused {
		s.another = true // a folder, say, which it was not
		return nil
	}
	if err != nil {
		return err
	}
	s.at = at
	if at.stat.Size == s.held.Size {
		digest, err := s.digest(ctx)
		if err != nil {
			return err
		}
		s.same = digest == s.held.SHA256
	}
	// The same file with other content was written to since it was copied. A number alone does
	// not tell: it may have been given out again.
	old := s.held
	if !s.same && (inodeOf(at.stat) != inode{old.Device, old.Inode} || born(at.fd) != old.Born) {
		at.close()
		s.at, s.another = nil, true
	}
	return nil
}

// judge says whether the file is in the vault and not where it was, or there was none.
func (q *QuarantineFile) judge(s *scene) (Receipt, bool) {
	switch {
	case s.held != nil && s.at == nil:
		reason := fmt.Sprintf("%s, %d bytes of SHA-256 %s", quoted(s.held.Path), s.held.Size, s.held.SHA256)
		if s.held.From == fromProcess {
			reason += ", of the process that ran it: nothing had been left of it there"
		}
		if s.held.Left > 0 {
			reason += fmt.Sprintf("; %d or more of its extended attributes were not kept: they are too long", s.held.Left)
		}
		if s.another {
			reason += "; another file stands there by now"
		}
		return Receipt{Quarantined, reason + "; entry " + entryName(s.held.Key) + " of the vault"}, true
	case s.held == nil && s.at == nil && s.exe == nil:
		return Receipt{AlreadyGone, "there is no " + quoted(q.Path) + s.said}, true
	}
	return Receipt{}, false
}

// keep copies what was found into the vault.
func (q *QuarantineFile) keep(ctx context.Context, env Env, s *scene) error {
	e, err := openEntry(env, entryName(env.Key), true)
	if err != nil {
		return err
	}
	defer e.close()
	m := &deposit{Path: q.Path, From: fromProcess, Alert: env.AlertID, Key: env.Key}
	st, content := s.stat, s.exe
	if s.at != nil {
		if content, err = reader(s.at.fd); err != nil {
			return err
		}
		defer content.Close()
		m.Path, m.From, st, m.Born = s.at.path, fromPath, s.at.stat, born(s.at.fd)
	}
	if free, err := room(e.vault); err != nil || free < st.Size {
		return errors.Join(err, fmt.Errorf("%s has %d bytes, and there is room for %d in the state folder: remove entries of its vault that nobody needs",
			quoted(m.Path), st.Size, free), e.drop())
	}
	m.UID, m.GID, m.Mode = st.Uid, st.Gid, strconv.FormatUint(uint64(st.Mode&0o7777), 8)
	m.ModTime, m.Device, m.Inode = time.Unix(st.Mtim.Unix()).UTC(), uint64(st.Dev), st.Ino
	if err := m.note(int(content.Fd())); err != nil {
		return err
	}
	if err := e.keep(ctx, io.NewSectionReader(content, 0, maxFile+1), m, strings.ToLower(q.SHA256)); err != nil {
		if _, refused := Reason(err); refused {
			err = errors.Join(err, e.drop())
		}
		return err
	}
	return nil
}

// digest is the SHA-256 of what was found.
func (s *scene) digest(ctx context.Context) (string, error) {
	content := s.exe
	if s.at != nil {
		r, err := reader(s.at.fd)
		if err != nil {
			return "", fmt.Errorf("%s: %w", quoted(s.at.path), err)
		}
		defer r.Close()
		content = r
	}
	digest, _, err := copyHashed(ctx, io.Discard, io.NewSectionReader(content, 0, maxFile+1))
	return digest, err
}
