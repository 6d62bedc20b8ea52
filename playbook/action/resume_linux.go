package action

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// Probe implements Effect.
func (r *ResumeProcess) Probe(ctx context.Context, env Env) (Receipt, bool, error) {
	target, gone, err := r.hold(ctx, env)
	if err != nil {
		return Receipt{}, false, err
	}
	if gone {
		return r.receipt(AlreadyGone, "had exited before"), true, nil
	}
	defer target.close()
	return r.look(target)
}

// look says whether the process goes about its business.
func (r *ResumeProcess) look(target pidfd) (Receipt, bool, error) {
	now, gone, err := target.threads(int(r.PID))
	switch {
	case err != nil:
		return Receipt{}, false, err
	case gone:
		return r.receipt(AlreadyGone, "had exited before"), true, nil
	case now.held() == 0 && now.waiting == 0: // a SIGSTOP may wait for one that waits
		return r.receipt(Resumed, "was not stopped"), true, nil
	}
	return Receipt{}, false, nil
}

// Apply implements Effect.
func (r *ResumeProcess) Apply(ctx context.Context, env Env) (Receipt, error) {
	target, gone, err := r.hold(ctx, env)
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
	if receipt, inPlace, err := r.look(target); inPlace || err != nil {
		return receipt, err
	}
	begun := time.Now()
	switch err := target.signal(unix.SIGCONT); {
	case errors.Is(err, unix.ESRCH):
		return r.receipt(AlreadyGone, "exited just before SIGCONT"), nil
	case err != nil:
		return Receipt{}, fmt.Errorf("%s: %w", r.Describe(), err)
	}
	_, gone, err = target.settle(ctx, int(r.PID), stopWait, func(now threads) bool { return now.held() == 0 })
	switch {
	case err != nil:
		return Receipt{}, fmt.Errorf("%s: sent SIGCONT, then: %w", r.Describe(), err)
	case gone:
		return r.receipt(AlreadyGone, "exited before it was seen running"), nil
	}
	return r.receipt(Resumed, "was running %s after SIGCONT", since(begun)), nil
}
