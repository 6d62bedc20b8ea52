//go:build !linux

package action

import "context"

// Probe implements Effect. It refuses, see noPidfds.
func (t *TerminateProcess) Probe(ctx context.Context, env Env) (Receipt, bool, error) {
	if err := t.contradiction(); err != nil {
		return Receipt{}, false, err
	}
	return Receipt{}, false, noPidfds("terminate_process")
}

// Apply implements Effect. It refuses as Probe does.
func (t *TerminateProcess) Apply(ctx context.Context, env Env) (Receipt, error) {
	_, _, err := t.Probe(ctx, env)
	return Receipt{}, err
}
