//go:build linux || windows

package action

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"time"
)

// toolError is a program that ran and did not exit with 0.
type toolError struct {
	argv   []string
	exit   int
	stderr string
}

func (e *toolError) Error() string {
	return fmt.Sprintf("%s: exit %d: %s", strings.Join(e.argv, " "), e.exit, printable(clip(strings.TrimSpace(e.stderr), 512)))
}

// runTool runs a program by its argv, never through a shell, and returns what it wrote to
// standard output. The program is killed when ctx ends. On Linux it dies with this
// process, and holds locks, which may be none, until it is gone.
func runTool(ctx context.Context, locks []*os.File, argv []string) (string, error) {
	path, err := findTool(argv[0])
	if err != nil {
		return "", err
	}
	var stdout, stderr bytes.Buffer
	cmd := exec.CommandContext(ctx, path, argv[1:]...)
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "LC_ALL=C"} // no secrets, no settings
	cmd.WaitDelay = time.Second
	cmd.ExtraFiles = locks
	err = runBound(cmd)
	if ctx.Err() != nil {
		return "", fmt.Errorf("%s: %w", strings.Join(argv, " "), ctx.Err())
	}
	if cmd.ProcessState != nil && cmd.ProcessState.ExitCode() > 0 {
		return "", &toolError{argv, cmd.ProcessState.ExitCode(), stderr.String()}
	}
	if err != nil {
		return "", fmt.Errorf("%s: %w", strings.Join(argv, " "), err)
	}
	return stdout.String(), nil
}

// findTool finds a program in PATH, or where system programs live: the PATH of a service
// often lacks those. The error wraps exec.ErrNotFound.
func findTool(name string) (string, error) {
	path, err := exec.LookPath(name)
	if err == nil {
		return path, nil
	}
	for _, dir := range []string{"/usr/sbin/", "/sbin/"} {
		if path, err := exec.LookPath(dir + name); err == nil {
			return path, nil
		}
	}
	return "", fmt.Errorf("%w; install it or choose another backend", err)
}
