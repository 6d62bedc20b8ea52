// Package need says what a test needs of the machine. A test that misses it is skipped
// with the reason, and fails instead where RIPOSTE_TEST_ALL=1 promises that everything is
// there. No other place in the tree skips a test.
package need

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"

	"riposte/stream/proc"
)

// Root needs user 0: namespaces, firewalls and other users' processes take it.
func Root(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		missing(t, "root: run the tests with sudo")
	}
}

// Linux needs /proc, pidfds and what else only Linux has.
func Linux(t testing.TB) {
	t.Helper()
	if runtime.GOOS != "linux" {
		missing(t, "Linux; this is "+runtime.GOOS)
	}
}

// Binary needs a program and returns its path.
func Binary(t testing.TB, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		missing(t, name+" in PATH: "+err.Error())
	}
	return path
}

// Docker needs a Docker engine on this machine: a test may have to signal what runs in its
// containers.
func Docker(t testing.TB) {
	t.Helper()
	Binary(t, "docker")
	if out, err := exec.Command("docker", "info").CombinedOutput(); err != nil {
		missing(t, "a Docker engine that answers: "+strings.TrimSpace(string(out)))
	}
	if host := os.Getenv("DOCKER_HOST"); host != "" && !strings.HasPrefix(host, "unix://") {
		missing(t, "a Docker engine on this machine; DOCKER_HOST is "+host)
	}
}

// Supported needs what a system call was asked for, such as access lists of a file system.
func Supported(t testing.TB, what string, err error) {
	t.Helper()
	if errors.Is(err, errors.ErrUnsupported) {
		missing(t, what+": "+err.Error())
	}
	if err != nil {
		t.Fatal(what, err)
	}
}

// All says whether RIPOSTE_TEST_ALL=1 promises that everything is there, and forbids to leave
// anything out.
func All() bool { return os.Getenv("RIPOSTE_TEST_ALL") == "1" }

// KernelThread needs to see a kernel thread, which a PID namespace of its own hides, and
// returns its PID.
func KernelThread(t testing.TB) int {
	t.Helper()
	Linux(t)
	files, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		pid, err := strconv.Atoi(filepath.Base(file))
		if err != nil {
			continue
		}
		if st, err := proc.ReadStat(pid); err == nil && st.KernelThread() {
			return pid
		}
	}
	missing(t, "the machine's own PID namespace: no kernel thread is seen from here")
	return 0
}

// ControlGroups needs control groups of version 2 that can be written, and returns a folder of
// the test's own among them. It is removed when the test ends, with those that the test has
// made below it: by then nobody may be in them.
func ControlGroups(t testing.TB) string {
	t.Helper()
	Linux(t)
	raw, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(raw)) {
		head, tail, _ := strings.Cut(line, " - ")
		f := strings.Fields(head)
		if len(f) < 5 || f[3] != "/" || !strings.HasPrefix(tail, "cgroup2 ") {
			continue
		}
		dir, err := os.MkdirTemp(f[4], "riposte-test-")
		if err != nil {
			missing(t, "control groups of version 2 that it may make: "+err.Error())
		}
		t.Cleanup(func() {
			below, _ := filepath.Glob(filepath.Join(dir, "*", "cgroup.procs"))
			for _, file := range below {
				if err := os.Remove(filepath.Dir(file)); err != nil {
					t.Error(err)
				}
			}
			if err := os.Remove(dir); err != nil {
				t.Error(err)
			}
		})
		return dir
	}
	missing(t, "control groups of version 2, which are not mounted here")
	return ""
}

func missing(t testing.TB, what string) {
	t.Helper()
	if All() {
		t.Fatalf("RIPOSTE_TEST_ALL=1, but this test needs %s", what)
	}
	t.Skipf("needs %s", what)
}
