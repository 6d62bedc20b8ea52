package guard_test

import (
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"riposte/playbook/action"
	"riposte/playbook/guard"
	"riposte/stream/proc"
	"riposte/test/namespace"
	"riposte/test/need"
)

const nobody = 65534

// start starts a program that says so once it runs, and returns it. It is the test's own.
func start(t *testing.T, uid uint32, argv ...string) *exec.Cmd {
	t.Helper()
	if uid != 0 {
		return startAs(t, &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}, argv...)
	}
	return startAs(t, nil, argv...)
}

func startAs(t *testing.T, attr *syscall.SysProcAttr, argv ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), argv[0], argv[1:]...)
	cmd.SysProcAttr = attr
	cmd.Dir = "/"
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { in.Close(); cmd.Process.Kill(); cmd.Wait() })
	io.WriteString(in, "running\n")
	if _, err := io.ReadFull(out, make([]byte, 8)); err != nil {
		t.Fatalf("%v does not run: %v", argv, err)
	}
	return cmd
}

// program copies cat under another name, with another owner and mode.
func program(t *testing.T, name string, owner int, mode os.FileMode) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	body, err := os.ReadFile(need.Binary(t, "cat"))
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.Chmod(filepath.Dir(filepath.Dir(path)), 0o755), os.WriteFile(path, body, 0o700), os.Chown(path, owner, owner), os.Chmod(path, mode)); err != nil {
		t.Fatal(err)
	}
	return path
}

func stat(t *testing.T, pid int) proc.Stat {
	t.Helper()
	st, err := proc.ReadStat(pid)
	if err != nil {
		t.Fatal(err)
	}
	return st
}

// expect expects a refusal that says why, or none for an empty why.
func expect(t *testing.T, what string, err error, why string) {
	t.Helper()
	reason, refused := action.Reason(err)
	if why == "" && err != nil {
		t.Errorf("%s: %v", what, err)
	}
	if why != "" && (!refused || !strings.Contains(reason, why)) {
		t.Errorf("%s: got %v, want a refusal with %q", what, err, why)
	}
}

func TestServices(t *testing.T) {
	need.Linux(t)
	need.Root(t)
	for _, c := range []struct {
		name  string
		owner int         // of the file
		mode  os.FileMode // of the file
		uid   uint32      // of the process
		why   string
	}{
		{"sshd", 0, 0o755, 0, "service of this host (sshd)"},
		{"sshd", nobody, 0o755, nobody, ""}, // anyone can call himself sshd
		{"sshd", nobody, 0o755, 0, ""},
		{"sshd", 0, 0o775, 0, ""},
		{"sshd", 0, 0o757, 0, ""},
		{"sshd", 0, 0o755, nobody, ""},
		{"cat", 0, 0o755, 0, ""},
		{"containerd-shim-runc-v2", 0, 0o755, 0, "service of this host"},
		{"k3s", 0, 0o755, 0, "service of this host (k3s)"}, // also what its containerd is called
		{"sshd2", 0, 0o755, 0, ""},
		{"redis-server", 0, 0o755, nobody, "the Redis server"},
		{"redis-check-rdb", 0, 0o755, 0, "the Redis server"}, // what redis-server links to on Debian
		{"redis-server", nobody, 0o755, nobody, ""},
	} {
		path := program(t, c.name, c.owner, c.mode)
		pid := start(t, c.uid, path).Process.Pid
		if st := stat(t, pid); st.Comm != c.name[:min(15, len(c.name))] {
			t.Errorf("%s is called %s", c.name, st.Comm)
		}
		what := strings.Join([]string{c.name, c.mode.String()}, " ")
		expect(t, what, (&guard.Floor{}).Process(stat(t, pid)), c.why)
		os.Remove(path)
		expect(t, what+", deleted", (&guard.Floor{}).Process(stat(t, pid)), c.why)
	}
}

