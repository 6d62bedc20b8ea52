//go:build !linux

package action

import "context"

// Probe implements Effect. It refuses, see noPidfds.
func (s *SuspendProcess) Probe(ctx context.Context, env Env) (Receipt, bool, error) {
	if err := s.contradiction(); err != nil {
		return Receipt{}, false, err
	}
	return Receipt{}, false, noPidfds("suspend_process")
}

// Apply implements Effect. It refuses as Probe does.
func (s *SuspendProcess) Apply(ctx context.Context, env Env) (Receipt, error) {
	_, _, err := s.Probe(ctx, env)
	return Receipt{}, err
}

// forgetProcess has nothing to forget where nobody is suspended.
func forgetProcess(Claimed, string, claims) error { return nil }
