// Package demo runs `riposte demo` as its users do, and looks at what it leaves behind.
package demo

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"riposte/test/build"
	"riposte/test/need"
)

type report struct {
	Alerts           int     `json:"alerts"`
	Contained        int     `json:"contained"`
	Lost             *int    `json:"lost"`
	DuplicateEffects *int    `json:"duplicate_effects"`
	ReplicasKilled   int     `json:"replicas_killed"`
	ReplicasFrozen   int     `json:"replicas_frozen"`
	TakeoverMax      float64 `json:"takeover_ms_max"`
	P50              float64 `json:"detect_to_dead_ms_p50"`
	P99              float64 `json:"detect_to_dead_ms_p99"`
	Backend          string  `json:"backend"`
	Source           string  `json:"source"`
}

// demo is a run of the demo with a temporary folder of its own to look for leftovers in.
type demo struct {
	cmd      *exec.Cmd
	tmp      string
	out, err bytes.Buffer
}

func prepare(t *testing.T, env ...string) *demo {
	t.Helper()
	riposte := build.Riposte(t)       // which takes its time
	tmp, err := os.MkdirTemp("", "d") // short: a socket's path has at most 107 bytes
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(tmp) })
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	t.Cleanup(cancel)
	d := &demo{tmp: tmp, cmd: exec.CommandContext(ctx, riposte, "demo", "--json")}
	d.cmd.Env = append(env, "TMPDIR="+tmp)
	d.cmd.Stdout, d.cmd.Stderr = &d.out, &d.err
	return d
}

func (d *demo) report(t *testing.T) report {
	t.Helper()
	if err := d.cmd.Run(); err != nil {
		t.Fatalf("%v\n%s", err, d.err.String())
	}
	lines := strings.Split(strings.TrimSpace(d.out.String()), "\n")
	var r report
	if err := json.Unmarshal([]byte(lines[len(lines)-1]), &r); err != nil {
		t.Fatalf("last line %q: %v", lines[len(lines)-1], err)
	}
	t.Logf("%+v", lines[len(lines)-1])
	if r.Alerts == 0 || r.Alerts != r.Contained || r.Lost == nil || *r.Lost != 0 || r.DuplicateEffects == nil || *r.DuplicateEffects != 0 {
		t.Errorf("not all contained once: %s", lines[len(lines)-1])
	}
	if r.ReplicasKilled != 1 || r.ReplicasFrozen != 1 || r.TakeoverMax <= 0 || r.P50 <= 0 || r.P99 < r.P50 {
		t.Errorf("nothing was broken, or not measured: %s", lines[len(lines)-1])
	}
	return r
}

// gone waits until nothing of the demo is left: no process that names its folder, and no
// file in it.
func (d *demo) gone(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		left := d.leftovers()
		if len(left) == 0 {
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("left behind by the demo (%v):\n%s\n%s", d.cmd.ProcessState, strings.Join(left, "\n"), d.err.String())
		}
	}
}

func (d *demo) leftovers() (left []string) {
	files, _ := filepath.Glob(d.tmp + "/*")
	inner, _ := filepath.Glob(d.tmp + "/*/*")
	files = append(files, inner...)
	left = append(left, files...)
	for _, cmdline := range d.processes() {
		left = append(left, cmdline)
	}
	return left
}

// processes are those that name the demo's folder in their command line, executable or
// environment, by PID.
func (d *demo) processes() map[int]string {
	found := map[int]string{}
	_ = fs.WalkDir(os.DirFS("/proc"), ".", func(path string, _ fs.DirEntry, err error) error {
		pid, notNumber := strconv.Atoi(path)
		if path == "." {
			return nil
		}
		if notNumber == nil && pid != os.Getpid() {
			cmdline, _ := os.ReadFile("/proc/" + path + "/cmdline")
			exe, _ := os.Readlink("/proc/" + path + "/exe")
			environ, _ := os.ReadFile("/proc/" + path + "/environ")
			if strings.Contains(string(cmdline)+exe+string(environ), d.tmp) {
				found[pid] = fmt.Sprintf("process %d: %s", pid, bytes.ReplaceAll(cmdline, []byte{0}, []byte(" ")))
			}
		}
		if err != nil {
			return nil
		}
		return fs.SkipDir
	})
	return found
}

func TestAsRootWithRedis(t *testing.T) {
	need.Root(t)
	need.Binary(t, "redis-server")
	d := prepare(t, "PATH="+os.Getenv("PATH"))
	if r := d.report(t); !strings.HasPrefix(r.Backend, "redis-server 7") {
		t.Errorf("backend %q", r.Backend)
	}
	d.gone(t)
}

