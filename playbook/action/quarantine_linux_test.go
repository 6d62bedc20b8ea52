package action_test

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"riposte/playbook/action"
	"riposte/stream"
	"riposte/stream/proc"
	"riposte/test/need"
)

// anyone is a guard that protects nobody.
var anyone = watching(func(proc.Stat) error { return nil })

const stepKey = "h1/containment/a-1/book/quarantine"

// vaultEnv has a state folder of its own.
func vaultEnv(t *testing.T) action.Env {
	return action.Env{Guard: anyone, State: t.TempDir(), Key: stepKey, AlertID: "a-1"}
}

// vaulted is the folder of the step's entry.
func vaulted(env action.Env) string {
	return filepath.Join(env.State, "vault", hexSum(env.Key))
}

func hexSum(s string) string {
	sum := sha256.Sum256([]byte(s))
	return hex.EncodeToString(sum[:])
}

// dropped writes a file as an attacker would, and returns its path.
func dropped(t *testing.T, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "dropper")
	write(t, path, content)
	return path
}

func write(t *testing.T, path, content string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o755); err != nil {
		t.Fatal(err)
	}
}

func exists(t *testing.T, path string) bool {
	t.Helper()
	_, err := os.Lstat(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	return err == nil
}

// holds expects the entry of the step to have the content, and nobody to be able to run it.
func holds(t *testing.T, env action.Env, content string) {
	t.Helper()
	path := filepath.Join(vaulted(env), "content")
	got, err := os.ReadFile(path)
	if err != nil || string(got) != content {
		t.Errorf("the vault holds %.40q, %v; want %.40q", got, err, content)
		return
	}
	if info, err := os.Stat(path); err != nil || info.Mode() != 0o400 {
		t.Errorf("the content: %v, %v", info.Mode(), err)
	}
	if info, err := os.Stat(vaulted(env)); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("its folder: %v, %v", info.Mode(), err)
	}
}

// empty expects nothing to be left of an attempt.
func empty(t *testing.T, env action.Env) {
	t.Helper()
	left, err := filepath.Glob(filepath.Join(env.State, "vault", "*"))
	if err != nil || left != nil {
		t.Errorf("in the vault are left %v, %v", left, err)
	}
}

func outcome(t *testing.T, r action.Receipt, want action.Outcome, reason string) {
	t.Helper()
	if r.Outcome != want || !strings.Contains(r.Reason, reason) {
		t.Errorf("got %v, want %s with %q", r, want, reason)
	}
}

