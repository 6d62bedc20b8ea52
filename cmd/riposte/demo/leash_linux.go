package demo

import (
	"os/exec"
	"runtime"
	"syscall"
)

// Leashed runs a function that starts cmd, so that the kernel kills cmd when this
// process dies. The signal comes at the death of the starting thread (prctl(2),
// PR_SET_PDEATHSIG), so that thread is kept until run returns.
func Leashed(cmd *exec.Cmd, run func() error) error {
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Setpgid = true // a Ctrl-C is for the demo alone, which then ends the rest
	cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	return run()
}
