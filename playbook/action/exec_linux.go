package action

import (
	"os/exec"
	"runtime"
	"slices"
	"syscall"
)

// runBound runs a command that the kernel kills when this process dies. The kernel sends
// that signal when the *thread* that started it exits, so the goroutine keeps its thread.
//
// The only programs run so are those of iptables. What this process has of the capabilities
// they need is made ambient: another user's than root would lose them by exec.
func runBound(cmd *exec.Cmd) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	missing, err := Missing(iptablesNeeds)
	if err != nil {
		return err
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	for _, c := range iptablesNeeds {
		if !slices.Contains(missing, c) {
			cmd.SysProcAttr.AmbientCaps = append(cmd.SysProcAttr.AmbientCaps, capabilityBits[c])
		}
	}
	return cmd.Run()
}