func TestQuarantine(t *testing.T) {
	if !inside(t) { // where all processes can be read
		return
	}
	t.Run("the vault is full", func(t *testing.T) {
		env := vaultEnv(t)
		command(t, "mount", "-t", "tmpfs", "-o", "size=36m", "none", env.State)
		defer command(t, "umount", env.State)
		path := dropped(t, "")
		if err := os.Truncate(path, 8<<20); err != nil { // costs an attacker nothing
			t.Fatal(err)
		}
		e := &action.QuarantineFile{Path: path}
		if r, err := e.Apply(t.Context(), env); err == nil || !strings.Contains(err.Error(), "remove entries of its vault") {
			t.Errorf("got %v, %v", r, err)
		}
		empty(t, env)
		write(t, path, "malware")
		outcome(t, apply(t, e, env), action.Quarantined, "7 bytes")
		holds(t, env, "malware")
	})
	t.Run("there and back", func(t *testing.T) {
		env, path := vaultEnv(t), dropped(t, "malware")
		then := time.Date(2020, 2, 2, 20, 20, 20, 123456789, time.UTC)
		if err := errors.Join(os.Chown(path, 65534, 65533), os.Chmod(path, 0o751|os.ModeSetuid), os.Chtimes(path, then, then)); err != nil {
			t.Fatal(err)
		}
		before, _ := os.Stat(path)
		e := &action.QuarantineFile{Path: path, SHA256: strings.ToUpper(hexSum("malware"))}
		notInPlace(t, e, env)
		empty(t, env)
		outcome(t, apply(t, e, env), action.Quarantined, "7 bytes of SHA-256 "+hexSum("malware"))
		if exists(t, path) {
			t.Error("it is still there")
		}
		holds(t, env, "malware")
		inPlace(t, e, env, action.Quarantined)
		outcome(t, apply(t, e, env), action.Quarantined, "")

		back := takenBack(t, e, "restore_file")
		notInPlace(t, back, env)
		other := env
		other.AlertID = "a-2"
		refused(t, back, other, "nothing of "+path+" was quarantined for this alert")
		outcome(t, apply(t, back, env), action.Restored, "mode 4751 of user 65534")
		after, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		if before.Mode() != after.Mode() || !before.ModTime().Equal(after.ModTime()) || !owned(after, 65534, 65533) {
			t.Errorf("it was %v of %v, and is %v of %v, of %+v", before.Mode(), before.ModTime(), after.Mode(), after.ModTime(), after.Sys())
		}
		if got, err := os.ReadFile(path); err != nil || string(got) != "malware" {
			t.Errorf("it has %q, %v", got, err)
		}
		if exists(t, filepath.Join(vaulted(env), "content")) {
			t.Error("it is still in the vault")
		}
		inPlace(t, back, env, action.Restored)
		outcome(t, apply(t, back, env), action.Restored, "")
		refused(t, e, env, "by this very step before, and restored")
		if !exists(t, path) {
			t.Error("what was restored has gone again")
		}
	})
	t.Run("no file", func(t *testing.T) {
		env := vaultEnv(t)
		for _, path := range []string{filepath.Join(t.TempDir(), "none"), "/none/at/all", dropped(t, "file") + "/none"} {
			e := &action.QuarantineFile{Path: path}
			inPlace(t, e, env, action.AlreadyGone)
			outcome(t, apply(t, e, env), action.AlreadyGone, "there is no "+path)
		}
		empty(t, env)
	})
	t.Run("refused", func(t *testing.T) {
		env, dir := vaultEnv(t), t.TempDir()
		runtime := t.TempDir()
		lock := filepath.Join(runtime, "targets", "lock")
		if err := os.Mkdir(filepath.Dir(lock), 0o700); err != nil {
			t.Fatal(err)
		}
		f, err := os.Create(lock)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		env.Locks = []*os.File{f}
		at := func(name string) string { return filepath.Join(dir, name) }
		write(t, at("file"), "precious")
		write(t, filepath.Join(env.State, "receipt"), "precious")
		if err := errors.Join(
			os.Symlink(at("file"), at("link")), os.Symlink(dir, at("folder")), os.Mkdir(at("dir"), 0o755),
			unix.Mkfifo(at("pipe"), 0o644), unix.Mknod(at("device"), unix.S_IFCHR|0o644, int(unix.Mkdev(1, 3))),
			unix.Mknod(at("socket"), unix.S_IFSOCK|0o644, 0), os.WriteFile(at("big"), nil, 0o644), os.Truncate(at("big"), 1<<30+1),
		); err != nil {
			t.Fatal(err)
		}
		// The disk is this machine's, whatever the namespaces: no file of its system is asked for
		// here, but one on a file system that only this test sees.
		var own unix.Statfs_t
		if err := errors.Join(unix.Mount("tmpfs", "/boot", "tmpfs", 0, ""), unix.Statfs("/boot", &own)); err != nil || own.Type != unix.TMPFS_MAGIC {
			t.Fatalf("no file system of its own on /boot: %v", err)
		}
		if err := os.WriteFile("/boot/kernel", nil, 0o644); err != nil {
			t.Fatal(err)
		}
		self, err := os.Readlink("/proc/self/exe")
		if err != nil {
			t.Fatal(err)
		}
		for path, why := range map[string]string{
			at("link"):                              "a symbolic link, no regular file",
			at("folder/file"):                       `"folder" is a symbolic link`,
			at("dir"):                               "a folder, no",
			at("pipe"):                              "a pipe, no",
			at("device"):                            "a device, no",
			at("socket"):                            "a socket, no",
			at("big"):                               "more than 1073741824",
			dir + "/dir/../file":                    "without . and ..",
			dir + "//file":                          "needless slashes",
			"file":                                  "not the absolute path",
			"/":                                     "not the absolute path",
			"":                                      "not the absolute path",
			at("a\x00b"):                            "has a NUL",
			at("a\uFFFDb"):                          "not all UTF-8",
			at("a\xffb"):                            "not all UTF-8",
			at(strings.Repeat("x", 300)):            "its name is too long",
			at(strings.Repeat("x", 300) + "/file"):  "is too long for a name",
			"/" + strings.Repeat("x/", 2100) + "x":  "more than 4096 bytes",
			"/proc/self/environ":                    "a file system of the kernel's (proc)",
			"/proc/sys/kernel/core_pattern":         "a file system of the kernel's (proc)",
			"/boot/kernel":                          "a file of the system's",
			self:                                    "is Riposte",
			filepath.Join(env.State, "receipt"):     "a folder of Riposte's own",
			filepath.Join(env.State, "vault/x/y"):   "a folder of Riposte's own",
			lock:                                    "a folder of Riposte's own",
			filepath.Join(runtime, "steps/receipt"): "a folder of Riposte's own",
		} {
			refused(t, &action.QuarantineFile{Path: path}, env, why)
		}
		e := &action.QuarantineFile{Path: at("file"), SHA256: hexSum("malware")}
		refused(t, e, env, "is "+hexSum("precious")+", not "+hexSum("malware"))
		refused(t, &action.QuarantineFile{Path: at("file"), SHA256: "abc"}, env, "is not a SHA-256")
		empty(t, env)
		none := env
		none.State = ""
		refused(t, &action.QuarantineFile{Path: at("file")}, none, "set --state-dir")
		if got, err := os.ReadFile(at("file")); err != nil || string(got) != "precious" {
			t.Errorf("%q, %v", got, err)
		}
	})
	t.Run("hard links", func(t *testing.T) {
		env, path := vaultEnv(t), dropped(t, "malware")
		if err := errors.Join(os.Link(path, path+"2"), os.Link(path, path+"3")); err != nil {
			t.Fatal(err)
		}
		outcome(t, apply(t, &action.QuarantineFile{Path: path}, env), action.Quarantined, "it has 2 more names")
		if exists(t, path) || !exists(t, path+"2") {
			t.Error("it has the wrong names")
		}
	})
	t.Run("put back by somebody else", func(t *testing.T) {
		env, path := vaultEnv(t), dropped(t, "malware")
		e := &action.QuarantineFile{Path: path}
		apply(t, e, env)
		write(t, path, "innocent")
		inPlace(t, e, env, action.Quarantined)
		outcome(t, apply(t, e, env), action.Quarantined, "another file stands there by now")
		refused(t, takenBack(t, e, "restore_file"), env, "another file stands at")
		write(t, path, "malware")
		notInPlace(t, e, env)
		outcome(t, apply(t, e, env), action.Quarantined, "")
		if exists(t, path) {
			t.Error("it is still there")
		}
		holds(t, env, "malware")
	})
	t.Run("restored by name", func(t *testing.T) {
		env, path := vaultEnv(t), dropped(t, "malware")
		apply(t, &action.QuarantineFile{Path: path}, env)
		env.AlertID = "another"
		refused(t, &action.RestoreFile{Entry: hexSum("none")}, env, "there is no entry")
		refused(t, &action.RestoreFile{Entry: "../../etc"}, env, "is not the name of a folder")
		refused(t, &action.RestoreFile{}, env, "neither")
		refused(t, &action.RestoreFile{Entry: hexSum(stepKey), Path: "/other"}, env, "is about "+path)
		outcome(t, apply(t, &action.RestoreFile{Entry: hexSum(stepKey)}, env), action.Restored, path)
		if got, err := os.ReadFile(path); err != nil || string(got) != "malware" {
			t.Errorf("it has %q, %v", got, err)
		}
	})
	t.Run("restored twice over", func(t *testing.T) {
		// The file is back already, by another's hand: first as nobody's, and with setuid.
		env, path := vaultEnv(t), dropped(t, "malware")
		e := &action.QuarantineFile{Path: path}
		apply(t, e, env)
		write(t, path, "malware")
		back := takenBack(t, e, "restore_file")
		if err := errors.Join(os.Chown(path, 65534, 65534), os.Chmod(path, 0o755|os.ModeSetuid)); err != nil {
			t.Fatal(err)
		}
		refused(t, back, env, "but was 755 of 0:0 and is 4755 of 65534:65534")
		holds(t, env, "malware")
		if err := errors.Join(os.Chown(path, 0, 0), os.Chmod(path, 0o755)); err != nil {
			t.Fatal(err)
		}
		notInPlace(t, back, env) // for it is in the vault as well
		outcome(t, apply(t, back, env), action.Restored, "")
		inPlace(t, back, env, action.Restored)
	})
	t.Run("not restored", func(t *testing.T) {
		env, path := vaultEnv(t), dropped(t, "malware")
		e := &action.QuarantineFile{Path: path}
		back := takenBack(t, e, "restore_file")
		refused(t, back, env, "the vault is empty")
		apply(t, e, env)
		second := env
		second.Key += "2"
		write(t, path, "more of it")
		apply(t, e, second)
		refused(t, back, env, "more than once for this alert")
		content := filepath.Join(vaulted(env), "content")
		if err := os.Chmod(content, 0o600); err != nil {
			t.Fatal(err)
		}
		write(t, content, "MALWARE")
		if _, err := (&action.RestoreFile{Entry: hexSum(stepKey)}).Apply(t.Context(), env); err == nil || !strings.Contains(err.Error(), "is not what was put there") {
			t.Errorf("what was tampered with was restored: %v", err)
		}
		if err := os.RemoveAll(filepath.Dir(path)); err != nil {
			t.Fatal(err)
		}
		if _, err := (&action.RestoreFile{Entry: hexSum(second.Key)}).Apply(t.Context(), env); err == nil || !strings.Contains(err.Error(), "make it again first") {
			t.Errorf("restored into nowhere: %v", err)
		}
	})
	t.Run("entry of another file", func(t *testing.T) {
		env, path := vaultEnv(t), dropped(t, "malware")
		apply(t, &action.QuarantineFile{Path: path}, env)
		refused(t, &action.QuarantineFile{Path: dropped(t, "other")}, env, "is about "+path)
	})
	t.Run("own user", func(t *testing.T) {
		env, path := vaultEnv(t), dropped(t, "malware")
		env.OwnUID = true
		if err := os.Chown(path, 65534, 65534); err != nil {
			t.Fatal(err)
		}
		refused(t, &action.QuarantineFile{Path: path}, env, "belongs to user 65534")
	})
	t.Run("in place by another's copy", func(t *testing.T) {
		// An inode number that was given out again does not make another file this one.
		env, path := vaultEnv(t), dropped(t, "malware")
		e := &action.QuarantineFile{Path: path}
		apply(t, e, env)
		for range 100 {
			write(t, path, "other!!")
			inPlace(t, e, env, action.Quarantined)
			os.Remove(path)
		}
	})
}

