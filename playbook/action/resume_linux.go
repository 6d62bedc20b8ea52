package action

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Probe implements Effect.
func (r *ResumeProcess) Probe(ctx context.Context, env Env) (Receipt, bool, error) {
	target, gone, err := r.held(ctx, env)
	if err != nil {
		return Receipt{}, false, err
	}
	if gone {
		return r.receipt(AlreadyGone, "had exited before"), true, nil
	}
	defer target.close()
	return r.look(env, target)
}

// held holds on to the process. An undo takes back what Riposte itself has done to it, and the
// guard has no say in that: it may be on the allow-list by now, which is why it is undone.
func (r *ResumeProcess) held(ctx context.Context, env Env) (target pidfd, gone bool, err error) {
	if r.Undo {
		return r.Process.look(ctx, env)
	}
	return r.hold(ctx, env)
}

// look says whether the process goes about its business, or nothing is left of the step that
// is undone.
func (r *ResumeProcess) look(env Env, target pidfd) (Receipt, bool, error) {
	lifted, rest, err := r.divide(env)
	if err != nil {
		return Receipt{}, false, err
	}
	now, gone, err := target.threads(int(r.PID))
	switch {
	case err != nil:
		return Receipt{}, false, err
	case gone:
		return r.receipt(AlreadyGone, "had exited before"), true, nil
	case len(lifted) > 0:
		return Receipt{}, false, nil
	case now.runs():
		return r.receipt(Resumed, "was not suspended"), true, nil
	case r.Undo && env.Claims != nil:
		return r.stays(rest), true, nil
	}
	return Receipt{}, false, nil
}

// runs says that nothing keeps the threads from running: a SIGSTOP may wait for one that waits.
func (t threads) runs() bool { return t.held() == 0 && t.waiting == 0 && !t.frozen }

// divide returns the claims that are to go, and those that stay.
func (r *ResumeProcess) divide(env Env) (lifted, rest []suspender, err error) {
	all, _, err := r.suspenders(env)
	for _, s := range all {
		its := s.AlertID == env.AlertID
		if env.Undoes != "" {
			its = s.Key == env.Undoes
		}
		if its || !r.Undo {
			lifted = append(lifted, s)
		} else {
			rest = append(rest, s)
		}
	}
	return lifted, rest, err
}

// stays is about a process that others keep suspended.
func (r *ResumeProcess) stays(rest []suspender) Receipt {
	var alerts []string
	for _, s := range rest {
		if !s.Begun {
			alerts = append(alerts, s.AlertID)
		}
	}
	if alerts == nil {
		return r.receipt(Resumed, "stays suspended, but not by that step: resume_process as a step of its own resumes it")
	}
	return r.receipt(Resumed, "stays suspended, for %q", printable(clip(strings.Join(alerts, " "), maxField)))
}

// Apply implements Effect.
func (r *ResumeProcess) Apply(ctx context.Context, env Env) (Receipt, error) {
	target, gone, err := r.held(ctx, env)
	if err != nil {
		return Receipt{}, err
	}
	if gone {
		return r.receipt(AlreadyGone, "had exited before"), nil
	}
	defer target.close()
	if err := ctx.Err(); err != nil {
		return Receipt{}, fmt.Errorf("%s: not begun: %w", r.Describe(), err)
	}
	if receipt, inPlace, err := r.look(env, target); inPlace || err != nil {
		return receipt, err
	}
	receipt, err := r.lift(ctx, env, target)
	if err != nil {
		return Receipt{}, fmt.Errorf("%s: %w", r.Describe(), err)
	}
	return receipt, nil
}

// lift takes back what was done for the claims that go, and drops them when that was seen: a
// crash in between leaves a claim, by which a successor knows what is to be done.
func (r *ResumeProcess) lift(ctx context.Context, env Env, target pidfd) (Receipt, error) {
	lifted, rest, err := r.divide(env)
	if err != nil {
		return Receipt{}, err
	}
	var done suspension
	var keys []string
	for _, s := range lifted {
		keys = append(keys, s.Key)
		done.takeOver(s.suspension)
	}
	var receipt Receipt
	switch heir, ok := counting(rest); {
	case ok:
		heir.takeOver(done) // who goes last takes all of it back
		if err := heir.put(env, r.target(), false); err != nil {
			return Receipt{}, err
		}
		receipt = r.stays(rest)
	case r.Undo && env.Claims != nil && !done.deeds():
		receipt = r.stays(nil)
	default:
		if receipt, err = r.release(ctx, env, target, done); err != nil {
			return Receipt{}, err
		}
	}
	if len(keys) > 0 {
		if err := env.Claims.Drop(r.target(), keys...); err != nil {
			return Receipt{}, err
		}
	}
	return receipt, nil
}

// counting is a claim whose suspension was seen.
func counting(list []suspender) (suspender, bool) {
	for _, s := range list {
		if !s.Begun {
			return s, true
		}
	}
	return suspender{}, false
}

// release thaws what was frozen and continues what was stopped; whoever did it, where this is
// not an undo.
func (r *ResumeProcess) release(ctx context.Context, env Env, target pidfd, done suspension) (Receipt, error) {
	begun, pid := time.Now(), int(r.PID)
	all := !r.Undo || env.Claims == nil
	how := "it was thawed"
	if all && frozen(pid) {
		if g := r.freezable(ctx, env); g != nil {
			done.freezes(g.groupName)
			g.close()
		}
	}
	if err := thaw(done.Frozen); err != nil {
		return Receipt{}, err
	}
	if all || done.Stopped {
		how = "SIGCONT"
		switch err := target.signal(unix.SIGCONT); {
		case errors.Is(err, unix.ESRCH):
			return r.receipt(AlreadyGone, "exited just before SIGCONT"), nil
		case err != nil:
			return Receipt{}, err
		}
	}
	now, gone, err := target.settle(ctx, pid, stopWait, func(now threads) bool {
		return !now.frozen && (how != "SIGCONT" || now.held() == 0)
	})
	switch {
	case err != nil:
		return Receipt{}, fmt.Errorf("after %s: %w", how, err)
	case gone:
		return r.receipt(AlreadyGone, "exited before it was seen running"), nil
	case now.still():
		return r.receipt(Resumed, "was thawed, and stays stopped by somebody else"), nil
	}
	return r.receipt(Resumed, "was running %s after %s", since(begun), how), nil
}

// freezable opens the group of the process where that holds nobody else but what it has started.
func (r *ResumeProcess) freezable(ctx context.Context, env Env) *group {
	path, err := groupPath(int(r.PID))
	if err != nil {
		return nil
	}
	g, err := openGroup(path)
	if err != nil {
		return nil
	}
	if !g.family(ctx, env, int(r.PID)) {
		g.close()
		return nil
	}
	return g
}
