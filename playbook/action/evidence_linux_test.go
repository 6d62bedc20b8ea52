package action_test

import (
	"archive/tar"
	"compress/gzip"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"riposte/playbook/action"
	"riposte/stream/proc"
	"riposte/test/need"
)

// evidence is what an archive holds.
type evidence struct {
	parts   map[string]string // by name
	members map[string]evidenceMember
	PID     int64     `json:"pid"`
	Ticks   uint64    `json:"start_ticks"`
	BootID  string    `json:"boot_id"`
	Key     string    `json:"key"`
	Alert   string    `json:"alert_id"`
	Begun   time.Time `json:"begun"`
	Ended   time.Time `json:"ended"`
	Alive   bool      `json:"alive_at_end"`
	Changed bool      `json:"exe_changed"`
	Members []evidenceMember
}

type evidenceMember struct {
	Name        string
	Size        int64
	SHA256      string
	Truncated   bool
	Error       string
	WholeSize   int64  `json:"whole_size"`
	WholeSHA256 string `json:"whole_sha256"`
}

// readEvidence reads an archive and holds every member to the manifest, which must be the
// last, and the file to the sum and size in the receipt's reason.
func readEvidence(t *testing.T, r action.Receipt) evidence {
	t.Helper()
	m := regexp.MustCompile(` in (\S+), SHA-256 ([0-9a-f]{64}), ([0-9]+) bytes`).FindStringSubmatch(r.Reason)
	if m == nil || r.Outcome != action.Collected {
		t.Fatalf("%+v names no file", r)
	}
	raw, err := os.ReadFile(m[1])
	if err != nil {
		t.Fatal(err)
	}
	if sum := sha256.Sum256(raw); hex.EncodeToString(sum[:]) != m[2] || strconv.Itoa(len(raw)) != m[3] {
		t.Errorf("%d bytes with the sum %x; the receipt says %s", len(raw), sum, r.Reason)
	}
	if st, err := os.Stat(m[1]); err != nil || st.Mode() != 0o600 {
		t.Errorf("mode %v, %v", st.Mode(), err)
	}
	gz, err := gzip.NewReader(strings.NewReader(string(raw)))
	if err != nil {
		t.Fatal(err)
	}
	e := evidence{parts: map[string]string{}, members: map[string]evidenceMember{}}
	files, last := tar.NewReader(gz), ""
	for {
		h, err := files.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		part, err := io.ReadAll(files)
		if err != nil {
			t.Fatal(err)
		}
		last, e.parts[h.Name] = h.Name, string(part)
	}
	if last != "manifest.json" {
		t.Errorf("the last member is %s", last)
	}
	if err := json.Unmarshal([]byte(e.parts["manifest.json"]), &e); err != nil {
		t.Fatal(err)
	}
	delete(e.parts, "manifest.json")
	for _, m := range e.Members {
		e.members[m.Name] = m
		part, there := e.parts[m.Name]
		if sum := sha256.Sum256([]byte(part)); there != (m.SHA256 != "") || there && (hex.EncodeToString(sum[:]) != m.SHA256 || int64(len(part)) != m.Size) {
			t.Errorf("%s is there: %t, %d bytes, %x; the manifest says %+v", m.Name, there, len(part), sum, m)
		}
	}
	for name := range e.parts {
		if _, ok := e.members[name]; !ok {
			t.Errorf("%s is not in the manifest", name)
		}
	}
	return e
}

// evidenceEnv has a state folder of its own, and a guard that says no to everything.
func evidenceEnv(t *testing.T) action.Env {
	return action.Env{Guard: closed{}, State: t.TempDir(), Key: "h1/containment/a-1/book/evidence", AlertID: "a-1"}
}

func (v victim) evidence() *action.CollectEvidence {
	return &action.CollectEvidence{Process: v.effect(0).Process, MaxSize: 64 << 20}
}

// runs waits until the process is past its exec.
func (v victim) runs(name string) {
	v.t.Helper()
	until(v.t, "it runs "+name, func() bool { info, err := proc.Read(v.Process.Pid); return err == nil && info.Name == name })
}

