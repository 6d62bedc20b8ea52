package action

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"riposte/stream/proc"
)

// exitWait is how long the exit may take after SIGKILL. Only a process in
// uninterruptible sleep takes longer than a moment.
const exitWait = 5 * time.Second

// Probe implements Effect.
func (t *TerminateProcess) Probe(ctx context.Context, env Env) (Receipt, bool, error) {
	target, gone, err := t.grasp(ctx, env)
	if err != nil {
		return Receipt{}, false, err
	}
	if gone {
		return t.receipt(AlreadyGone, "had exited before"), true, nil
	}
	if t.Tree {
		err = t.survey(ctx, env, target)
	}
	return Receipt{}, false, errors.Join(err, target.close())
}

// Apply implements Effect.
func (t *TerminateProcess) Apply(ctx context.Context, env Env) (Receipt, error) {
	target, gone, err := t.grasp(ctx, env)
	if err != nil {
		return Receipt{}, err
	}
	if gone {
		return t.receipt(AlreadyGone, "had exited before"), nil
	}
	defer target.close()
	if err := ctx.Err(); err != nil {
		return Receipt{}, fmt.Errorf("%s: not begun: %w", t.Describe(), err)
	}
	end := t.end
	if t.Tree {
		end = func(ctx context.Context, target pidfd) (Receipt, error) { return t.fell(ctx, env, target) }
	}
	r, err := end(ctx, target)
	if err != nil {
		return Receipt{}, fmt.Errorf("%s: %w", t.Describe(), err)
	}
	_ = forget(env.Claims, t.target()) // it has gone all the same; Reassert tries again
	return r, nil
}

// grasp is hold, after a look at what is asked of it.
func (t *TerminateProcess) grasp(ctx context.Context, env Env) (target pidfd, gone bool, err error) {
	if err := t.contradiction(); err != nil {
		return -1, false, err
	}
	return t.doom(ctx, env)
}

// doom is hold for who means to end the process.
func (t Process) doom(ctx context.Context, env Env) (target pidfd, gone bool, err error) {
	if target, gone, err = t.hold(ctx, env); gone || err != nil {
		return target, gone, err
	}
	if err := t.companions(env, target); err != nil {
		return -1, false, errors.Join(err, target.close())
	}
	return target, false, nil
}

// end signals the process and reports the exit it observed.
func (t *TerminateProcess) end(ctx context.Context, target pidfd) (Receipt, error) {
	begun := time.Now()
	grace := t.Grace > 0
	stopped := grace && target.stopped(int(t.PID))
	if grace && !stopped {
		switch err := target.signal(unix.SIGTERM); {
		case errors.Is(err, unix.ESRCH):
			return t.receipt(AlreadyGone, "exited just before SIGTERM"), nil
		case err != nil:
			return Receipt{}, err
		}
		exited, err := target.wait(ctx, time.Duration(t.Grace))
		if err != nil {
			return Receipt{}, fmt.Errorf("sent SIGTERM, then: %w", err)
		}
		if exited {
			return t.receipt(Terminated, "exited %s after SIGTERM", since(begun)), nil
		}
	}
	switch err := target.signal(unix.SIGKILL); {
	case errors.Is(err, unix.ESRCH) && grace && !stopped:
		return t.receipt(Terminated, "exited %s after SIGTERM", since(begun)), nil
	case errors.Is(err, unix.ESRCH):
		return t.receipt(AlreadyGone, "exited just before SIGKILL"), nil
	case err != nil:
		return Receipt{}, err
	}
	exited, err := target.wait(ctx, exitWait)
	if err != nil {
		return Receipt{}, fmt.Errorf("sent SIGKILL, then: %w", err)
	}
	if !exited {
		return Receipt{}, fmt.Errorf("no exit observed within %s of SIGKILL: is it in uninterruptible sleep (state D in ps)?", exitWait)
	}
	switch {
	case stopped:
		return t.receipt(Killed, "was stopped, so that SIGTERM would not have reached it; exited %s after SIGKILL", since(begun)), nil
	case !grace:
		return t.receipt(Killed, "exited %s after SIGKILL", since(begun)), nil
	}
	return t.receipt(Killed, "outlived SIGTERM by the grace of %s; exited %s after it, by SIGKILL", t.Grace, since(begun)), nil
}

// stopped says that a signal or the freezer keeps the process, which is pid here, from running,
// as suspend_process does: then SIGTERM waits too. Were the process resumed to take it, it would
// run on until it does. What cannot be read is taken for running.
func (fd pidfd) stopped(pid int) bool {
	if st, err := proc.ReadStat(pid); err != nil || st.State != 'T' && !st.Zombie() && !frozen(pid) {
		return false // no look at all of its threads is needed
	}
	now, gone, err := fd.threads(pid)
	return err == nil && !gone && now.still() && now.traced == 0
}

func since(t time.Time) time.Duration { return time.Since(t).Round(time.Millisecond) }