func owned(info os.FileInfo, uid, gid uint32) bool {
	st := info.Sys().(*syscall.Stat_t)
	return st.Uid == uid && st.Gid == gid
}

// TestQuarantineFUSE asks for a file on a file system that never answers.
func TestQuarantineFUSE(t *testing.T) {
	if !inside(t) {
		return
	}
	dev, err := unix.Open("/dev/fuse", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	options := fmt.Sprintf("fd=%d,rootmode=40000,user_id=65534,group_id=65534,allow_other", dev)
	if err := unix.Mount("fuse", dir, "fuse", unix.MS_NOSUID|unix.MS_NODEV, options); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Unmount(dir, unix.MNT_FORCE|unix.MNT_DETACH); unix.Close(dev) })
	env := vaultEnv(t)
	for _, path := range []string{dir + "/file", dir + "/folder/file", dir} {
		refused(t, &action.QuarantineFile{Path: path}, env, "FUSE")
	}
}

// TestQuarantineRunning takes away what processes run.
func TestQuarantineRunning(t *testing.T) {
	if !inside(t) {
		return
	}
	body, err := os.ReadFile(need.Binary(t, "sleep"))
	if err != nil {
		t.Fatal(err)
	}
	program := string(body)
	// running starts a program and names its file as an alert does.
	running := func(t *testing.T, path string, argv ...string) (victim, *action.QuarantineFile) {
		t.Helper()
		v := start(t, exec.Command(path, append(argv, "1000")...), false)
		p := v.effect(0).Process
		until(t, "it runs", func() bool { exe, err := proc.ReadExe(v.Process.Pid); return err == nil && exe == path })
		return v, &action.QuarantineFile{Path: path, Process: &p}
	}
	t.Run("ordinary", func(t *testing.T) {
		env, path := vaultEnv(t), copyOf(t, "sleep", "malware")
		v, e := running(t, path)
		outcome(t, apply(t, e, env), action.Quarantined, "")
		holds(t, env, program)
		inPlace(t, e, env, action.Quarantined)
		if exists(t, path) {
			t.Error("it is still there")
		}
		v.untouched()
	})
	t.Run("deleted", func(t *testing.T) {
		env, path := vaultEnv(t), copyOf(t, "sleep", "malware")
		v, e := running(t, path)
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		notInPlace(t, e, env)
		wrong := *e
		wrong.SHA256 = hexSum("other")
		refused(t, &wrong, env, "not "+hexSum("other"))
		outcome(t, apply(t, e, env), action.Quarantined, "nothing had been left of it there")
		holds(t, env, program)
		inPlace(t, e, env, action.Quarantined)
		refused(t, takenBack(t, e, "restore_file"), env, "stays in entry")
		v.untouched()
	})
	t.Run("deleted, and another put there", func(t *testing.T) {
		env, path := vaultEnv(t), copyOf(t, "sleep", "malware")
		_, e := running(t, path)
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		write(t, path, "precious")
		outcome(t, apply(t, e, env), action.Quarantined, "another file stands there")
		holds(t, env, program)
		if got, err := os.ReadFile(path); err != nil || string(got) != "precious" {
			t.Errorf("the other file: %q, %v", got, err)
		}
	})
	t.Run("deleted, with another name", func(t *testing.T) {
		env, path := vaultEnv(t), copyOf(t, "sleep", "malware")
		if err := os.Link(path, path+"2"); err != nil {
			t.Fatal(err)
		}
		_, e := running(t, path)
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		outcome(t, apply(t, e, env), action.Quarantined, "it has 1 more names")
	})
	t.Run("named as if deleted", func(t *testing.T) {
		env, path := vaultEnv(t), copyOf(t, "sleep", "malware (deleted)")
		v := start(t, exec.Command(path, "1000"), false)
		until(t, "it runs", func() bool {
			exe, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", v.Process.Pid))
			return err == nil && exe == path
		})
		p := v.effect(0).Process
		e := &action.QuarantineFile{Path: strings.TrimSuffix(path, " (deleted)"), Process: &p}
		outcome(t, apply(t, e, env), action.Quarantined, "")
		if exists(t, path) {
			t.Error("it is still there")
		}
		outcome(t, apply(t, takenBack(t, e, "restore_file"), env), action.Restored, path)
	})
	t.Run("in memory", func(t *testing.T) {
		env := vaultEnv(t)
		fd, err := unix.MemfdCreate("malware", 0)
		if err != nil {
			t.Fatal(err)
		}
		f := os.NewFile(uintptr(fd), "malware")
		defer f.Close()
		if _, err := f.WriteString(program); err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command("/proc/self/fd/3", "1000")
		cmd.ExtraFiles = []*os.File{f}
		v := start(t, cmd, false)
		until(t, "it runs", func() bool { exe, err := proc.ReadExe(v.Process.Pid); return err == nil && exe == "/memfd:malware" })
		p := v.effect(0).Process
		e := &action.QuarantineFile{Path: "/memfd:malware", Process: &p}
		outcome(t, apply(t, e, env), action.Quarantined, "nothing had been left of it there")
		holds(t, env, program)
	})
	t.Run("another program by now", func(t *testing.T) {
		env, path := vaultEnv(t), dropped(t, "malware")
		_, e := running(t, copyOf(t, "sleep", "other"))
		e.Path = path
		outcome(t, apply(t, e, env), action.Quarantined, "")
		holds(t, env, "malware")
		gone := vaultEnv(t)
		outcome(t, apply(t, e, gone), action.AlreadyGone, "runs ")
		empty(t, gone)
	})
	t.Run("gone", func(t *testing.T) {
		env, path := vaultEnv(t), copyOf(t, "sleep", "malware")
		v, e := running(t, path)
		v.Process.Kill()
		v.Wait()
		outcome(t, apply(t, e, env), action.Quarantined, "")
		holds(t, env, program)
	})
	t.Run("in another mount namespace", func(t *testing.T) {
		env, path := vaultEnv(t), copyOf(t, "sleep", "malware")
		there := copyOf(t, "sleep", "there")
		v := start(t, exec.Command("unshare", "--mount", "sh", "-c", `mount --bind "$1" "$2" && exec "$2" 1000`, "sh", there, path), false)
		until(t, "it runs", func() bool { exe, err := proc.ReadExe(v.Process.Pid); return err == nil && exe == path })
		p := v.effect(0).Process
		refused(t, &action.QuarantineFile{Path: path, Process: &p}, env, "in another mount namespace")
		if !exists(t, path) || !exists(t, there) {
			t.Error("the wrong file has gone")
		}
	})
	t.Run("protected", func(t *testing.T) {
		env, path := vaultEnv(t), copyOf(t, "sleep", "service")
		v, e := running(t, path)
		env.Guard = sparing{pid: v.Process.Pid}
		refused(t, e, env, "is spared")
		refused(t, &action.QuarantineFile{Path: path}, env, "what a protected process runs")
		if !exists(t, path) {
			t.Error("it has gone")
		}
		v.untouched()
	})
	t.Run("reused", func(t *testing.T) {
		env, path := vaultEnv(t), copyOf(t, "sleep", "malware")
		_, e := running(t, path)
		e.Process.StartTicks++
		refused(t, e, env, "was reused")
	})
}

