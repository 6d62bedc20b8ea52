package action

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"riposte/stream/proc"
)

// startTolerance is how far a start time on the wall clock may be off: two ticks.
const startTolerance = 20 * time.Millisecond

// hold opens the target and checks all there is to check, in the one order that proves
// something: what was read by PID was read of the process behind the descriptor only if
// that process is still there afterwards. gone means that there is nothing left to act
// on; otherwise, and without an error, the caller closes the descriptor. Only for a process
// that is exiting does it wait.
func (t Process) hold(ctx context.Context, env Env) (target pidfd, gone bool, err error) {
	return t.open(ctx, env, env.Guard.Process)
}

// look is hold without the guard, for who only reads: the floor is under what is done to a
// process, not under what is known of it.
func (t Process) look(ctx context.Context, env Env) (target pidfd, gone bool, err error) {
	return t.open(ctx, env, func(proc.Stat) error { return nil })
}

func (t Process) open(ctx context.Context, env Env, allowed func(proc.Stat) error) (target pidfd, gone bool, err error) {
	if err := t.contradiction(); err != nil {
		return -1, false, err
	}
	if err := t.elsewhere(); err != nil {
		return -1, false, err
	}
	fd, err := unix.PidfdOpen(int(t.PID), 0)
	switch {
	case errors.Is(err, unix.ESRCH):
		return -1, true, nil
	case errors.Is(err, unix.EINVAL), errors.Is(err, unix.ENOENT): // up to and from Linux 6.9
		return -1, false, Refuse("PID %d is a thread, not a process", t.PID)
	case err != nil:
		return -1, false, fmt.Errorf("pidfd_open of PID %d (needs Linux 5.3): %w", t.PID, err)
	}
	target = pidfd(fd)
	verdict := t.verify(env, allowed)
	leaving := verdict != nil && exiting(int(t.PID))
	gone, err = target.exited(0)
	if leaving && !gone && err == nil {
		// What was killed a moment ago shows no executable while the kernel takes it down. A
		// refusal would stand for good.
		verdict = fmt.Errorf("PID %d is exiting and has not gone within %s; so far: %v", t.PID, exitWait, verdict)
		gone, err = target.wait(ctx, exitWait)
	}
	if err == nil && !gone {
		err = verdict
	}
	if gone || err != nil {
		return -1, gone, errors.Join(err, target.close())
	}
	return target, false, nil
}

// exiting says that all of a process is on its way out. The first thread may exit and leave
// the others to live on; it is a zombie then.
func exiting(pid int) bool {
	st, err := proc.ReadStat(pid)
	if err != nil || !st.Zombie() {
		return err == nil && st.Exiting()
	}
	tasks, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
	return err == nil && !slices.ContainsFunc(tasks, func(task os.DirEntry) bool {
		tid, _ := strconv.Atoi(task.Name())
		st, err := proc.ReadStat(tid)
		return err == nil && !st.Exiting()
	})
}

// elsewhere refuses an alert whose PID was numbered in another namespace or boot.
func (t Process) elsewhere() error {
	if self, err := os.Readlink("/proc/self"); err != nil || self != strconv.Itoa(os.Getpid()) {
		return Refuse("/proc does not show this process under its own PID %d: mount the /proc of this PID namespace", os.Getpid())
	}
	if t.PIDNS != 0 {
		own, err := proc.Namespace()
		if err != nil {
			return Refuse("the PID namespace cannot be told: %v", err)
		}
		if own != t.PIDNS {
			return Refuse("PID %d is numbered in PID namespace %d; this responder acts in %d", t.PID, t.PIDNS, own)
		}
	}
	if t.BootID != "" {
		own, err := proc.BootID()
		if err != nil {
			return Refuse("the boot ID cannot be read: %v", err)
		}
		if !strings.EqualFold(own, t.BootID) {
			return Refuse("PID %d is of another boot of this host", t.PID)
		}
	}
	return nil
}

// verify compares the process with the alert and then asks whether it may be acted on.
func (t Process) verify(env Env, allowed func(proc.Stat) error) error {
	st, err := proc.ReadStat(int(t.PID))
	if err != nil {
		return Refuse("the identity of PID %d cannot be read: %v", t.PID, err)
	}
	if t.StartTicks == 0 {
		err = t.plausible(st)
	} else if st.StartTicks != t.StartTicks {
		err = Refuse("PID %d was reused: the alert's process started at tick %d, this one at tick %d", t.PID, t.StartTicks, st.StartTicks)
	}
	if err != nil {
		return err
	}
	if env.OwnUID {
		uid, err := proc.UID(st.PID)
		if err != nil {
			return Refuse("the user of PID %d cannot be read: %v", t.PID, err)
		}
		if own := os.Geteuid(); uid != own {
			return Refuse("PID %d belongs to user %d; with --own-uid only processes of user %d are acted on", t.PID, uid, own)
		}
	}
	return allowed(st)
}

// plausible stands in for the start ticks that a foreign detector does not know: the
// process must have been there when the alert was seen, and look as the alert says.
func (t Process) plausible(st proc.Stat) error {
	started, err := st.StartTime()
	if err != nil {
		return Refuse("the start of PID %d cannot be told: %v", t.PID, err)
	}
	if err := t.startedInTime(started); err != nil {
		return err
	}
	if t.Name != "" {
		info, err := proc.Read(st.PID)
		if err != nil {
			return Refuse("the name of PID %d cannot be read: %v", t.PID, err)
		}
		// Clipped as the plan is: a process that gives itself an endless name keeps it.
		if t.Name != clip(info.Name, maxField) && t.Name != info.Comm {
			return Refuse("PID %d was reused or has changed: it is %q, the alert says %q", t.PID, clip(info.Name, 80), clip(t.Name, 80))
		}
	}
	if t.Exe != "" {
		exe, err := proc.ReadExe(st.PID)
		if err != nil {
			return Refuse("the executable of PID %d cannot be read: %v", t.PID, err)
		}
		if strings.TrimSuffix(t.Exe, " (deleted)") != exe {
			return Refuse("PID %d was reused or has changed: it runs %q, the alert says %q", t.PID, clip(exe, 80), clip(t.Exe, 80))
		}
	}
	return nil
}

// startedInTime compares the start with when the alert was seen.
func (t Process) startedInTime(started time.Time) error {
	if t.SeenUntil.IsZero() {
		return Refuse("the alert says neither when PID %d started nor when it was seen", t.PID)
	}
	if late := started.Sub(t.SeenUntil); late >= startTolerance {
		return Refuse("PID %d was reused: this process started %s after the alert", t.PID, late.Round(time.Millisecond))
	}
	return nil
}
