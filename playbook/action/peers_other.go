//go:build !linux

package action

import (
	"context"
	"net/netip"
	"runtime"
)

func (t Process) peers(context.Context, Env) ([]netip.Addr, bool, error) {
	return nil, false, Refuse("whom a process talks to can be told on Linux only; this is %s", runtime.GOOS)
}
