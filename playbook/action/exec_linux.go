package action

import (
	"os/exec"
	"runtime"
	"syscall"
)

// runBound runs a command that the kernel kills when this process dies. The kernel sends
// that signal when the *thread* that started it exits, so the goroutine keeps its thread.
func runBound(cmd *exec.Cmd) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return cmd.Run()
}
