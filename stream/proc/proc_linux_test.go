package proc_test

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"riposte/stream/proc"
	"riposte/test/need"
)

// start runs a command that is killed and reaped when the test ends. It returns
// when the exec is over: [exec.Cmd.Start] does so when the kernel closes the
// child's descriptors, which is before its comm and argv are in place.
func start(t *testing.T, cmd *exec.Cmd) int {
	t.Helper()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	cmdline := fmt.Sprintf("/proc/%d/cmdline", cmd.Process.Pid)
	for deadline := time.Now().Add(10 * time.Second); ; runtime.Gosched() {
		if argv, err := os.ReadFile(cmdline); err == nil && len(argv) > 0 {
			return cmd.Process.Pid
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s is still empty", cmdline)
		}
	}
}

// await waits until a child has exited or stopped, and does not reap it.
func await(t *testing.T, pid, what int) {
	t.Helper()
	for {
		err := unix.Waitid(unix.P_PID, pid, nil, what|unix.WNOWAIT, nil)
		if err == nil {
			return
		}
		if !errors.Is(err, unix.EINTR) {
			t.Fatal(err)
		}
	}
}

func TestReadOfAChild(t *testing.T) {
	before := time.Now()
	cmd := exec.Command("sleep", "1000")
	pid := start(t, cmd)
	after := time.Now()
	info, err := proc.Read(pid)
	if err != nil {
		t.Fatal(err)
	}
	exe, err := filepath.EvalSymlinks(cmd.Path)
	if err != nil {
		t.Fatal(err)
	}
	if info.PID != pid || info.PPID != os.Getpid() || info.Name != "sleep" || info.Comm != "sleep" ||
		info.UID != os.Geteuid() || info.Exe != exe || !slices.Equal(info.Argv, []string{"sleep", "1000"}) {
		t.Errorf("got %+v", info)
	}
	if info.Zombie() || info.KernelThread() {
		t.Errorf("a sleep is no zombie and no kernel thread: %+v", info)
	}
	started, err := info.StartTime()
	if err != nil {
		t.Fatal(err)
	}
	const tolerance = 20 * time.Millisecond
	if started.Before(before.Add(-tolerance)) || started.After(after.Add(tolerance)) {
		t.Errorf("started %v, want between %v and %v", started, before, after)
	}
	if up := proc.Ancestors(pid); len(up) == 0 || up[0] != os.Getpid() {
		t.Errorf("ancestors %v do not begin with the test, %d", up, os.Getpid())
	} else if last := up[len(up)-1]; last != 1 {
		t.Errorf("ancestors %v do not end with 1", up)
	}
}

const endlessEnv = "RIPOSTE_TEST_ENDLESS"

// TestMain is a process that says that its arguments are in 64 MiB of its memory.
func TestMain(m *testing.M) {
	if os.Getenv(endlessEnv) == "" {
		os.Exit(m.Run())
	}
	const size = 64 << 20
	region, err := unix.Mmap(-1, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
	if err != nil {
		panic(err)
	}
	raw, err := os.ReadFile("/proc/self/stat")
	if err != nil {
		panic(err)
	}
	fields := strings.Fields(string(raw[bytes.LastIndexByte(raw, ')'):])) // the first is the second of proc(5)
	field := func(n int) uint64 { value, _ := strconv.ParseUint(fields[n-2], 10, 64); return value }
	brk, _, _ := unix.Syscall(unix.SYS_BRK, 0, 0, 0)
	begin := uint64(uintptr(unsafe.Pointer(&region[0])))
	// struct prctl_mm_map, see PR_SET_MM in prctl(2)
	layout := [13]uint64{field(26), field(27), field(45), field(46), field(47), uint64(brk), field(28), begin, begin + size, begin + size, begin + size, 0, uint64(math.MaxUint32) << 32}
	_, _, errno := unix.Syscall6(unix.SYS_PRCTL, unix.PR_SET_MM, unix.PR_SET_MM_MAP, uintptr(unsafe.Pointer(&layout)), unsafe.Sizeof(layout), 0, 0)
	fmt.Println("ready", errno)
	for {
		_ = unix.Pause()
	}
}

func TestReadOfEndlessArguments(t *testing.T) {
	need.Linux(t)
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), endlessEnv+"=1")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	line := make([]byte, 64)
	if n, err := out.Read(line); err != nil || string(line[:n]) != "ready errno 0\n" {
		t.Fatalf("%q, %v", line[:n], err)
	}
	info, err := proc.Read(cmd.Process.Pid)
	if size := len(strings.Join(info.Argv, " ")); err != nil || size == 0 || size > 2<<20 {
		t.Errorf("%d bytes of arguments, %v", size, err)
	}
}

