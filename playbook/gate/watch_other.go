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

// End refuses: without a pidfd the wrong process could be killed.
func (g *Gate) End(h Holder) (ended bool, err error) {
	if !g.overstayed(h) {
		return false, nil
	}
	return false, errors.New("ending a frozen replica needs Linux")
}
