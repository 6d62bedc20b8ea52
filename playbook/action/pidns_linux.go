package action

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"riposte/stream/proc"
)

// companions refuses to end the init of a PID namespace in which somebody is protected: the
// kernel ends with it all that are in there, whosever children they are, see pid_namespaces(7).
func (t Process) companions(env Env, target pidfd) error {
	numbers, err := pidNumbers(int(t.PID))
	if err == nil && (len(numbers) < 2 || numbers[len(numbers)-1] != "1") {
		return nil
	}
	if err == nil {
		err = t.unaccompanied(env, len(numbers))
	}
	if gone, failed := target.exited(0); gone || failed != nil {
		return failed // what was read is of nobody, and nobody will be signalled
	}
	return err
}

// unaccompanied looks at all that are in the PID namespace of an init, which is so many levels
// below the first that this process sees.
func (t Process) unaccompanied(env Env, levels int) error {
	var own unix.Stat_t
	if err := unix.Stat(fmt.Sprintf("/proc/%d/ns/pid", t.PID), &own); err != nil {
		return Refuse("PID %d is the init of a PID namespace that cannot be told: %v", t.PID, err)
	}
	files, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return err
	}
	for _, file := range files {
		pid, err := strconv.Atoi(filepath.Base(file))
		if err != nil || pid == int(t.PID) {
			continue
		}
		// Most processes are in none of those below, which anybody may read.
		numbers, err := pidNumbers(pid)
		if errors.Is(err, proc.ErrGone) || err == nil && len(numbers) < levels {
			continue
		}
		within := false
		if err == nil {
			within, err = inPIDNamespace(pid, inodeOf(own), len(numbers)-levels)
		}
		var st proc.Stat
		if err == nil && within {
			if st, err = proc.ReadStat(pid); err == nil {
				err = env.Guard.Process(st)
			}
		}
		if err == nil || errors.Is(err, proc.ErrGone) || exiting(pid) {
			continue
		}
		reason, refused := Reason(err)
		if !refused {
			reason = err.Error()
		}
		return Refuse("PID %d is the init of a PID namespace, with which all end that are in it: %s", t.PID, reason)
	}
	return nil
}

// pidNumbers are those that a process has, in this PID namespace and in each of those below it
// that it is in.
func pidNumbers(pid int) ([]string, error) {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return nil, lost(err)
	}
	for line := range strings.Lines(string(status)) {
		if numbers, ok := strings.CutPrefix(line, "NSpid:"); ok {
			return strings.Fields(numbers), nil
		}
	}
	return nil, nil // a kernel without PID namespaces
}

// inPIDNamespace says whether a process is in a PID namespace, or in one so many levels below.
func inPIDNamespace(pid int, ns inode, below int) (bool, error) {
	fd, err := unix.Open(fmt.Sprintf("/proc/%d/ns/pid", pid), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	for ; err == nil && below > 0; below-- {
		var parent int
		parent, err = unix.IoctlRetInt(fd, unix.NS_GET_PARENT)
		unix.Close(fd)
		fd = parent
	}
	if err != nil {
		return false, lost(fmt.Errorf("the PID namespace of PID %d: %w", pid, err))
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	err = unix.Fstat(fd, &st)
	return err == nil && inodeOf(st) == ns, err
}

// lost is proc.ErrGone where a file in /proc says so.
func lost(err error) error {
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ESRCH) {
		return errors.Join(proc.ErrGone, err)
	}
	return err
}
