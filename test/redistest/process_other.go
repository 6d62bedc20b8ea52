//go:build !linux

package redistest

import (
	"os"
	"os/exec"
)

func dieWithParent(*exec.Cmd) {}

// terminate interrupts, where the system knows such a signal; Windows has none.
func terminate(p *os.Process) error {
	if p.Signal(os.Interrupt) != nil {
		return p.Kill()
	}
	return nil
}