// largeSleep is a program of more than a megabyte that no compression makes smaller.
func largeSleep(t *testing.T) string {
	t.Helper()
	path := copyOf(t, "sleep", "large")
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err = io.CopyN(file, rand.Reader, 2<<20); errors.Join(err, file.Close()) != nil {
		t.Fatal(err)
	}
	return path
}

// files are what is in the folder of evidence.
func files(t *testing.T, env action.Env) []string {
	t.Helper()
	var names []string
	entries, err := os.ReadDir(filepath.Join(env.State, "evidence"))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

// lines decodes a member of one JSON object a line, by the field that is the key.
func lines(t *testing.T, text, key string) map[string]map[string]any {
	t.Helper()
	all := map[string]map[string]any{}
	for line := range strings.Lines(text) {
		var one map[string]any
		if err := json.Unmarshal([]byte(line), &one); err != nil {
			t.Fatalf("%v: %s", err, line)
		}
		all[fmt.Sprint(one[key])] = one
	}
	return all
}

func TestEvidence(t *testing.T) {
	if !inside(t) {
		return
	}
	t.Run("all of it", func(t *testing.T) {
		env := evidenceEnv(t)
		command(t, "ip", "link", "set", "lo", "up")
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer listener.Close()
		conn, err := net.Dial("tcp", listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		sock, err := conn.(*net.TCPConn).File()
		if err != nil {
			t.Fatal(err)
		}
		defer sock.Close()
		pair, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(t.TempDir(), "a socket"), Net: "unix"})
		if err != nil {
			t.Fatal(err)
		}
		defer pair.Close()
		local, err := pair.File()
		if err != nil {
			t.Fatal(err)
		}
		defer local.Close()
		loot := filepath.Join(t.TempDir(), "loot")
		if err := os.WriteFile(loot, []byte("0123456789"), 0o640); err != nil {
			t.Fatal(err)
		}
		file, err := os.Open(loot)
		if err != nil {
			t.Fatal(err)
		}
		defer file.Close()
		file.Seek(4, io.SeekStart)
		cmd := exec.Command(copyOf(t, "sleep", "dropper"), "1000")
		cmd.ExtraFiles = []*os.File{sock, local, file}
		cmd.Dir = filepath.Dir(loot)
		cmd.Env = []string{"HOME=/root", "DB_PASSWORD=hunter2", "redis_url=redis://bob:hunter2@db:6379/0", "AWS_SECRET_ACCESS_KEY=hunter2", "PWD=/here", "EMPTY_TOKEN="}
		v := start(t, cmd, false)
		v.runs("dropper")
		e := v.evidence()
		if r, inPlace, err := e.Probe(t.Context(), env); inPlace || err != nil {
			t.Fatal(r, inPlace, err)
		}
		if left := files(t, env); left != nil {
			t.Errorf("probe has left %v", left)
		}
		before := time.Now()
		if err := os.Remove(cmd.Path); err != nil {
			t.Fatal(err)
		}
		r := apply(t, e, env)
		got := readEvidence(t, r)
		st, _ := proc.ReadStat(v.Process.Pid)
		boot, _ := proc.BootID()
		if got.PID != e.PID || got.Ticks != st.StartTicks || got.BootID != boot || got.Key != env.Key || got.Alert != "a-1" ||
			got.Begun.Before(before) || got.Ended.Before(got.Begun) || got.Ended.After(time.Now()) || !got.Alive || got.Changed {
			t.Errorf("%+v", got)
		}
		for _, m := range got.Members {
			if m.Error != "" || m.Truncated {
				t.Errorf("%+v", m)
			}
		}
		program, err := os.ReadFile(need.Binary(t, "sleep"))
		if err != nil || got.parts["exe"] != string(program) {
			t.Errorf("the executable has %d bytes, not %d, %v", len(got.parts["exe"]), len(program), err)
		}
		if want := cmd.Path + "\x001000\x00"; got.parts["cmdline"] != want {
			t.Errorf("cmdline %q", got.parts["cmdline"])
		}
		if want := "HOME=/root\x00DB_PASSWORD=[redacted, 7 bytes]\x00redis_url=redis://[redacted, 11 bytes]@db:6379/0\x00" +
			"AWS_SECRET_ACCESS_KEY=[redacted, 7 bytes]\x00PWD=/here\x00EMPTY_TOKEN=[redacted, 0 bytes]\x00"; got.parts["environ"] != want {
			t.Errorf("environ %q", got.parts["environ"])
		}
		var links map[string]string
		if err := json.Unmarshal([]byte(got.parts["links.json"]), &links); err != nil {
			t.Fatal(err)
		}
		ns, _ := os.Readlink("/proc/self/ns/net")
		if links["exe"] != cmd.Path+" (deleted)" || links["cwd"] != cmd.Dir || links["root"] != "/" || links["ns/net"] != ns || links["ns/pid"] == "" {
			t.Errorf("links %v", links)
		}
		fds := lines(t, got.parts["fds.ndjson"], "fd")
		address := func(fd, field string) any { return fds[fd]["sockets"].([]any)[0].(map[string]any)[field] }
		if address("3", "local") != conn.LocalAddr().String() || address("3", "remote") != listener.Addr().String() || address("3", "protocol") != "tcp" || address("3", "state") != "established" {
			t.Errorf("fd 3: %v", fds["3"])
		}
		if address("4", "path") != pair.Addr().String() || address("4", "protocol") != "unix" {
			t.Errorf("fd 4: %v", fds["4"])
		}
		if fds["5"]["target"] != loot || fds["5"]["pos"] != "4" || fds["5"]["flags"] == "" {
			t.Errorf("fd 5: %v", fds["5"])
		}
		open := lines(t, got.parts["open_files.ndjson"], "path")
		if f := open[loot]; len(open) != 1 || fmt.Sprint(f["fds"]) != "[5]" || f["size"] != 10.0 || f["mode"] != "640" {
			t.Errorf("open files %v", open)
		}
		parents := lines(t, got.parts["parents.ndjson"], "pid")
		own, _ := proc.ReadStat(os.Getpid())
		if p := parents[strconv.Itoa(os.Getpid())]; p["start_ticks"] != float64(own.StartTicks) || !strings.HasPrefix(fmt.Sprint(p["argv"]), "["+os.Args[0]) || parents["1"]["name"] != "sh" {
			t.Errorf("parents %v", parents)
		}
		for part, want := range map[string]string{"stat": "(dropper)", "status": "Name:\tdropper", "limits": "Max open files", "maps": "[stack]", "cgroup": "0::/"} {
			if !strings.Contains(got.parts[part], want) {
				t.Errorf("%s: %q", part, got.parts[part])
			}
		}
		// The same step again finds what is there, also when the process has gone.
		if again := apply(t, e, env); again != r {
			t.Errorf("again: %+v, first %+v", again, r)
		}
		v.untouched()
		if p, inPlace, err := e.Probe(t.Context(), env); p != r || !inPlace || err != nil {
			t.Errorf("probe: %+v, %t, %v; want %+v", p, inPlace, err, r)
		}
		if left := files(t, env); len(left) != 1 || !regexp.MustCompile(`^[0-9a-f]{32}\.tar\.gz$`).MatchString(left[0]) {
			t.Errorf("files %v", left)
		}
		env.Key += "2" // another step finds nothing
		if r := apply(t, e, env); r.Outcome != action.AlreadyGone {
			t.Errorf("%+v", r)
		}
		if p, inPlace, err := e.Probe(t.Context(), env); p.Outcome != action.AlreadyGone || !inPlace || err != nil {
			t.Errorf("probe: %+v, %t, %v", p, inPlace, err)
		}
	})
	t.Run("memfd", func(t *testing.T) {
		fd, err := unix.MemfdCreate("", unix.MFD_CLOEXEC)
		if err != nil {
			t.Fatal(err)
		}
		program := os.NewFile(uintptr(fd), "memfd")
		defer program.Close()
		body, err := os.ReadFile(need.Binary(t, "sleep"))
		if _, werr := program.Write(body); errors.Join(err, werr) != nil {
			t.Fatal(err, werr)
		}
		v := start(t, &exec.Cmd{Path: fmt.Sprintf("/proc/self/fd/%d", fd), Args: []string{"sleep", "1000"}}, false)
		until(t, "it runs", func() bool {
			exe, err := proc.ReadExe(v.Process.Pid)
			return err == nil && strings.HasPrefix(exe, "/memfd:")
		})
		got := readEvidence(t, apply(t, v.evidence(), evidenceEnv(t)))
		if got.parts["exe"] != string(body) || !strings.Contains(got.parts["links.json"], `"/memfd: (deleted)"`) {
			t.Errorf("%d bytes, links %s", len(got.parts["exe"]), got.parts["links.json"])
		}
	})
	t.Run("suspended", func(t *testing.T) {
		v := sleeper(t)
		v.runs("sleep")
		v.Process.Signal(syscall.SIGSTOP)
		until(t, "it is stopped", func() bool { st, _ := proc.ReadStat(v.Process.Pid); return st.State == 'T' })
		got := readEvidence(t, apply(t, v.evidence(), evidenceEnv(t)))
		if !strings.Contains(got.parts["status"], "T (stopped)") || !got.Alive || got.members["exe"].Size == 0 {
			t.Errorf("%+v", got.Members)
		}
		if st, _ := proc.ReadStat(v.Process.Pid); st.State != 'T' {
			t.Errorf("it is in state %c", st.State)
		}
	})
	t.Run("first thread has exited", func(t *testing.T) {
		cmd := exec.Command("/proc/self/exe")
		cmd.Env = append(os.Environ(), helperEnv+"=leader-exit")
		v := start(t, cmd, true)
		until(t, "it looks like a zombie", func() bool { st, _ := proc.ReadStat(v.Process.Pid); return st.Zombie() })
		got := readEvidence(t, apply(t, v.evidence(), evidenceEnv(t)))
		if got.members["exe"].Size == 0 || !strings.Contains(got.parts["environ"], helperEnv) || got.parts["maps"] == "" {
			t.Errorf("%+v", got.Members)
		}
	})
	t.Run("protected", func(t *testing.T) {
		// The floor is under what is done to a process: what Riposte itself is may be read.
		e := &action.CollectEvidence{Process: action.Process{PID: int64(os.Getppid()), SeenUntil: time.Now()}, MaxSize: 1 << 20}
		if got := readEvidence(t, apply(t, e, evidenceEnv(t))); !strings.Contains(got.parts["cmdline"], "parent") {
			t.Errorf("cmdline %q", got.parts["cmdline"])
		}
		refused(t, &action.CollectEvidence{Process: action.Process{PID: 1, SeenUntil: time.Now()}, MaxSize: 1 << 20}, evidenceEnv(t), "not one to act on")
	})
	t.Run("identity", func(t *testing.T) {
		v := sleeper(t)
		env := evidenceEnv(t)
		for why, change := range map[string]func(*action.CollectEvidence){
			"was reused":         func(e *action.CollectEvidence) { e.StartTicks++ },
			"another boot":       func(e *action.CollectEvidence) { e.BootID = "00000000-0000-0000-0000-000000000000" },
			"PID namespace":      func(e *action.CollectEvidence) { e.PIDNS = proc.InitialPIDNamespace },
			"contradicts itself": func(e *action.CollectEvidence) { e.Described++ },
			"max_size":           func(e *action.CollectEvidence) { e.MaxSize = 2 << 30 },
		} {
			e := v.evidence()
			change(e)
			refused(t, e, env, why)
		}
		if left := files(t, env); len(left) != 0 {
			t.Errorf("files %v", left)
		}
		v.untouched()
	})
	t.Run("no place", func(t *testing.T) {
		v := sleeper(t)
		env := evidenceEnv(t)
		env.State = ""
		if _, err := v.evidence().Apply(t.Context(), env); err == nil || !strings.Contains(err.Error(), "--state-dir") {
			t.Error(err)
		}
		if _, _, err := v.evidence().Probe(t.Context(), env); err == nil || !strings.Contains(err.Error(), "--state-dir") {
			t.Error(err)
		}
		env = evidenceEnv(t)
		if err := os.Symlink(t.TempDir(), filepath.Join(env.State, "evidence")); err != nil {
			t.Fatal(err)
		}
		if _, err := v.evidence().Apply(t.Context(), env); err == nil || !strings.Contains(err.Error(), "want a folder") {
			t.Error(err)
		}
		env = evidenceEnv(t)
		command(t, "mount", "-t", "tmpfs", "-o", "size=64m", "none", env.State)
		defer command(t, "umount", env.State)
		if _, err := v.evidence().Apply(t.Context(), env); err == nil || !strings.Contains(err.Error(), "MiB left, less than max_size (64MiB)") {
			t.Error(err)
		}
		e := v.evidence()
		e.MaxSize = 16 << 20
		readEvidence(t, apply(t, e, env))
	})
	t.Run("cut", func(t *testing.T) {
		// An executable that does not fit, and an environment that would crowd out all else.
		program := largeSleep(t)
		v := start(t, &exec.Cmd{Path: program, Args: []string{"large", "1000"}, Env: []string{"FILLER=" + strings.Repeat("x", 100<<10)}}, false)
		v.runs("large")
		e := v.evidence()
		e.MaxSize = 1 << 20
		body, err := os.ReadFile(program)
		if err != nil || len(body) < 1<<20 {
			t.Fatal(len(body), err)
		}
		r := apply(t, e, evidenceEnv(t))
		got := readEvidence(t, r)
		exe, sum := got.members["exe"], sha256.Sum256(body)
		if !exe.Truncated || exe.WholeSize != int64(len(body)) || exe.WholeSHA256 != hex.EncodeToString(sum[:]) || exe.Size < 256<<10 || got.parts["exe"] != string(body[:exe.Size]) {
			t.Errorf("%+v", exe)
		}
		if env := got.members["environ"]; !env.Truncated || env.Size > 64<<10 {
			t.Errorf("%+v", env)
		}
		total := int64(0)
		for _, m := range got.Members {
			total += m.Size
		}
		if total > 1<<20-64<<10 || !strings.Contains(r.Reason, "2 of 12 parts are missing or not whole") {
			t.Errorf("%d bytes; %s", total, r.Reason)
		}
	})
	t.Run("cancelled", func(t *testing.T) {
		v := sleeper(t)
		env := evidenceEnv(t)
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if r, err := v.evidence().Apply(ctx, env); !errors.Is(err, context.Canceled) || r != (action.Receipt{}) {
			t.Errorf("%v, %v", r, err)
		}
		if left := files(t, env); len(left) != 0 {
			t.Errorf("files %v", left)
		}
	})
	t.Run("damaged", func(t *testing.T) {
		// A file that is not whole is not evidence, wherever it was cut or changed.
		v := sleeper(t)
		v.runs("sleep")
		env := evidenceEnv(t)
		e := v.evidence()
		readEvidence(t, apply(t, e, env))
		path := filepath.Join(env.State, "evidence", files(t, env)[0])
		whole, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for name, raw := range map[string][]byte{
			"empty": nil, "half": whole[:len(whole)/2], "all but a byte": whole[:len(whole)-1], "changed": append(append([]byte{}, whole[:len(whole)/3]...), make([]byte, 10)...), "more": append(append([]byte{}, whole...), 1),
		} {
			if err := os.WriteFile(path, raw, 0o600); err != nil {
				t.Fatal(err)
			}
			if r, inPlace, err := e.Probe(t.Context(), env); inPlace || err != nil {
				t.Errorf("%s: %+v, %t, %v", name, r, inPlace, err)
			}
		}
		readEvidence(t, apply(t, e, env))
	})
}

