// Package namespace gives a test namespaces of its own. Containment is tested by really
// stopping processes and really changing the firewall, and neither may reach the machine
// the tests run on.
package namespace

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"riposte/test/need"
)

// insideEnv names the test whose copy runs in namespaces of its own.
const insideEnv = "RIPOSTE_TEST_NAMESPACE"

// Enter runs the calling test again, as root, in PID, mount and network namespaces of its
// own, and says whether this is that run:
//
//	if !namespace.Enter(t) {
//		return
//	}
//
// Inside, /proc shows the processes of the namespace, loopback is up and is the only
// network, and PID 1 is a shell. All that is left is killed when the test ends. It must be
// called by a test itself, not by a subtest.
func Enter(t *testing.T) bool {
	t.Helper()
	if os.Getenv(insideEnv) == t.Name() {
		return true
	}
	need.Linux(t)
	need.Root(t)
	need.Binary(t, "ip")
	left := time.Minute
	if deadline, ok := t.Deadline(); ok {
		left = time.Until(deadline) * 9 / 10
	}
	cmd := exec.CommandContext(t.Context(), need.Binary(t, "unshare"),
		"--fork", "--kill-child", "--pid", "--mount-proc", "--net",
		"sh", "-c", `ip link set lo up && "$@"; exit $?`, "init",
		os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v", fmt.Sprint("-test.timeout=", left))
	// The race detector otherwise waits a second before each exit.
	cmd.Env = append(os.Environ(), insideEnv+"="+t.Name(), "GORACE=atexit_sleep_ms=0")
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "--- PASS: "+t.Name()) {
		t.Fatalf("in namespaces of its own: %v\n%s", err, out)
	}
	t.Logf("in namespaces of its own:\n%s", out)
	return false
}
