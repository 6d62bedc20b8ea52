//go:build !linux

package action

import (
	"context"
	"runtime"
)

// Probe implements Effect. It refuses: only a Linux pidfd holds on to a process between
// the look and the signal.
func (t *TerminateProcess) Probe(ctx context.Context, env Env) (Receipt, bool, error) {
	if err := t.contradiction(); err != nil {
		return Receipt{}, false, err
	}
	return Receipt{}, false, Refuse("terminate_process needs Linux pidfds; this is %s", runtime.GOOS)
}

// Apply implements Effect. It refuses as Probe does.
func (t *TerminateProcess) Apply(ctx context.Context, env Env) (Receipt, error) {
	_, _, err := t.Probe(ctx, env)
	return Receipt{}, err
}
