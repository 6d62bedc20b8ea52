package guard_test

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"riposte/playbook/guard"
	"riposte/stream/proc"
	"riposte/test/namespace"
	"riposte/test/need"
)

// allowing is a floor with an allow-list of one process.
func allowing(t *testing.T, entry string, args ...any) *guard.Allowing {
	t.Helper()
	list, err := guard.Decode("f.yaml", fmt.Appendf(nil, "allow: {processes: [{"+entry+"}]}", args...))
	if err != nil {
		t.Fatal(err)
	}
	g := &guard.Allowing{Floor: &guard.Floor{}}
	g.Set(list)
	return g
}

func sumOf(t *testing.T, path string) string {
	t.Helper()
	body, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("%x", sha256.Sum256(body))
}

// newCgroup makes a control group of the test's own, and one below it, and returns their names.
// Processes that are put into them must be started later, so that they have gone when they are
// removed.
func newCgroup(t *testing.T) (name string, enter func(pid int)) {
	t.Helper()
	root := t.TempDir()
	if err := unix.Mount("none", root, "cgroup2", 0, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Unmount(root, unix.MNT_DETACH) })
	dir, err := os.MkdirTemp(root, "riposte-test-")
	if err == nil {
		err = os.Mkdir(dir+"/inner", 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(os.Remove(dir+"/inner"), os.Remove(dir)); err != nil {
			t.Log(err)
		}
	})
	return "/" + filepath.Base(dir), func(pid int) {
		t.Helper()
		if err := os.WriteFile(dir+"/inner/cgroup.procs", fmt.Append(nil, pid), 0); err != nil {
			t.Fatal(err)
		}
	}
}

// TestAllowing reads each field of a process that lives.
func TestAllowing(t *testing.T) {
	if !namespace.Enter(t) {
		return
	}
	path := program(t, "own-backup-program", 0, 0o755)
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(path, link); err != nil {
		t.Fatal(err)
	}
	group, enter := newCgroup(t)
	pid := start(t, nobody, path, "-").Process.Pid
	enter(pid)
	st, sum := stat(t, pid), sumOf(t, path)
	for field, c := range map[string]struct{ is, other []string }{
		"name":    {[]string{"own-backup-program", "own-backup-prog"}, []string{"own-backup", "cat", "'-'"}},
		"exe":     {[]string{path, link}, []string{path + "2", filepath.Dir(path), "/usr/bin/cat", "/nowhere"}},
		"sha256":  {[]string{sum, strings.ToUpper(sum)}, []string{sumOf(t, os.Args[0])}},
		"uid":     {[]string{fmt.Sprint(nobody)}, []string{"0"}},
		"cgroup":  {[]string{group, group + "/inner"}, []string{group + "/inn", group + "/inner/x", "/inner"}},
		"cmdline": {[]string{"'^" + path + " -$'", "backup"}, []string{"'^-'", "^$"}},
		"parent":  {[]string{stat(t, os.Getpid()).Comm, filepath.Base(os.Args[0])}, []string{"sh", "init"}},
	} {
		for _, value := range c.is {
			expect(t, field+" "+value, allowing(t, field+": "+value).Process(st), "is allow-listed: "+field)
			more := ", uid: 1"
			if field == "uid" {
				more = ", name: x"
			}
			expect(t, field+" "+value+more, allowing(t, field+": "+value+more).Process(st), "")
		}
		for _, value := range c.other {
			expect(t, field+" "+value, allowing(t, field+": "+value).Process(st), "")
		}
	}
	none := &guard.Allowing{Floor: &guard.Floor{}}
	expect(t, "no list", none.Process(st), "")
	expect(t, "the floor, without a list", none.Process(stat(t, os.Getpid())), "a process of Riposte")
	whole := allowing(t, "name: own-backup-program, exe: %s, sha256: %s, uid: %d, cgroup: %s, cmdline: backup, parent: %s, reason: ours", path, sum, nobody, group, stat(t, os.Getpid()).Comm)
	expect(t, "all of it", whole.Process(st), "is allow-listed: ours")
	whole.Set(nil)
	expect(t, "a list that was taken away", whole.Process(st), "")

	// A package is upgraded while its program runs.
	if err := errors.Join(os.Remove(path), os.WriteFile(path, []byte("a new version"), 0o755)); err != nil {
		t.Fatal(err)
	}
	for _, entry := range []string{"exe: " + path, "exe: " + link, "sha256: " + sum, "name: own-backup-program"} {
		expect(t, entry+", replaced", allowing(t, entry).Process(st), "allow-listed")
	}
	expect(t, "the file that is there by now", allowing(t, "sha256: "+sumOf(t, path)).Process(st), "")
}

