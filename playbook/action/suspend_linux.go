package action

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Probe implements Effect.
func (s *SuspendProcess) Probe(ctx context.Context, env Env) (Receipt, bool, error) {
	target, gone, err := s.hold(ctx, env)
	if err != nil {
		return Receipt{}, false, err
	}
	if gone {
		return s.receipt(AlreadyGone, "had exited before"), true, nil
	}
	defer target.close()
	return s.look(env, target)
}

// look says whether the process is suspended, whoever did it, and this step's claim counts.
func (s *SuspendProcess) look(env Env, target pidfd) (Receipt, bool, error) {
	now, gone, err := target.threads(int(s.PID))
	switch {
	case err != nil:
		return Receipt{}, false, err
	case gone:
		return s.receipt(AlreadyGone, "had exited before"), true, nil
	case !now.still():
		return Receipt{}, false, nil
	}
	if env.Claims != nil {
		list, own, err := s.suspenders(env)
		if err != nil {
			return Receipt{}, false, err
		}
		if claim, ok := claimOf(list, own.Key); !ok || claim.Begun {
			return Receipt{}, false, nil
		}
	}
	return s.found(now), true, nil
}

func (s *SuspendProcess) found(now threads) Receipt {
	if now.frozen {
		return s.receipt(Suspended, "was found frozen, with its control group")
	}
	return s.receipt(Suspended, "was found stopped%s", now)
}

// Apply implements Effect.
func (s *SuspendProcess) Apply(ctx context.Context, env Env) (Receipt, error) {
	target, gone, err := s.hold(ctx, env)
	if err != nil {
		return Receipt{}, err
	}
	if gone {
		return s.receipt(AlreadyGone, "had exited before"), nil
	}
	defer target.close()
	if err := ctx.Err(); err != nil {
		return Receipt{}, fmt.Errorf("%s: not begun: %w", s.Describe(), err)
	}
	if r, inPlace, err := s.look(env, target); inPlace || err != nil {
		return r, err
	}
	r, err := s.enforce(ctx, env, target)
	if err != nil {
		return Receipt{}, fmt.Errorf("%s: %w", s.Describe(), err)
	}
	return r, nil
}

// enforce writes down a claim, which says what is done, before it does that, and lets it count
// once the process was seen suspended. So a crash leaves nothing, or what a successor completes.
func (s *SuspendProcess) enforce(ctx context.Context, env Env, target pidfd) (Receipt, error) {
	if err := forget(env.Claims, s.target()); err != nil {
		return Receipt{}, err
	}
	list, own, err := s.suspenders(env)
	if err != nil {
		return Receipt{}, err
	}
	if claim, again := claimOf(list, own.Key); again {
		own = claim
		if err := s.inspect(ctx, env, own, target); err != nil {
			return Receipt{}, err
		}
	}
	now, gone, err := target.threads(int(s.PID))
	var r Receipt
	switch {
	case err != nil:
		return Receipt{}, err
	case gone:
	case now.still():
		r = s.found(now)
	default:
		r, gone, err = s.hinder(ctx, env, &own, target)
	}
	if err != nil {
		return Receipt{}, err
	}
	if gone {
		return s.receipt(AlreadyGone, "exited before it was seen suspended"), errors.Join(thaw(own.Frozen), forget(env.Claims, s.target()))
	}
	return r, own.put(env, s.target(), false)
}

// inspect looks at the groups that a predecessor has frozen who may have died before he did:
// the one that holds others is thawed.
func (s *SuspendProcess) inspect(ctx context.Context, env Env, own suspender, target pidfd) error {
	for _, name := range own.Frozen {
		g, err := name.reopen()
		if err != nil {
			return err
		}
		if g == nil {
			continue
		}
		mine := g.family(ctx, env, int(s.PID))
		g.close()
		if !mine {
			if err := name.thaw(); err != nil {
				return err
			}
		}
	}
	return nil
}

// hinder keeps the process from running: by the freezer where it has a control group of its
// own, which nobody undoes by a signal, and else by SIGSTOP.
func (s *SuspendProcess) hinder(ctx context.Context, env Env, own *suspender, target pidfd) (r Receipt, gone bool, err error) {
	begun, pid := time.Now(), int(s.PID)
	if g := ownGroup(pid, target); g != nil {
		defer g.close()
		with := *own
		with.freezes(g.groupName)
		if err := with.put(env, s.target(), true); err != nil {
			return Receipt{}, false, err
		}
		done, err := g.freeze(ctx, env, pid, target)
		if err != nil {
			return Receipt{}, false, err
		}
		if done {
			*own = with
			now, gone, err := target.threads(pid)
			if gone || err != nil || now.still() {
				return s.receipt(Suspended, "frozen within %s, with its control group %s", since(begun), quoted(g.Path)), gone, err
			}
		}
	}
	own.Stopped = true
	if err := own.put(env, s.target(), true); err != nil {
		return Receipt{}, false, err
	}
	now, gone, err := target.stop(ctx, pid)
	return s.receipt(Suspended, "stopped %s after SIGSTOP%s", since(begun), now), gone, err
}

// claimOf is the claim of a step.
func claimOf(list []suspender, key string) (suspender, bool) {
	for _, s := range list {
		if s.Key == key {
			return s, true
		}
	}
	return suspender{}, false
}

// String is what a reason adds about stopped threads.
func (t threads) String() string {
	text := ""
	if t.held() > 1 {
		text = fmt.Sprintf(", all %d threads of it", t.held())
	}
	if t.traced > 0 {
		text += fmt.Sprintf("; %d held by a debugger, which may let them go", t.traced)
	}
	return text
}
