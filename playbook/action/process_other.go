//go:build !linux

package action

import "runtime"

// noPidfds refuses: only a Linux pidfd holds on to a process between the look and the signal.
func noPidfds(name string) error {
	return Refuse("%s needs Linux pidfds; this is %s", name, runtime.GOOS)
}
