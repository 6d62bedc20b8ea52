package action

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"riposte/stream/proc"
)

// freezeWait is how long a control group may take to freeze. Only what waits in
// uninterruptible sleep takes longer than a moment, and SIGSTOP does not help with that either.
const freezeWait = time.Second

// groupName names a control group of version 2 for good: the number is not given out again.
type groupName struct {
	Path string `json:"path"` // as /proc/PID/cgroup shows it
	ID   uint64 `json:"id"`   // its inode
}

// group is a control group that is held open: whatever becomes of its path, what was looked at
// is what is frozen.
type group struct {
	groupName
	dir int // O_PATH
}

func (g *group) close() { unix.Close(g.dir) }

// groupPath is where a process is in the hierarchy of version 2.
func groupPath(pid int) (string, error) {
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(string(raw)) {
		if path, ok := strings.CutPrefix(line, "0::"); ok {
			return strings.TrimSuffix(path, "\n"), nil
		}
	}
	return "", errors.New("no control groups of version 2")
}

// groupMount is where this process sees the whole hierarchy of version 2.
func groupMount() (string, error) {
	raw, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return "", err
	}
	if at, ok := parseGroupMount(string(raw)); ok {
		return at, nil
	}
	return "", errors.New("the control groups of version 2 are not mounted here")
}

// parseGroupMount finds it in a /proc/PID/mountinfo, see proc(5).
func parseGroupMount(text string) (string, bool) {
	for line := range strings.Lines(text) {
		head, tail, _ := strings.Cut(line, " - ")
		f := strings.Fields(head)
		if len(f) > 4 && f[3] == "/" && strings.HasPrefix(tail, "cgroup2 ") {
			return strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace(f[4]), true
		}
	}
	return "", false
}

// openGroup opens a control group that is below the mount, and not the mount itself, whose
// processes cannot be frozen; nor outside of the cgroup namespace, whose paths begin with "..".
func openGroup(path string) (*group, error) {
	at, err := groupMount()
	if err != nil {
		return nil, err
	}
	fd, err := unix.Open(at, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", at, err)
	}
	names, below := strings.CutPrefix(path, "/")
	for name := range strings.SplitSeq(names, "/") {
		next, err := -1, error(unix.ENOENT)
		if below && name != "" && name != "." && name != ".." {
			next, err = openat(fd, name, unix.O_PATH|unix.O_DIRECTORY)
		}
		unix.Close(fd)
		if err != nil {
			return nil, fmt.Errorf("control group %s: %w", quoted(path), err)
		}
		fd = next
	}
	var fs unix.Statfs_t
	var st unix.Stat_t
	if err := errors.Join(unix.Fstatfs(fd, &fs), unix.Fstat(fd, &st)); err != nil || fs.Type != unix.CGROUP2_SUPER_MAGIC {
		unix.Close(fd)
		return nil, errors.Join(err, fmt.Errorf("%s is no control group", quoted(path)))
	}
	return &group{groupName{path, st.Ino}, fd}, nil
}

// read reads one of the files of a group.
func (g *group) read(name string) (string, error) {
	fd, err := openat(g.dir, name, unix.O_RDONLY)
	if err != nil {
		return "", err
	}
	f := os.NewFile(uintptr(fd), name)
	defer f.Close()
	const most = 64 << 10
	raw, err := io.ReadAll(io.LimitReader(f, most))
	if len(raw) == most {
		err = fmt.Errorf("%s is too long", name)
	}
	return string(raw), err
}

