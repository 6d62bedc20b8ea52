//go:build !linux && !windows

package action

import (
	"context"
	"runtime"
)

func newFirewall(backend string, env Env) (firewall, error) {
	return nil, Refuse("block_ip needs Linux or Windows; this is %s", runtime.GOOS)
}

// SweepExpired removes nothing where nothing is blocked.
func SweepExpired(ctx context.Context) (removed int, err error) { return 0, nil }
