//go:build !linux

package action

import (
	"context"
	"runtime"
)

// Probe implements Effect. It refuses: only on Linux a file is held on to between the look
// and the move.
func (q *QuarantineFile) Probe(ctx context.Context, env Env) (Receipt, bool, error) {
	if err := q.check(); err != nil {
		return Receipt{}, false, err
	}
	return Receipt{}, false, Refuse("quarantine_file needs Linux; this is %s", runtime.GOOS)
}

// Apply implements Effect. It refuses as Probe does.
func (q *QuarantineFile) Apply(ctx context.Context, env Env) (Receipt, error) {
	_, _, err := q.Probe(ctx, env)
	return Receipt{}, err
}
