package action_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"riposte/test/need"
)

// insideEnv marks the copy of the test binary that runs in namespaces of its own.
const insideEnv = "RIPOSTE_TEST_INSIDE"

// inside runs the calling test again as root in PID, mount and network namespaces of its
// own, where it cannot reach this machine, and says whether this is that run. There it is
// PID 3 or so, with a shell as parent that is not PID 1. flags are more flags of unshare.
func inside(t *testing.T, flags ...string) bool {
	t.Helper()
	if os.Getenv(insideEnv) != "" {
		return true
	}
	need.Linux(t)
	need.Root(t)
	if flags == nil {
		flags = []string{"--mount-proc"}
	}
	shell := `"$@"; exit $?`
	args := append([]string{"--fork", "--pid", "--net", "--kill-child"}, flags...)
	args = append(args, "sh", "-c", shell, "init", "sh", "-c", shell, "parent", os.Args[0],
		"-test.run=^"+t.Name()+"$", "-test.v", "-test.timeout=60s")
	cmd := exec.CommandContext(t.Context(), need.Binary(t, "unshare"), args...)
	// The race detector otherwise waits a second before each exit.
	cmd.Env = append(os.Environ(), insideEnv+"=1", "GORACE=atexit_sleep_ms=0")
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "--- PASS: "+t.Name()) {
		t.Fatalf("in namespaces of its own: %v\n%s", err, out)
	}
	t.Logf("in namespaces of its own:\n%s", out)
	return false
}

// until polls for a condition that something else brings about.
func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatal("in vain waited until " + what)
		}
	}
}

func command(t *testing.T, argv ...string) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), argv[0], argv[1:]...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", strings.Join(argv, " "), err, out)
	}
	return string(out)
}

func descriptors(t *testing.T) string {
	t.Helper()
	all, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	var list []string
	for _, fd := range all {
		target, _ := os.Readlink("/proc/self/fd/" + fd.Name())
		if strings.Contains(target, "pidfd") || strings.Contains(target, "socket") {
			list = append(list, fmt.Sprintf("%s -> %s", fd.Name(), target))
		}
	}
	return strings.Join(list, "\n")
}
