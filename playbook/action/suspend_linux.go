package action

import (
	"context"
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
	return s.look(target)
}

// look says whether the process is suspended, whoever did it.
func (s *SuspendProcess) look(target pidfd) (Receipt, bool, error) {
	now, gone, err := target.threads(int(s.PID))
	switch {
	case err != nil:
		return Receipt{}, false, err
	case gone:
		return s.receipt(AlreadyGone, "had exited before"), true, nil
	case now.still():
		return s.receipt(Suspended, "was found stopped%s", now), true, nil
	}
	return Receipt{}, false, nil
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
	if r, inPlace, err := s.look(target); inPlace || err != nil {
		return r, err
	}
	begun := time.Now()
	now, gone, err := target.stop(ctx, int(s.PID))
	switch {
	case err != nil:
		return Receipt{}, fmt.Errorf("%s: %w", s.Describe(), err)
	case gone:
		return s.receipt(AlreadyGone, "exited before it was seen stopped"), nil
	}
	return s.receipt(Suspended, "stopped %s after SIGSTOP%s", since(begun), now), nil
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
