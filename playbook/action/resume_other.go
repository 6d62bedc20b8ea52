//go:build !linux

package action

import "context"

// Probe implements Effect. It refuses, see noPidfds.
func (r *ResumeProcess) Probe(ctx context.Context, env Env) (Receipt, bool, error) {
	if err := r.contradiction(); err != nil {
		return Receipt{}, false, err
	}
	return Receipt{}, false, noPidfds("resume_process")
}

// Apply implements Effect. It refuses as Probe does.
func (r *ResumeProcess) Apply(ctx context.Context, env Env) (Receipt, error) {
	_, _, err := r.Probe(ctx, env)
	return Receipt{}, err
}
