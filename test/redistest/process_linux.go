package redistest

import (
	"os"
	"os/exec"
	"syscall"
)

// dieWithParent lets the kernel kill the child when the test is killed.
func dieWithParent(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
}

func terminate(p *os.Process) error { return p.Signal(syscall.SIGTERM) }