const writing, renamed = "while it writes", "under its name"

// TestEvidenceKilled ends the process that collects while it writes, and after the file got
// its name: the successor finds none or a whole one.
func TestEvidenceKilled(t *testing.T) {
	const role = "RIPOSTE_TEST_EVIDENCE"
	if raw := os.Getenv(role); raw != "" {
		var c struct {
			Env    action.Env
			Effect action.CollectEvidence
			When   string
		}
		if err := json.Unmarshal([]byte(raw), &c); err != nil {
			t.Fatal(err)
		}
		if c.When == writing {
			dieWriting(t, 256<<10)
		} else {
			dieAtRename(t, filepath.Join(c.Env.State, "evidence"))
		}
		c.Env.Guard = closed{}
		r, err := c.Effect.Apply(t.Context(), c.Env)
		if c.When == writing {
			t.Fatal("it lives on: ", r, err)
		}
		select {} // the signal is on its way
	}
	if !inside(t) {
		return
	}
	for when, signal := range map[string]syscall.Signal{writing: unix.SIGXFSZ, renamed: unix.SIGKILL} {
		t.Run(when, func(t *testing.T) {
			v := start(t, exec.Command(largeSleep(t), "1000"), false)
			v.runs("large")
			env := evidenceEnv(t)
			if err := os.Mkdir(filepath.Join(env.State, "evidence"), 0o700); err != nil {
				t.Fatal(err)
			}
			raw, err := json.Marshal(map[string]any{"Env": map[string]any{"State": env.State, "Key": env.Key, "AlertID": env.AlertID}, "Effect": v.evidence(), "When": when})
			if err != nil {
				t.Fatal(err)
			}
			replica := exec.Command(os.Args[0], "-test.run=^TestEvidenceKilled$")
			replica.Env = append(os.Environ(), role+"="+string(raw))
			out, err := replica.CombinedOutput()
			if ws, ok := replica.ProcessState.Sys().(syscall.WaitStatus); !ok || ws.Signal() != signal {
				t.Fatalf("%v\n%s", err, out)
			}
			left := files(t, env)
			r, inPlace, err := v.evidence().Probe(t.Context(), env)
			if err != nil || len(left) != 1 || inPlace != (when == renamed) || inPlace == strings.HasSuffix(left[0], ".tmp") {
				t.Fatalf("probe: %+v, %t, %v; files %v", r, inPlace, err, left)
			}
			readEvidence(t, apply(t, v.evidence(), env))
			if left = files(t, env); len(left) != 1 || strings.HasPrefix(left[0], ".") {
				t.Errorf("files %v", left)
			}
		})
	}
}