// TestServersOfOwnMaking runs cat under the name of the Redis server as anybody can, who is
// root in a user namespace of his own; and as a container does, which root has started.
func TestServersOfOwnMaking(t *testing.T) {
	if !namespace.Enter(t) {
		return
	}
	name := program(t, "redis-server", nobody, 0o755)
	bind := []string{need.Binary(t, "sh"), "-c", `mount --bind "$1" "$2" && exec "$2"`, "sh", program(t, "cat", 0, 0o755), name}
	floor := &guard.Floor{}
	for _, c := range []struct {
		whose string
		flags uintptr
		why   string
	}{
		{"a user's", unix.CLONE_NEWUSER, ""},
		{"a container's", 0, "the Redis server"},
	} {
		attr := &syscall.SysProcAttr{Cloneflags: c.flags, Unshareflags: unix.CLONE_NEWNS}
		if c.flags != 0 {
			ids := []syscall.SysProcIDMap{{ContainerID: 0, HostID: nobody, Size: 1}}
			attr.UidMappings, attr.GidMappings, attr.Credential = ids, ids, &syscall.Credential{NoSetGroups: true}
		}
		inside := startAs(t, attr, bind...).Process.Pid
		expect(t, c.whose, floor.Process(stat(t, inside)), c.why)
		outside := start(t, 0, fmt.Sprintf("/proc/%d/root%s", inside, name)).Process.Pid
		if exe, err := proc.ReadExe(outside); err != nil || exe != name {
			t.Errorf("outside runs %s, %v", exe, err)
		}
		expect(t, c.whose+", run from outside", floor.Process(stat(t, outside)), "")
	}
}

// TestExecutableOutOfSight runs cat from where root cannot look at it: from a user's file
// system, and from a path that is too long. Neither makes a process immune.
func TestExecutableOutOfSight(t *testing.T) {
	if !namespace.Enter(t) {
		return
	}
	body, err := os.ReadFile(need.Binary(t, "cat"))
	if err != nil {
		t.Fatal(err)
	}
	dir := userFS(t, nobody, body)
	// Not from here: the runtime may stand still between fork and exec, and answers.
	pid := start(t, nobody, "sh", "-c", `exec "$0"`, dir+"/program").Process.Pid
	if _, err := os.Stat(fmt.Sprintf("/proc/%d/exe", pid)); !errors.Is(err, unix.EACCES) {
		t.Errorf("root can look at it: %v", err)
	}
	expect(t, "a user's file system", (&guard.Floor{}).Process(stat(t, pid)), "")

	// Half of the path is there when it starts, and the other half is put before that.
	half := strings.Repeat("/"+strings.Repeat("x", 250), 10)
	first, second := t.TempDir(), t.TempDir()
	if err := errors.Join(os.MkdirAll(first+half, 0o755), os.MkdirAll(second+half, 0o755), os.WriteFile(second+half+"/cat", body, 0o755)); err != nil {
		t.Fatal(err)
	}
	pid = start(t, 0, second+half+"/cat").Process.Pid
	if err := os.Rename(second, first+half+"/second"); err != nil {
		t.Fatal(err)
	}
	if _, err := proc.ReadExe(pid); !errors.Is(err, unix.ENAMETOOLONG) {
		t.Errorf("the path is not too long: %v", err)
	}
	expect(t, "a long path", (&guard.Floor{}).Process(stat(t, pid)), "")
}

func TestKin(t *testing.T) {
	need.Linux(t)
	floor := &guard.Floor{}
	expect(t, "self", floor.Process(stat(t, os.Getpid())), "a process of Riposte")
	expect(t, "parent", floor.Process(stat(t, os.Getppid())), "an ancestor of Riposte")
	expect(t, "init", floor.Process(proc.Stat{PID: 1}), "is init")
	expect(t, "kernel thread", floor.Process(proc.Stat{PID: 2, Flags: 0x00200000}), "is a kernel thread")
	expect(t, "no such process", floor.Process(proc.Stat{PID: 1<<22 - 1}), "cannot be read")

	// A parent and two children of its, one of them a member.
	parent := exec.CommandContext(t.Context(), "sh", "-c", `cat <&3 & echo $!; cat <&3 & echo $!; wait`)
	hold, held, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer hold.Close()
	parent.ExtraFiles = []*os.File{hold}
	out, err := parent.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := parent.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { held.Close(); parent.Wait() })
	var member, sibling int
	if _, err := fmt.Fscan(out, &member, &sibling); err != nil {
		t.Fatal(err)
	}
	floor.Members = func() ([]int, error) { return []int{1<<22 - 1, member}, nil } // one has gone just now
	expect(t, "member", floor.Process(stat(t, member)), "a process of Riposte")
	expect(t, "its parent", floor.Process(stat(t, parent.Process.Pid)), "an ancestor of Riposte")
	expect(t, "its sibling", floor.Process(stat(t, sibling)), "")
	floor.Members = func() ([]int, error) { return nil, errors.New("runtime folder is gone") }
	expect(t, "members unknown", floor.Process(stat(t, sibling)), "runtime folder is gone")
	floor.Members = nil
	expect(t, "no members", floor.Process(stat(t, parent.Process.Pid)), "")
}

