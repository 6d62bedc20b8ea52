//go:build !linux

package action

import (
	"context"
	"runtime"
)

// Probe implements Effect. It refuses: only Linux shows in /proc what there is to collect.
func (c *CollectEvidence) Probe(ctx context.Context, env Env) (Receipt, bool, error) {
	if err := c.check(); err != nil {
		return Receipt{}, false, err
	}
	return Receipt{}, false, Refuse("collect_evidence needs Linux; this is %s", runtime.GOOS)
}

// Apply implements Effect. It refuses as Probe does.
func (c *CollectEvidence) Apply(ctx context.Context, env Env) (Receipt, error) {
	_, _, err := c.Probe(ctx, env)
	return Receipt{}, err
}
