package sensor

import (
	"errors"
	"fmt"
	"io/fs"
	"os/user"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"riposte/stream/proc"
)

// ticksPerSecond is USER_HZ, 100 on every architecture Go runs on.
const ticksPerSecond = 100

// identify reads who a process is: one small file.
func identify(pid int) (snapshot, error) {
	st, err := proc.ReadStat(pid)
	if err != nil {
		return snapshot{}, err
	}
	return snapshot{
		pid: pid, ppid: st.PPID, start: st.StartTicks, comm: st.Comm, name: st.Comm,
		kernel: st.KernelThread(), uid: -1, exited: st.Zombie(),
	}, nil
}

// readNames reads what rules compare names with.
func (s *snapshot) readNames() {
	exe, err := proc.ReadExe(s.pid)
	s.exe = exe
	s.exited = s.exited || errors.Is(err, proc.ErrGone)
	if len(s.comm) == 15 {
		s.readCmdline()
	}
	s.index()
}

// readRest reads what is left.
func (s *snapshot) readRest() {
	if s.cmdline == "" {
		s.readCmdline()
	}
	uid, err := proc.UID(s.pid)
	if err != nil {
		s.exited = true
		return
	}
	s.uid = int64(uid)
}

func (s *snapshot) readCmdline() {
	raw, err := proc.Args("/proc/"+strconv.Itoa(s.pid)+"/cmdline", maxCmdline) // which may never answer
	s.exited = s.exited || errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ESRCH)
	s.setCmdline(string(raw))
}

// startedAt is when the process started, to the tick below. It is reckoned back from now,
// so that it compares with other times by the clock that nobody sets.
func (s *snapshot) startedAt() (time.Time, error) {
	var boot unix.Timespec
	now := time.Now()
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &boot); err != nil {
		return time.Time{}, err
	}
	started := time.Duration(s.start) * (time.Second / ticksPerSecond)
	return now.Add(started - time.Duration(boot.Nano())), nil
}

// userName is the name of the owner, empty where there is none.
func (s *snapshot) userName() string {
	u, err := user.LookupId(s.user())
	if err != nil {
		return ""
	}
	return u.Username
}

// startTicks is the start as an alert carries it.
func (s *snapshot) startTicks() uint64 { return s.start }

// machine is what makes a process of this machine one of no other, before and after.
func machine() (bootID string, pidNS uint64, err error) {
	if bootID, err = proc.BootID(); err != nil {
		return "", 0, fmt.Errorf("name of this boot: %w", err)
	}
	pidNS, err = proc.Namespace()
	return bootID, pidNS, err
}
