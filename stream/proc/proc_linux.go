package proc

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// InitialPIDNamespace is the inode of the PID namespace the kernel started with
// (PROC_PID_INIT_INO in include/linux/proc_ns.h).
const InitialPIDNamespace = 4026531836

// ticksPerSecond is USER_HZ, 100 on every architecture Go runs on.
const ticksPerSecond = 100

// BootID is the random name of this boot.
var BootID = sync.OnceValues(func() (string, error) {
	raw, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	return string(bytes.TrimSpace(raw)), err
})

// Namespace is the inode of the PID namespace that numbers the PIDs this process sees.
var Namespace = sync.OnceValues(func() (uint64, error) {
	var st unix.Stat_t
	if err := unix.Stat("/proc/self/ns/pid", &st); err != nil {
		return 0, fmt.Errorf("read own PID namespace: %w", err)
	}
	return st.Ino, nil
})

// ReadStat reads /proc/PID/stat. It returns ErrGone where there is no such process.
func ReadStat(pid int) (Stat, error) {
	var line [2048]byte // more than the kernel writes: 50 numbers of 20 digits and a name of 64 bytes at most
	n, err := readOnce(file(pid, "stat"), line[:])
	if err != nil {
		return Stat{}, gone(err)
	}
	return parseStat(line[:n])
}

// readOnce reads a file of a few bytes by one read(2), which is how the kernel gives them out
// whole. It takes half the system calls of os.ReadFile.
func readOnce(path string, into []byte) (n int, err error) {
	fd, err := retry(func() (int, error) { return unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0) })
	if err != nil {
		return 0, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	defer unix.Close(fd)
	if n, err = retry(func() (int, error) { return unix.Read(fd, into) }); err != nil {
		return 0, &fs.PathError{Op: "read", Path: path, Err: err}
	}
	return n, nil
}

func retry(call func() (int, error)) (n int, err error) {
	for {
		if n, err = call(); err != unix.EINTR {
			return n, err
		}
	}
}

// parseStat reads the line from its end backwards: the second field is in parentheses and
// may itself hold spaces and parentheses, because a process chooses its own name.
func parseStat(raw []byte) (Stat, error) {
	open, shut := bytes.IndexByte(raw, '('), bytes.LastIndexByte(raw, ')')
	if open < 1 || shut < open {
		return Stat{}, fmt.Errorf("stat line without a name: %q", raw)
	}
	fields := strings.Fields(string(raw[shut+1:]))
	if len(fields) < 20 {
		return Stat{}, fmt.Errorf("stat line with %d fields: %q", len(fields), raw)
	}
	pid, err1 := strconv.Atoi(strings.TrimSpace(string(raw[:open])))
	ppid, err2 := strconv.Atoi(fields[1])
	flags, err3 := strconv.ParseUint(fields[6], 10, 64)
	ticks, err4 := strconv.ParseUint(fields[19], 10, 64)
	if err := errors.Join(err1, err2, err3, err4); err != nil {
		return Stat{}, fmt.Errorf("stat line: %w", err)
	}
	return Stat{PID: pid, Comm: string(raw[open+1 : shut]), State: fields[0][0], PPID: ppid, Flags: flags, StartTicks: ticks}, nil
}

// Read describes a process. Exe is empty where it may not be read or there is none; use
// ReadExe where the difference matters.
func Read(pid int) (Info, error) {
	st, err := ReadStat(pid)
	if err != nil {
		return Info{}, err
	}
	info := Info{Stat: st, Name: st.Comm}
	info.Exe, _ = ReadExe(pid)
	cmdline, err := Args(file(pid, "cmdline"), maxArgs)
	if err != nil {
		return Info{}, gone(err)
	}
	if len(cmdline) > 0 {
		info.Argv = strings.Split(strings.TrimSuffix(string(cmdline), "\x00"), "\x00")
		// Comm is cut at 15 bytes; argv[0] is the caller's word, so it only extends Comm.
		if base := path.Base(info.Argv[0]); len(st.Comm) == 15 && strings.HasPrefix(base, st.Comm) {
			info.Name = base
		}
	}
	if info.UID, err = UID(pid); err != nil {
		return Info{}, err
	}
	return info, nil
}

const (
	maxArgs  = 2 << 20         // bytes: as many as a program can be started with, where the stack may have 8 MiB
	patience = 2 * time.Second // for what is a matter of microseconds
)

// Args reads a file such as /proc/PID/cmdline, at most so many bytes of it. The kernel reads them
// from where in its memory the process says that they are. So they may be without an end; and
// who keeps that memory locked is waited for in vain: such a read is left behind, with its thread.
func Args(path string, most int64) ([]byte, error) {
	type answer struct {
		raw []byte
		err error
	}
	answers := make(chan answer, 1)
	go func() {
		f, err := os.Open(path)
		if err != nil {
			answers <- answer{nil, err}
			return
		}
		defer f.Close()
		raw, err := io.ReadAll(io.LimitReader(f, most))
		answers <- answer{raw, err}
	}()
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case a := <-answers:
		return a.raw, a.err
	case <-timer.C:
		return nil, fmt.Errorf("%s: no answer within %s", path, patience)
	}
}

// UID is the owner of a process: its effective user.
func UID(pid int) (int, error) {
	var st unix.Stat_t
	if err := unix.Stat(file(pid, ""), &st); err != nil {
		return 0, gone(err)
	}
	return int(st.Uid), nil
}

// ReadExe is the path of the executable, as the kernel shows it; " (deleted)" is cut off.
// Another process's takes CAP_SYS_PTRACE, even at the same user if it is not dumpable.
func ReadExe(pid int) (string, error) {
	exe, err := os.Readlink(file(pid, "exe"))
	return strings.TrimSuffix(exe, " (deleted)"), gone(err)
}

// StartTime is when the process started, on the wall clock, exact to about 20 ms. The
// boot time in /proc/stat has whole seconds, so it is taken from the clocks instead.
func (s Stat) StartTime() (time.Time, error) {
	var real, boot unix.Timespec
	if err := errors.Join(unix.ClockGettime(unix.CLOCK_REALTIME, &real), unix.ClockGettime(unix.CLOCK_BOOTTIME, &boot)); err != nil {
		return time.Time{}, err
	}
	started := time.Duration(s.StartTicks) * (time.Second / ticksPerSecond)
	return time.Unix(0, real.Nano()-boot.Nano()).Add(started), nil
}

// Ancestors are the PIDs of a process's parent, grandparent and so on, up to PID 1 of
// this namespace. A chain that breaks because a process exits ends early.
func Ancestors(pid int) []int {
	var up []int
	for range 1 << 12 { // longer than any real chain; a reused PID could close a loop
		st, err := ReadStat(pid)
		if err != nil || st.PPID == 0 {
			return up
		}
		pid = st.PPID
		up = append(up, pid)
	}
	return up
}

func file(pid int, name string) string { return "/proc/" + strconv.Itoa(pid) + "/" + name }

func gone(err error) error {
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ESRCH) {
		return fmt.Errorf("%w: %w", ErrGone, err)
	}
	return err
}