func TestUnprivilegedWithoutRedis(t *testing.T) {
	need.Linux(t)
	d := prepare(t, "PATH=/nonexistent")
	if os.Geteuid() == 0 { // become nobody, who must be able to reach the binary
		exposed := filepath.Join(d.tmp, "bin")
		if err := os.Mkdir(exposed, 0o755); err != nil {
			t.Fatal(err)
		}
		raw, err := os.ReadFile(d.cmd.Path)
		if err != nil {
			t.Fatal(err)
		}
		d.cmd.Path = filepath.Join(exposed, "riposte")
		if err := os.WriteFile(d.cmd.Path, raw, 0o755); err != nil {
			t.Fatal(err)
		}
		own := filepath.Join(d.tmp, "tmp")
		if err := os.Mkdir(own, 0o700); err != nil {
			t.Fatal(err)
		}
		for path, uid := range map[string]int{d.tmp: 0, own: 65534} {
			if err := os.Chown(path, uid, uid); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.Chmod(d.tmp, 0o755); err != nil {
			t.Fatal(err)
		}
		d.tmp = own
		d.cmd.Env = []string{"PATH=/nonexistent", "TMPDIR=" + own}
		d.cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	}
	if r := d.report(t); !strings.Contains(r.Backend, "not durable") {
		t.Errorf("backend %q does not say that it is not durable", r.Backend)
	}
	d.gone(t)
}

// TestLeavesNothing ends the demo in the middle, in each way it may be ended.
func TestLeavesNothing(t *testing.T) {
	need.Linux(t)
	for _, c := range []struct {
		name string
		end  func(d *demo) error
	}{
		{"ctrl-c", func(d *demo) error { return d.cmd.Process.Signal(os.Interrupt) }},
		{"sigterm", func(d *demo) error { return d.cmd.Process.Signal(syscall.SIGTERM) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := prepare(t, "PATH="+os.Getenv("PATH"))
			if err := d.cmd.Start(); err != nil {
				t.Fatal(err)
			}
			d.underWay(t)
			if err := c.end(d); err != nil {
				t.Fatal(err)
			}
			d.stopped(t)
		})
	}
	t.Run("nobody reads", func(t *testing.T) { // as `riposte demo | head -1`
		d := prepare(t, "PATH="+os.Getenv("PATH"))
		d.cmd.Args, d.cmd.Stdout = []string{"riposte", "demo"}, nil
		out, err := d.cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := d.cmd.Start(); err != nil {
			t.Fatal(err)
		}
		if line, err := bufio.NewReader(out).ReadString('\n'); err != nil {
			t.Fatalf("%q, %v", line, err)
		}
		if err := out.Close(); err != nil {
			t.Fatal(err)
		}
		d.stopped(t)
	})
	t.Run("parent dies", func(t *testing.T) {
		d := prepare(t, "PATH="+os.Getenv("PATH"))
		// The shell is the demo's parent, and waits for it until it is killed.
		d.cmd.Args = []string{"sh", "-c", d.cmd.Path + " demo --json; true"}
		d.cmd.Path = need.Binary(t, "sh")
		d.cmd.WaitDelay = 20 * time.Second
		if err := d.cmd.Start(); err != nil {
			t.Fatal(err)
		}
		d.underWay(t)
		if err := d.cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		_ = d.cmd.Wait()
		d.gone(t)
	})
}

// stopped waits for a demo that was ended in the middle, which must say so and leave nothing.
func (d *demo) stopped(t *testing.T) {
	t.Helper()
	_ = d.cmd.Wait()
	d.gone(t)
	said := d.err.String()
	if code := d.cmd.ProcessState.ExitCode(); code != 1 || !strings.Contains(said, "nothing is left behind") || strings.Contains(said, "context canceled") {
		t.Errorf("%v:\n%s", d.cmd.ProcessState, said)
	}
}

// The end of whoever reads ends a simulation, too.
func TestSimulationUnread(t *testing.T) {
	need.Linux(t)
	d := prepare(t, "PATH="+os.Getenv("PATH"))
	d.cmd.Args, d.cmd.Stdout = []string{"riposte", "simulate", "--every", "100ms"}, nil
	out, err := d.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := d.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if err := out.Close(); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(d.underWay(t), syscall.SIGKILL); err != nil { // which is worth a line
		t.Fatal(err)
	}
	_ = d.cmd.Wait()
	d.gone(t)
}

// underWay waits until a decoy is alive, and returns its PID.
func (d *demo) underWay(t *testing.T) int {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		for pid, cmdline := range d.processes() {
			if strings.Contains(cmdline, "decoy child") {
				return pid
			}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("no decoy was started:\n%s", d.err.String())
		}
	}
}