// TestQuarantineKilled has those that quarantine and restore die wherever they can.
func TestQuarantineKilled(t *testing.T) {
	if !inside(t) {
		return
	}
	content := strings.Repeat("malware ", 1<<18) // several times what is copied at once
	copied, linked := 0, 0
	for nth := int64(1); ; nth++ {
		env, path := vaultEnv(t), dropped(t, content)
		env.Guard = &shared
		e := &action.QuarantineFile{Path: path}
		died := dies(t, "quarantine_file", e, env, nth)
		if died && exists(t, filepath.Join(vaulted(env), "manifest.json")) && exists(t, path) {
			copied++
		}
		outcome(t, succeed(t, e, env), action.Quarantined, "")
		inPlace(t, e, env, action.Quarantined)
		if exists(t, path) {
			t.Errorf("after a death at %d it is still there", nth)
		}
		holds(t, env, content)
		back := takenBack(t, e, "restore_file")
		if dies(t, "restore_file", back, env, nth) {
			died = true
			if exists(t, path) {
				linked++
			}
		}
		outcome(t, succeed(t, back, env), action.Restored, "")
		inPlace(t, back, env, action.Restored)
		if got, err := os.ReadFile(path); err != nil || string(got) != content {
			t.Errorf("after a death at %d it has %.40q, %v", nth, got, err)
		}
		if exists(t, filepath.Join(vaulted(env), "content")) {
			t.Errorf("after a death at %d it is still in the vault", nth)
		}
		if left, _ := filepath.Glob(filepath.Dir(path) + "/*"); len(left) != 1 {
			t.Errorf("after a death at %d there are left %v", nth, left)
		}
		if !died {
			break
		}
	}
	if copied == 0 || linked < 2 {
		t.Errorf("died %d times between copy and unlink, %d times between link and the end", copied, linked)
	}
}