// keyed is the value of a key in a file of them, such as cgroup.events.
func keyed(text, key string) string {
	for line := range strings.Lines(text) {
		if value, ok := strings.CutPrefix(line, key+" "); ok {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

// set freezes ("1") or thaws ("0").
func (g *group) set(value string) error {
	fd, err := openat(g.dir, "cgroup.freeze", unix.O_WRONLY)
	if err == nil {
		_, err = unix.Write(fd, []byte(value))
		unix.Close(fd)
	}
	return err
}

// procs are the processes in a group that has none below it. It is an error where one of them
// is not in this PID namespace.
func (g *group) procs() ([]int, error) {
	stat, err := g.read("cgroup.stat")
	if err != nil {
		return nil, err
	}
	if n := keyed(stat, "nr_descendants"); n != "0" {
		return nil, fmt.Errorf("it has %q groups below it", n)
	}
	text, err := g.read("cgroup.procs")
	if err != nil {
		return nil, err
	}
	var all []int
	for field := range strings.FieldsSeq(text) {
		pid, err := strconv.Atoi(field)
		if err != nil || pid <= 0 {
			return nil, fmt.Errorf("process %q in it cannot be told", field)
		}
		all = append(all, pid)
	}
	return all, nil
}

// ownGroup opens the control group of a process that has one of its own, in which it is alone
// and which may be frozen by us. Otherwise, and where that cannot be told, it is nil.
func ownGroup(pid int, target pidfd) *group {
	path, err := groupPath(pid)
	if err != nil {
		return nil
	}
	g, err := openGroup(path)
	if err != nil {
		return nil
	}
	fd, err := openat(g.dir, "cgroup.freeze", unix.O_WRONLY)
	if err == nil {
		unix.Close(fd)
		var all []int
		if all, err = g.procs(); err == nil && !slices.Equal(all, []int{pid}) {
			err = errors.New("it is not alone")
		}
	}
	if gone, err2 := target.exited(0); err != nil || gone || err2 != nil {
		g.close()
		return nil
	}
	return g
}

// freeze freezes a group in which a process was alone. What that starts meanwhile is frozen
// with it. It is false, and the group is as it was, where it does not freeze, or somebody else
// was put into it.
func (g *group) freeze(ctx context.Context, env Env, pid int, target pidfd) (bool, error) {
	err := g.set("1")
	if err == nil {
		err = g.await(ctx, target, freezeWait)
	}
	if err == nil && g.family(ctx, env, pid) {
		return true, nil
	}
	cut := ctx.Err()
	if err := g.set("0"); err != nil {
		return false, fmt.Errorf("its control group %s stays frozen; write 0 to cgroup.freeze in it: %w", quoted(g.Path), err)
	}
	if cut != nil {
		return false, fmt.Errorf("its control group %s was not frozen yet: %w", quoted(g.Path), cut)
	}
	return false, nil
}

// await waits until all of a group is frozen, of which the kernel tells by cgroup.events.
func (g *group) await(ctx context.Context, target pidfd, within time.Duration) error {
	fd, err := openat(g.dir, "cgroup.events", unix.O_RDONLY)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	deadline := time.Now().Add(within)
	for text := make([]byte, 4096); ; {
		n, err := unix.Pread(fd, text, 0)
		if err != nil {
			return err
		}
		gone, err := target.exited(0)
		switch {
		case gone || err != nil || keyed(string(text[:n]), "frozen") == "1":
			return err
		case ctx.Err() != nil:
			return ctx.Err()
		case time.Now().After(deadline):
			return fmt.Errorf("not frozen within %s", within)
		}
		fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLPRI}, {Fd: int32(target), Events: unix.POLLIN}}
		if _, err := unix.Poll(fds, int(pollSlice/time.Millisecond)); err != nil && err != unix.EINTR {
			return err
		}
	}
}

// family says that nobody is in a group but a process and what it has started, and that all of
// it may be acted on. They are frozen, so none of that changes while one looks.
func (g *group) family(ctx context.Context, env Env, pid int) bool {
	all, err := g.procs()
	if err != nil {
		return false
	}
	parents := map[int]int{}
	for _, p := range all {
		st, err := proc.ReadStat(p)
		if err != nil {
			return false
		}
		fd, gone, err := Process{PID: int64(p), StartTicks: st.StartTicks}.hold(ctx, env)
		if gone || err != nil {
			return false
		}
		fd.close()
		parents[p] = st.PPID
	}
	for p := range parents {
		for up := 0; p != pid; up++ {
			next, here := parents[p]
			if !here || up > len(parents) {
				return false
			}
			p = next
		}
	}
	return true
}

// frozen says that the control group of a process is frozen, and so the process, by whomever.
// That it is still there is for the caller to see. What cannot be read is taken for running.
func frozen(pid int) bool {
	path, err := groupPath(pid)
	if err != nil {
		return false
	}
	g, err := openGroup(path)
	if err != nil {
		return false
	}
	defer g.close()
	events, err := g.read("cgroup.events")
	again, err2 := groupPath(pid)
	return err == nil && err2 == nil && again == path && keyed(events, "frozen") == "1"
}

// reopen opens a group that was named before; nil where it is no more.
func (n groupName) reopen() (*group, error) {
	g, err := openGroup(n.Path)
	if errors.Is(err, unix.ENOENT) {
		return nil, nil
	}
	if err == nil && g.ID != n.ID {
		g.close()
		return nil, nil
	}
	return g, err
}

// thaw thaws a group, if there still is that.
func (n groupName) thaw() error {
	g, err := n.reopen()
	if g == nil {
		return err
	}
	defer g.close()
	if err := g.set("0"); err != nil {
		if errors.Is(err, unix.ENODEV) || errors.Is(err, unix.ENOENT) {
			return nil // removed just now
		}
		return fmt.Errorf("control group %s stays frozen; write 0 to cgroup.freeze in it: %w", quoted(n.Path), err)
	}
	return nil
}