// dieWriting has the kernel end this process in the very write that makes a file longer than
// size: SIGXFSZ, with its default action again, which the Go runtime takes away.
func dieWriting(t *testing.T, size uint64) {
	t.Helper()
	var none [4]uint64 // struct sigaction of the kernel: SIG_DFL, no flags, no mask
	if _, _, errno := unix.RawSyscall6(unix.SYS_RT_SIGACTION, uintptr(unix.SIGXFSZ), uintptr(unsafe.Pointer(&none)), 0, 8, 0, 0); errno != 0 {
		t.Fatal(errno)
	}
	if err := unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{}); err != nil {
		t.Fatal(err)
	}
	if err := unix.Setrlimit(unix.RLIMIT_FSIZE, &unix.Rlimit{Cur: size, Max: size}); err != nil {
		t.Fatal(err)
	}
}

// dieAtRename ends this process when a file in a folder gets its name.
func dieAtRename(t *testing.T, dir string) {
	t.Helper()
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := unix.InotifyAddWatch(fd, dir, unix.IN_MOVED_TO); err != nil {
		t.Fatal(err)
	}
	go func() {
		unix.Read(fd, make([]byte, 4096))
		unix.Kill(os.Getpid(), unix.SIGKILL)
	}()
}

// TestEvidenceByCapability collects as a user who has of root only what the action asks for.
func TestEvidenceByCapability(t *testing.T) {
	needed := new(action.EvidenceSpec).Capabilities(false)
	if os.Getenv(helperEnv) == "setcap" {
		if missing, err := action.Missing(needed); err != nil || len(missing) > 0 || os.Geteuid() == 0 {
			t.Fatalf("user %d lacks %v, %v", os.Geteuid(), missing, err)
		}
		pid, _ := strconv.Atoi(os.Getenv("VICTIM"))
		e := &action.CollectEvidence{Process: action.Process{PID: int64(pid), SeenUntil: time.Now()}, MaxSize: 16 << 20}
		got := readEvidence(t, apply(t, e, evidenceEnv(t)))
		for _, m := range got.Members {
			if m.Error != "" {
				t.Errorf("%+v", m)
			}
		}
		return
	}
	if !inside(t) {
		return
	}
	v := start(t, exec.Command(copyOf(t, "sleep", "dropper"), "1000"), false) // 0700, root's
	v.runs("dropper")
	t.Setenv("VICTIM", strconv.Itoa(v.Process.Pid))
	program := copyOf(t, os.Args[0], "test-with-capabilities")
	if err := errors.Join(os.Chmod(program, 0o755), os.Chmod(filepath.Dir(filepath.Dir(program)), 0o755)); err != nil {
		t.Fatal(err)
	}
	grant(t, program, unix.CAP_SYS_PTRACE, unix.CAP_DAC_READ_SEARCH)
	asNobody(t, program, "setcap")
}
