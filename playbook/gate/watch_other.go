//go:build !linux

package gate

import (
	"context"
	"errors"
)

// Watch has nothing to watch with here: the regular sweep notices deaths instead.
func (g *Gate) Watch(ctx context.Context, changed func()) error {
	<-ctx.Done()
	return nil
}

var errUnsupported = errors.New("ending a frozen holder needs Linux")

// End refuses: without a pidfd the wrong process could be killed.
func (g *Gate) End(Holder) error { return errUnsupported }