// A process chooses its own argv[0]; only one that extends its real name is believed.
func TestNameIsNotTakenFromArgv(t *testing.T) {
	sleep, err := exec.LookPath("sleep")
	if err != nil {
		t.Fatal(err)
	}
	short := exec.Command(sleep, "1000")
	short.Args[0] = "sshd"
	info, err := proc.Read(start(t, short))
	if err != nil {
		t.Fatal(err)
	}
	if info.Name != "sleep" {
		t.Errorf("a sleep that calls itself sshd is named %q", info.Name)
	}

	const long = "riposte-test-with-a-long-name"
	path := filepath.Join(t.TempDir(), long)
	if err := os.Symlink(sleep, path); err != nil {
		t.Fatal(err)
	}
	info, err = proc.Read(start(t, exec.Command(path, "1000")))
	if err != nil {
		t.Fatal(err)
	}
	if info.Comm != long[:15] || info.Name != long {
		t.Errorf("got name %q, comm %q; want %q", info.Name, info.Comm, long)
	}

	liar := exec.Command(path, "1000")
	liar.Args[0] = "/usr/sbin/sshd"
	info, err = proc.Read(start(t, liar))
	if err != nil {
		t.Fatal(err)
	}
	if info.Name != long[:15] {
		t.Errorf("a long name that calls itself sshd is named %q", info.Name)
	}
}

func TestZombieAndGone(t *testing.T) {
	cmd := exec.Command("true")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	await(t, cmd.Process.Pid, unix.WEXITED)
	st, err := proc.ReadStat(cmd.Process.Pid)
	if err != nil || !st.Zombie() {
		t.Errorf("got %+v, %v; want a zombie", st, err)
	}
	if err := cmd.Wait(); err != nil {
		t.Fatal(err)
	}
	_, err1 := proc.ReadStat(cmd.Process.Pid)
	_, err2 := proc.Read(cmd.Process.Pid)
	_, err3 := proc.UID(cmd.Process.Pid)
	_, err4 := proc.ReadExe(cmd.Process.Pid)
	for _, err := range []error{err1, err2, err3, err4} {
		if !errors.Is(err, proc.ErrGone) {
			t.Errorf("got %v, want ErrGone", err)
		}
	}
}

func TestNoSuchPIDs(t *testing.T) {
	for _, pid := range []int{0, -1, 1 << 31, 1 << 22} {
		if st, err := proc.ReadStat(pid); !errors.Is(err, proc.ErrGone) {
			t.Errorf("PID %d: got %+v, %v; want ErrGone", pid, st, err)
		}
	}
}

func TestIdentityOfTheMachine(t *testing.T) {
	boot, err := proc.BootID()
	if err != nil || len(boot) != 36 || strings.TrimSpace(boot) != boot {
		t.Errorf("boot ID %q, %v", boot, err)
	}
	ns, err := proc.Namespace()
	if err != nil {
		t.Fatal(err)
	}
	link, err := os.Readlink("/proc/self/ns/pid") // pid:[4026531836]
	if err != nil {
		t.Fatal(err)
	}
	var want uint64
	for _, c := range link {
		if c >= '0' && c <= '9' {
			want = want*10 + uint64(c-'0')
		}
	}
	if ns != want {
		t.Errorf("namespace %d, want %s", ns, link)
	}
}

// A deleted program still has the path it was started from.
func TestDeletedExecutable(t *testing.T) {
	sleep, err := exec.LookPath("sleep")
	if err != nil {
		t.Fatal(err)
	}
	program, err := os.ReadFile(sleep)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "sleep")
	if err := os.WriteFile(path, program, 0o755); err != nil {
		t.Fatal(err)
	}
	pid := start(t, exec.Command(path, "1000"))
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	exe, err := proc.ReadExe(pid)
	if real, _ := filepath.EvalSymlinks(filepath.Dir(path)); err != nil || exe != filepath.Join(real, "sleep") {
		t.Errorf("got %q, %v; want %q", exe, err, path)
	}
}

func TestStoppedProcess(t *testing.T) {
	pid := start(t, exec.Command("sh", "-c", "kill -STOP $$; sleep 1000"))
	await(t, pid, unix.WSTOPPED)
	if st, err := proc.ReadStat(pid); err != nil || st.State != 'T' || st.Zombie() {
		t.Errorf("got %+v, %v; want state T", st, err)
	}
}
