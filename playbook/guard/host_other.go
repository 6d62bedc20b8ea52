//go:build !linux && !windows

package guard

import (
	"fmt"
	"runtime"
)

// addSystem fails: gateways and resolvers are not read here, and nothing is blocked here.
func (f facts) addSystem() error {
	return fmt.Errorf("gateways and resolvers cannot be read on %s", runtime.GOOS)
}
