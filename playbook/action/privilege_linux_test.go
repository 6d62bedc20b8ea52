package action_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"riposte/playbook/action"
	"riposte/test/need"
)

// TestIPTablesByCapability blocks and sweeps as a user who has of root only what setcap(8)
// gives to the program: iptables, which has no capabilities of its own, must get them too.
func TestIPTablesByCapability(t *testing.T) {
	needed := (&action.BlockSpec{Backend: action.IPTables}).Capabilities(true)
	if os.Getenv(helperEnv) == "setcap" {
		if missing, err := action.Missing(needed); err != nil || len(missing) > 0 || os.Geteuid() == 0 {
			t.Fatalf("user %d lacks %v, %v", os.Geteuid(), missing, err)
		}
		if r := apply(t, block(action.IPTables, "198.51.100.2", time.Second), forAlert("a")); r.Outcome != action.Blocked {
			t.Errorf("got %v", r)
		}
		swept := 0
		until(t, "both rules have expired", func() bool {
			n, err := action.SweepExpired(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			swept += n
			return swept == 2
		})
		return
	}
	if !inside(t) {
		return
	}
	need.Binary(t, "iptables")
	program := copyOf(t, os.Args[0], "test-with-capabilities")
	if err := errors.Join(os.Chmod(program, 0o755), os.Chmod(filepath.Dir(filepath.Dir(program)), 0o755)); err != nil {
		t.Fatal(err)
	}
	grant(t, program, unix.CAP_NET_ADMIN, unix.CAP_NET_RAW)
	asNobody(t, program, "setcap")
}

// TestSweepWithoutCapability leaves alone what it may not touch, and says nothing: a replica
// that only observes needs no capability.
func TestSweepWithoutCapability(t *testing.T) {
	if os.Getenv(helperEnv) == "unprivileged" {
		if n, err := action.SweepExpired(t.Context()); n != 0 || err != nil {
			t.Errorf("swept %d, %v", n, err)
		}
		return
	}
	if !inside(t) {
		return
	}
	need.Binary(t, "iptables")
	asNobody(t, "/proc/self/exe", "unprivileged")
}

// grant does what setcap(8) does for +ep, see struct vfs_cap_data in linux/capability.h.
func grant(t *testing.T, program string, capabilities ...uint) {
	t.Helper()
	const revision2, effective = 0x02000000, 1
	data := [5]uint32{revision2 | effective} // then permitted and inheritable, low words and high
	for _, c := range capabilities {
		data[1] |= 1 << c
	}
	var raw bytes.Buffer
	if err := binary.Write(&raw, binary.LittleEndian, data); err != nil {
		t.Fatal(err)
	}
	if err := unix.Setxattr(program, "security.capability", raw.Bytes(), 0); err != nil {
		t.Fatal(err)
	}
}

// asNobody runs the calling test again in a role, as a user without rights.
func asNobody(t *testing.T, program, role string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), program, "-test.run=^"+t.Name()+"$", "-test.v")
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	cmd.Dir = "/"
	cmd.Env = append(os.Environ(), helperEnv+"="+role)
	if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), "--- PASS") {
		t.Errorf("%v\n%s", err, out)
	}
}