// TestAllowedElsewhere runs cat under the path of an entry, where that says nothing.
func TestAllowedElsewhere(t *testing.T) {
	if !namespace.Enter(t) {
		return
	}
	name, real := program(t, "restic", 0, 0o755), program(t, "cat", 0, 0o755)
	exe, sum := allowing(t, "exe: "+name), allowing(t, "sha256: "+sumOf(t, real))
	bind := []string{need.Binary(t, "sh"), "-c", `mount --bind "$1" "$2" && exec "$2"`, "sh", real, name}
	for whose, flags := range map[string]uintptr{"a user's": unix.CLONE_NEWUSER, "a container's": 0} {
		attr := &syscall.SysProcAttr{Cloneflags: flags, Unshareflags: unix.CLONE_NEWNS}
		why := "allow-listed"
		if flags != 0 {
			ids := []syscall.SysProcIDMap{{ContainerID: 0, HostID: nobody, Size: 1}}
			attr.UidMappings, attr.GidMappings, attr.Credential = ids, ids, &syscall.Credential{NoSetGroups: true}
			why = ""
		}
		st := stat(t, startAs(t, attr, bind...).Process.Pid)
		if shown, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", st.PID)); err != nil || shown != name {
			t.Errorf("%s: shown as %s, %v", whose, shown, err)
		}
		expect(t, whose+" path", exe.Process(st), why)
		expect(t, whose+" content", sum.Process(st), why)
	}

	// What has left its root shows no mount at all, and is still what it was.
	const jailed = `import os, sys; line = sys.stdin.readline(); os.chroot(sys.argv[1]); print(line, end="", flush=True); sys.stdin.read()`
	st := stat(t, start(t, 0, need.Binary(t, "python3"), "-c", jailed, t.TempDir()).Process.Pid)
	python, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", st.PID))
	if err != nil {
		t.Fatal(err)
	}
	if mounts, err := os.ReadFile(fmt.Sprintf("/proc/%d/mountinfo", st.PID)); err != nil || len(mounts) > 0 {
		t.Errorf("it shows mounts: %s, %v", mounts, err)
	}
	expect(t, "a path before chroot", allowing(t, "exe: "+python).Process(st), "allow-listed")
	expect(t, "a content before chroot", allowing(t, "sha256: "+sumOf(t, python)).Process(st), "allow-listed")

	// A file system that is a program of a user's answers what he likes, or never.
	body, err := os.ReadFile(real)
	if err != nil {
		t.Fatal(err)
	}
	dir := userFS(t, nobody, body)
	st = stat(t, start(t, nobody, "sh", "-c", `exec "$0"`, dir+"/program").Process.Pid)
	expect(t, "a user's file system", sum.Process(st), "")
	expect(t, "a path in a user's file system", allowing(t, "exe: "+dir+"/program").Process(st), "")
}

// TestAllowedUnread asks about a process that sees to it that its arguments are never read.
func TestAllowedUnread(t *testing.T) {
	need.Linux(t)
	need.Root(t)
	dir := userFS(t, 0, nil)
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), holdEnv+"="+filepath.Join(dir, "program"))
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { // nothing else lets it go
		unix.Unmount(dir, unix.MNT_FORCE|unix.MNT_DETACH)
		cmd.Process.Kill()
		cmd.Wait()
	}()
	if _, err := io.ReadFull(out, make([]byte, 6)); err != nil {
		t.Fatal(err)
	}
	for locked := false; !locked; { // a thread waits for the page
		threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*", cmd.Process.Pid))
		if err != nil || len(threads) < 2 {
			t.Fatalf("it has gone, %v", err)
		}
		for _, thread := range threads {
			tid, _ := strconv.Atoi(filepath.Base(thread))
			st, err := proc.ReadStat(tid)
			locked = locked || err == nil && st.State == 'D'
		}
	}
	answer := make(chan error, 1)
	g := allowing(t, "cmdline: backup")
	go func() { answer <- g.Process(stat(t, cmd.Process.Pid)) }()
	select {
	case err := <-answer:
		expect(t, "a process whose arguments cannot be read", err, "no answer within")
	case <-time.After(30 * time.Second):
		t.Error("it is waited for for ever")
	}
}
