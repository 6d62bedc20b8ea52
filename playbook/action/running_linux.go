package action

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// find looks for the file, and for its process where that is known. What the process runs is
// what is meant, whatever stands at the path.
func (q *QuarantineFile) find(ctx context.Context, env Env, s *scene) error {
	private, err := privateFolders(env)
	if err != nil {
		return err
	}
	s.at, err = openRegular(q.Path, private)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if q.Process == nil {
		return nil
	}
	target, gone, err := q.Process.hold(ctx, env)
	if err != nil || gone {
		return err
	}
	defer target.close()
	pid := int(q.Process.PID)
	self := fmt.Sprintf("/proc/%d/exe", pid)
	link, err1 := os.Readlink(self)
	fd, err2 := unix.Open(self, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err2 == nil {
		defer unix.Close(fd)
	}
	switch gone, err := target.exited(0); {
	case gone || err != nil:
		return err
	case err1 != nil || err2 != nil:
		return Refuse("the executable of PID %d cannot be read: %v", pid, errors.Join(err1, err2))
	case strings.TrimSuffix(link, deleted) != q.Path:
		s.said = fmt.Sprintf("; PID %d runs %s by now", pid, quoted(link))
		return nil // it has become another program since
	}
	if err := checkExe(fd, pid); err != nil {
		return err
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return fmt.Errorf("%s: %w", self, err)
	}
	if s.at != nil && inodeOf(st) == inodeOf(s.at.stat) {
		return nil
	}
	return q.insist(env, s, private, link, fd, st)
}

// insist is about a process whose executable is not at the path.
func (q *QuarantineFile) insist(env Env, s *scene, private []inode, link string, fd int, st unix.Stat_t) error {
	s.another = s.at != nil
	s.at.close()
	s.at = nil
	if link != q.Path { // a name may well end like that of a file which was deleted
		at, err := openRegular(link, private)
		if err == nil && inodeOf(at.stat) == inodeOf(st) {
			s.at = at
			return nil
		}
		if err == nil {
			at.close()
		}
	}
	if link == q.Path && st.Nlink > 0 {
		return Refuse("PID %d runs %s in another mount namespace or under another root, where this responder does not reach", q.Process.PID, quoted(q.Path))
	}
	if err := permitted(env, st, q.Path); err != nil {
		return err
	}
	exe, err := reader(fd)
	if err != nil {
		return fmt.Errorf("executable of PID %d: %w", q.Process.PID, err)
	}
	s.exe, s.stat = exe, st
	s.said = others(uint64(st.Nlink))
	return nil
}
