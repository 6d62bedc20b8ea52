package guard

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"riposte/stream/proc"
)

const (
	mostSummed = 512 << 20 // bytes of an executable: reading more would keep its alert waiting
	mostArgs   = 64 << 10  // bytes: a process can make them as many as it likes
	mostSums   = 64        // that are remembered
	// settled is how long a file must not have changed before its sum is remembered: two changes
	// within one tick of the clock bear the same time.
	settled = 2 * time.Second
)

// process is a subject that lives. Its executable is open, and all the rest is read of a
// thread that runs it: a first thread that has exited tells nothing any more.
type process struct {
	executable
	st   proc.Stat
	sums *sums
}

func newSubject(st proc.Stat, sums *sums) (process, error) {
	exe, err := openExe(st)
	return process{exe, st, sums}, err
}

func (p process) close() { unix.Close(p.fd) }

func (p process) called(name string) (bool, error) {
	if p.st.Comm == name {
		return true, nil
	}
	base, err := p.name()
	return base == name, err
}

func (p process) uid() (int, error) {
	status, err := os.ReadFile(p.task + "/status")
	if err != nil {
		return 0, err
	}
	return parseUID(status)
}

func (p process) cgroups() ([]string, error) {
	raw, err := os.ReadFile(p.task + "/cgroup")
	if err != nil {
		return nil, err
	}
	return parseCgroups(raw)
}

// parentCalled reads the parent between two looks at whose child the process is: only then it
// was its parent, and not somebody who got the PID later.
func (p process) parentCalled(name string) (bool, error) {
	for ppid := p.st.PPID; ; {
		if ppid == 0 {
			return false, errors.New("its parent is outside of this PID namespace")
		}
		is, err := bears(ppid, name)
		again, gone := proc.ReadStat(p.st.PID)
		if gone != nil {
			return false, gone
		}
		if again.PPID == ppid {
			return is, err
		}
		ppid = again.PPID // its parent has exited: each time one that is further up
	}
}

func bears(pid int, name string) (bool, error) {
	st, err := proc.ReadStat(pid)
	if err != nil || st.Comm == name || st.KernelThread() {
		return st.Comm == name && err == nil, err
	}
	exe, err := openExe(st)
	if err != nil {
		return false, err
	}
	defer unix.Close(exe.fd)
	base, err := exe.name()
	return base == name, err
}

func (p process) runs(exe string) (bool, error) {
	path, err := p.path()
	if err != nil {
		return false, err
	}
	if path != exe {
		// The kernel knows what a link led to: /bin/cat runs as /usr/bin/cat.
		if to, err := filepath.EvalSymlinks(exe); err != nil || to != path {
			return false, nil
		}
	}
	return p.rooted()
}

// rooted says that the file is where root has put it. Its path says nothing else: anyone may
// mount what he likes over any path, in namespaces of his own, see rootMounted; and whoever has
// left his root, by chroot(2), shows no mount above his own, so that those of this process count
// as well.
func (p process) rooted() (bool, error) {
	info, err := os.ReadFile("/proc/self/fdinfo/" + strconv.Itoa(p.fd))
	if err != nil {
		return false, err
	}
	own, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return false, err
	}
	if here, err := parseMounted(info, own); here || err != nil {
		return here, err
	}
	return p.rootMounted()
}

func (p process) cmdline() (string, error) {
	raw, err := proc.Args(p.task+"/cmdline", mostArgs)
	return strings.ReplaceAll(strings.TrimSuffix(string(raw), "\x00"), "\x00", " "), err
}

// sum reads the executable through the descriptor: what the process runs, whatever stands at its
// path by now. Nothing is asked of a file system that a user may have made, for it may never
// answer.
func (p process) sum() (string, error) {
	if ok, err := p.rooted(); err != nil || !ok {
		return "", err
	}
	id, err := p.version()
	if err != nil || id.size > mostSummed {
		return "", err
	}
	if sum, ok := p.sums.get(id); ok {
		return sum, nil
	}
	f, err := os.Open("/proc/self/fd/" + strconv.Itoa(p.fd))
	if err != nil {
		return "", err
	}
	defer f.Close()
	begun := time.Now()
	h := sha256.New()
	if _, err := io.Copy(h, io.LimitReader(f, mostSummed)); err != nil {
		return "", err
	}
	sum := hex.EncodeToString(h.Sum(nil))
	after, err := p.version()
	if err != nil {
		return "", err
	}
	if after == id && begun.Sub(time.Unix(0, id.changed)) > settled {
		p.sums.put(id, sum)
	}
	return sum, nil // whoever keeps changing his file is not spared for that
}

// version is a file with the content that it has now. The time of change is in it because
// nobody can set that, as anybody can the time of modification.
type version struct {
	dev, ino          uint64
	size              int64
	modified, changed int64
}

func (p process) version() (version, error) {
	var st unix.Stat_t
	if err := unix.Fstat(p.fd, &st); err != nil {
		return version{}, err
	}
	return version{st.Dev, st.Ino, st.Size, st.Mtim.Nano(), st.Ctim.Nano()}, nil
}

// sums remembers those of files.
type sums struct {
	mu    sync.Mutex
	known map[version]string
}

func (s *sums) get(id version) (string, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	sum, ok := s.known[id]
	return sum, ok
}

func (s *sums) put(id version, sum string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.known == nil || len(s.known) >= mostSums {
		s.known = map[version]string{}
	}
	s.known[id] = sum
}

// parseCgroups reads the control groups in a /proc/PID/cgroup that nobody gets into by himself:
// that of version 2, and the one in the hierarchy of systemd.
func parseCgroups(raw []byte) (all []string, err error) {
	for line := range strings.Lines(string(raw)) {
		f := strings.SplitN(strings.TrimSuffix(line, "\n"), ":", 3)
		if len(f) == 3 && (f[0] == "0" && f[1] == "" || f[1] == "name=systemd") {
			if strings.HasPrefix(f[2], "/..") {
				return nil, errors.New("its control group is outside of the cgroup namespace of this process (docker run --cgroupns=host)")
			}
			all = append(all, strings.TrimSuffix(f[2], " (deleted)"))
		}
	}
	if all == nil {
		return nil, errors.New("it is in no control group of version 2, nor in one of systemd's")
	}
	return all, nil
}
