package action

import "os/exec"

func runBound(cmd *exec.Cmd) error { return cmd.Run() }