// TestQuarantineChanged has the file written to after it was copied and before it was removed.
func TestQuarantineChanged(t *testing.T) {
	if !inside(t) {
		return
	}
	for nth := int64(1); ; nth++ {
		env, path := vaultEnv(t), dropped(t, "malware")
		env.Guard = &shared
		e := &action.QuarantineFile{Path: path}
		if !dies(t, "quarantine_file", e, env, nth) {
			t.Fatal("it never died between the copy and the end")
		}
		if !exists(t, filepath.Join(vaulted(env), "manifest.json")) {
			continue
		}
		f, err := os.OpenFile(path, os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		f.WriteString("MALWARE") // as long as it was
		f.Close()
		notInPlace(t, e, env)
		outcome(t, apply(t, e, env), action.Quarantined, "")
		holds(t, env, "MALWARE")
		if exists(t, path) {
			t.Error("it is still there")
		}
		return
	}
}

// meddling is a context in which something happens when it is asked for the nth time whether
// to go on.
type meddling struct {
	context.Context
	left atomic.Int64
	do   func()
}

func (m *meddling) Err() error {
	if m.left.Add(-1) == 0 {
		m.do()
	}
	return nil
}

// TestQuarantineSwapped has an attacker put something else in the place of the file, or of its
// folder, at each moment. Nothing else may come to harm.
func TestQuarantineSwapped(t *testing.T) {
	if !inside(t) {
		return
	}
	for what, swap := range map[string]func(path, precious string) error{
		"a symbolic link": func(path, precious string) error {
			return errors.Join(os.Remove(path), os.Symlink(precious, path))
		},
		"a symbolic link for the folder": func(path, precious string) error {
			dir := filepath.Dir(path)
			return errors.Join(os.Rename(dir, dir+"-away"), os.Symlink(filepath.Dir(precious), dir))
		},
		"another file": func(path, precious string) error {
			return errors.Join(os.Remove(path), os.WriteFile(path, []byte("another"), 0o644))
		},
		"nothing": func(path, precious string) error { return os.Remove(path) },
	} {
		for nth := int64(1); ; nth++ {
			env := vaultEnv(t)
			path := filepath.Join(t.TempDir(), "sub", "file")
			precious := filepath.Join(t.TempDir(), "file")
			if err := os.Mkdir(filepath.Dir(path), 0o755); err != nil {
				t.Fatal(err)
			}
			write(t, path, "malware")
			write(t, precious, "precious")
			happened := false
			ctx := &meddling{Context: t.Context(), do: func() {
				happened = true
				if err := swap(path, precious); err != nil && !errors.Is(err, fs.ErrNotExist) {
					t.Error(err)
				}
			}}
			ctx.left.Store(nth)
			e := &action.QuarantineFile{Path: path}
			r, err := e.Apply(ctx, env)
			if err == nil && r.Outcome != action.Quarantined {
				t.Errorf("%s at %d: %v", what, nth, r)
			}
			if got, err := os.ReadFile(precious); err != nil || string(got) != "precious" {
				t.Fatalf("%s at %d: what was precious is %q, %v", what, nth, got, err)
			}
			if got, err := os.ReadFile(path); what == "another file" && happened && (err != nil || string(got) != "another") {
				t.Errorf("%s at %d: it is %q, %v", what, nth, got, err)
			}
			if !happened {
				if nth < 4 {
					t.Errorf("%s: only %d moments", what, nth)
				}
				break
			}
		}
	}
}

func TestQuarantineResolve(t *testing.T) {
	seen := action.Seen{Until: time.Unix(101, 0).UTC()}
	digest := hexSum("x")
	for _, c := range []struct {
		spec        action.Spec
		alert, want string
	}{
		{&action.QuarantineSpec{Path: "alert.process.exe"}, `{"level":"HIGH"}`, `null`},
		{&action.QuarantineSpec{Path: "alert.process.exe"}, `{"actionable_pid":7}`, `null`},
		{&action.QuarantineSpec{Path: "alert.process.exe"}, `{"process":{"pid":7,"exe":"/tmp/x (deleted)"}}`,
			`{"path":"/tmp/x","process":{"pid":7,"described_pid":7,"exe":"/tmp/x (deleted)","seen_until":"1970-01-01T00:01:41Z"}}`},
		{&action.QuarantineSpec{Path: "alert.process.exe", SHA256: digest}, `{"process":{"exe":"../x"}}`, `{"path":"../x","sha256":"` + digest + `"}`},
		{&action.QuarantineSpec{Path: "/tmp/y"}, `{"process":{"pid":7,"exe":"/tmp/x"}}`, `{"path":"/tmp/y"}`},
		{&action.RestoreSpec{Path: "alert.process.exe"}, `{"level":"HIGH"}`, `null`},
		{&action.RestoreSpec{Path: "alert.process.exe"}, `{"process":{"exe":"/tmp/x (deleted)"}}`, `{"path":"/tmp/x"}`},
		{&action.RestoreSpec{Path: "alert.process.exe", Entry: strings.ToUpper(digest)}, `{"process":{"exe":"/tmp/x"}}`, `{"entry":"` + digest + `"}`},
		{&action.RestoreSpec{Path: "/tmp/y", Entry: digest}, `{}`, `{"path":"/tmp/y","entry":"` + digest + `"}`},
	} {
		a, err := stream.Decode([]byte(c.alert), "1-0")
		if err != nil {
			t.Fatal(err)
		}
		if raw, err := json.Marshal(c.spec.Resolve(a, seen)); err != nil || string(raw) != c.want {
			t.Errorf("%+v of %s: got %s, %v; want %s", c.spec, c.alert, raw, err, c.want)
		}
	}
}