// TestUnreadable asks as a user who may not read the executable of another.
func TestUnreadable(t *testing.T) {
	const role = "RIPOSTE_TEST_UNREADABLE"
	if os.Getenv(role) != "" {
		pid, err := strconv.Atoi(os.Getenv(role))
		if err != nil {
			t.Fatal(err)
		}
		expect(t, "another user's process", (&guard.Floor{}).Process(stat(t, pid)), "the executable of PID")
		return
	}
	need.Linux(t)
	need.Root(t)
	other := start(t, 0, need.Binary(t, "cat"))
	cmd := exec.CommandContext(t.Context(), "/proc/self/exe", "-test.run=^TestUnreadable$", "-test.v")
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	cmd.Dir = "/"
	cmd.Env = append(os.Environ(), "GORACE=atexit_sleep_ms=0", role+"="+strconv.Itoa(other.Process.Pid))
	if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), "--- PASS") {
		t.Errorf("%v\n%s", err, out)
	}
}

func TestAddress(t *testing.T) {
	need.Linux(t)
	floor := &guard.Floor{RedisPeers: func() []netip.Addr {
		return []netip.Addr{netip.MustParseAddr("::ffff:203.0.113.7"), netip.MustParseAddr("2001:db8::7")}
	}}
	for addr, why := range map[string]string{
		"198.51.100.2": "", "2001:db8::2": "",
		"127.0.0.1": "loopback", "127.255.0.9": "loopback", "::1": "loopback",
		"0.0.0.0": "unspecified", "::": "unspecified", "0.1.2.3": "0.0.0.0/8",
		"169.254.169.254": "link-local", "fe80::1": "link-local", "fe80::1%eth0": "link-local",
		"224.0.0.251": "multicast", "ff02::1": "multicast", "255.255.255.255": "broadcast",
		"203.0.113.7": "a Redis server", "2001:db8::7": "a Redis server",
		// Forms that stand for another address.
		"::ffff:127.0.0.1": "127.0.0.1 is loopback", "::ffff:203.0.113.7": "a Redis server",
		"64:ff9b::7f00:1": "stands for 127.0.0.1", "64:ff9b::cb00:7107": "stands for 203.0.113.7, which is a Redis server",
		"2002:cb00:7107::1": "stands for 203.0.113.7", "::203.0.113.7": "stands for 203.0.113.7",
		"64:ff9b::c633:6402": "", "2002:c633:6402::1": "",
	} {
		expect(t, addr, floor.Address(netip.MustParseAddr(addr)), why)
	}
	expect(t, "no address", floor.Address(netip.Addr{}), "no address")
	for network, why := range map[string]string{
		"198.51.100.0/24": "", "198.51.100.4/30": "", "2001:db8:2::/64": "", "2001:db8:2::8/125": "",
		"198.51.0.0/23": "broader than /24", "0.0.0.0/0": "broader than /24", "2001:db8:2::/63": "broader than /64", "::/0": "broader than /64",
		"127.3.0.0/24": "loopback", "::/64": "are", "::1/128": "loopback", "0.1.2.0/24": "0.0.0.0/8",
		"169.254.169.0/24": "link-local", "fe80::/64": "link-local", "febf:ffff::/64": "link-local",
		"224.0.0.0/24": "multicast", "239.1.2.0/28": "multicast", "ff02::/64": "multicast", "255.255.255.0/24": "has addresses in it that are broadcast",
		"203.0.113.0/24": "has 203.0.113.7 in it, which is a Redis server", "203.0.113.4/30": "a Redis server", "203.0.113.8/29": "",
		"2001:db8::/64": "a Redis server", "2001:db8:0:0:1::/80": "",
		// Forms that stand for another network.
		"::ffff:198.51.100.0/120": "is no network",
		"64:ff9b::/64":            "stands for 0.0.0.0/0", "64:ff9b::cb00:7100/120": "stands for 203.0.113.0/24", "64:ff9b::c633:6400/120": "",
		"64:ff9b::7f00:0/104": "stands for 127.0.0.0/8", "::203.0.113.0/120": "stands for 203.0.113.0/24",
		"2002:cb00:7107::/64": "stands for 203.0.113.7", "2002:c633:6402::/64": "",
	} {
		expect(t, network, floor.Network(netip.MustParsePrefix(network)), why)
	}
	expect(t, "no network", floor.Network(netip.Prefix{}), "no network")
}

// TestFreshness counts how often facts are read.
func TestFreshness(t *testing.T) {
	need.Linux(t)
	read := 0
	floor := &guard.Floor{RedisPeers: func() []netip.Addr { read++; return nil }}
	for range 100 {
		expect(t, "free", floor.Address(netip.MustParseAddr("198.51.100.2")), "")
	}
	if read < 1 || read > 10 { // once a second, on however slow a machine
		t.Errorf("read %d times", read)
	}
}
