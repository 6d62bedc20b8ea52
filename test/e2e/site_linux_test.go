package e2e_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"riposte/stream"
	"riposte/test/build"
	"riposte/test/namespace"
	"riposte/test/need"
	"riposte/test/redistest"
)

const host = stream.Host("h1")

// patience is for slow machines; nothing here takes long unless it is broken.
const patience = 30 * time.Second

// site is a host with its own Redis and its own folders for Riposte.
type site struct {
	t      *testing.T
	binary string
	redis  *redistest.Server
	rdb    *redis.Client
	dir    string
	env    []string // of every command, beside the test's own
	as     []string // what starts every command, if not the test itself
}

// enter runs the calling test in namespaces of its own, see there, with the binary built
// before: inside there is no network to fetch its modules from.
func enter(t *testing.T) bool {
	t.Helper()
	need.Root(t)
	need.Binary(t, "redis-server")
	build.Riposte(t)
	return namespace.Enter(t)
}

func newSite(t *testing.T, redisArgs ...string) *site {
	t.Helper()
	s := &site{t: t, binary: build.Riposte(t), redis: redistest.Start(t, redisArgs...), dir: t.TempDir()}
	s.rdb = s.redis.Client()
	return s
}

// command is the binary with a command line, for this site.
func (s *site) command(args ...string) *exec.Cmd {
	cmd := exec.Command(s.binary, append(args, "--redis", s.redis.URL, "--host", string(host))...)
	cmd.Env = append(environment(), s.env...)
	return wrap(s.as, cmd)
}

// environment is the test's own, without what would configure Riposte.
func environment() []string {
	return slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, "RIPOSTE_") })
}

// folders are the flags that keep a responder away from those of the machine.
func (s *site) folders() []string {
	return []string{"--runtime-dir", filepath.Join(s.dir, "run"), "--state-dir", filepath.Join(s.dir, "state")}
}

// result is how a command ended.
type result struct {
	out, err string
	code     int
}

// run runs a command to its end.
func run(t *testing.T, cmd *exec.Cmd) result {
	t.Helper()
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	select {
	case <-spawn(t, cmd):
	case <-time.After(patience):
		t.Fatalf("%v does not end:\n%s%s", cmd, out.String(), errs.String())
	}
	return result{out.String(), errs.String(), cmd.ProcessState.ExitCode()}
}

// run runs a command that is to end well, and returns what it printed.
func (s *site) run(args ...string) string {
	s.t.Helper()
	r := run(s.t, s.command(args...))
	if r.code != 0 {
		s.t.Fatalf("riposte %s: exit %d\n%s%s", strings.Join(args, " "), r.code, r.out, r.err)
	}
	return r.out
}

// spawn starts a process, kills it when the test ends or dies, and tells when it is gone.
func spawn(t *testing.T, cmd *exec.Cmd) (gone <-chan struct{}) {
	t.Helper()
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL
	started, done := make(chan error), make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // the kernel means the thread when it speaks of the parent
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			_ = cmd.Wait()
		}
	}()
	if err := <-started; err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-done
	})
	return done
}

// daemon is a riposte process that runs until it is stopped.
type daemon struct {
	t        *testing.T
	cmd      *exec.Cmd
	out, err text
	gone     <-chan struct{}
}

// start starts a command and waits until it says that it is ready.
func (s *site) start(ready string, args ...string) *daemon {
	s.t.Helper()
	d := &daemon{t: s.t, cmd: s.command(args...)}
	d.cmd.Stdout, d.cmd.Stderr = &d.out, &d.err
	d.gone = spawn(s.t, d.cmd)
	until(s.t, func() string { return "says " + ready + ":\n" + d.err.String() }, func() bool {
		select {
		case <-d.gone:
			s.t.Fatalf("riposte %s has ended:\n%s", strings.Join(args, " "), d.err.String())
		default:
		}
		return strings.Contains(d.err.String(), ready)
	})
	s.t.Cleanup(func() {
		if s.t.Failed() {
			s.t.Logf("riposte %s said:\n%s", strings.Join(args, " "), d.err.String())
		}
	})
	return d
}

func (s *site) responder(mode string, args ...string) *daemon {
	s.t.Helper()
	return s.start("responder is ready", slices.Concat([]string{"responder", "--mode", mode}, s.folders(), args)...)
}

func (s *site) bridge(args ...string) *daemon {
	s.t.Helper()
	return s.start("bridge ready: subscribed", append([]string{"bridge"}, args...)...)
}

// stop asks the process to end, as systemd does, and expects that it does so well.
func (d *daemon) stop() {
	d.t.Helper()
	_ = d.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-d.gone:
	case <-time.After(patience):
		d.t.Fatalf("%v does not stop:\n%s", d.cmd, d.err.String())
	}
	if code := d.cmd.ProcessState.ExitCode(); code != 0 {
		d.t.Errorf("%v: exit %d\n%s", d.cmd, code, d.err.String())
	}
}

// text is what a process says, read while it is written.
type text struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (x *text) Write(p []byte) (int, error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.buf.Write(p)
}

func (x *text) String() string {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.buf.String()
}

// until polls for what something else brings about.
func until(t *testing.T, what func() string, ok func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatal("in vain waited until it " + what())
		}
	}
}

// add publishes bytes as a detector does that knows nothing of Riposte but the stream.
func (s *site) add(raw string) (streamID string) {
	s.t.Helper()
	return s.xadd("alert", raw)
}

func (s *site) xadd(fields ...any) (streamID string) {
	s.t.Helper()
	id, err := s.rdb.XAdd(s.t.Context(), &redis.XAddArgs{Stream: host.AlertsKey(), Values: fields}).Result()
	if err != nil {
		s.t.Fatal(err)
	}
	return id
}

// drained waits until n entries have been read and nothing is pending.
func (s *site) drained(n int64) {
	s.t.Helper()
	var seen string
	until(s.t, func() string { return fmt.Sprintf("has handled %d entries: %s", n, seen) }, func() bool {
		groups, err := s.rdb.XInfoGroups(s.t.Context(), host.AlertsKey()).Result()
		if err != nil {
			seen = err.Error()
			return false
		}
		seen = fmt.Sprintf("%+v", groups)
		return len(groups) == 1 && groups[0].EntriesRead == n && groups[0].Lag == 0 && groups[0].Pending == 0
	})
	pending, err := s.rdb.XPending(s.t.Context(), host.AlertsKey(), string(stream.DefaultGroup)).Result()
	if err != nil || pending.Count != 0 {
		s.t.Errorf("XPENDING: %+v, %v", pending, err)
	}
}

// entry is what riposte ledger list says of an alert.
type entry struct {
	ID         string   `json:"id"`
	Host       string   `json:"host"`
	Group      string   `json:"group"`
	State      string   `json:"state"`
	Epoch      uint64   `json:"epoch"`
	Owner      string   `json:"owner"`
	Attempts   int      `json:"attempts"`
	Duplicates int      `json:"duplicates"`
	Flags      []string `json:"flags"`
	Steps      []step   `json:"steps"`
}

type step struct {
	Playbook string `json:"playbook"`
	Step     string `json:"step"`
	Action   string `json:"action"`
	Mode     string `json:"mode"`
	Outcome  string `json:"outcome"`
	Reason   string `json:"reason"`
	Epoch    uint64 `json:"epoch"`
	Replica  string `json:"replica"`
	Started  string `json:"started"`
	Ended    string `json:"ended"`
}

func (s *site) ledger() []entry {
	s.t.Helper()
	var entries []entry
	if err := json.Unmarshal([]byte(s.run("ledger", "list", "-o", "json")), &entries); err != nil {
		s.t.Fatal(err)
	}
	return entries
}

// entry is the only one of an alert.
func (s *site) entry(id string) entry {
	s.t.Helper()
	all := slices.DeleteFunc(s.ledger(), func(e entry) bool { return e.ID != id })
	if len(all) != 1 {
		s.t.Fatalf("%d entries of %s in the ledger: %+v", len(all), id, s.ledger())
	}
	return all[0]
}

// outcomes are those of the steps, in a line.
func (e entry) outcomes() string {
	var all []string
	for _, st := range e.Steps {
		all = append(all, st.Step+" "+st.Outcome)
	}
	return strings.Join(all, ", ")
}

// reason is that of a step.
func (e entry) reason(name string) string {
	for _, st := range e.Steps {
		if st.Step == name {
			return st.Reason
		}
	}
	return ""
}

// idOf is the ID that an alert without one gets.
func idOf(t *testing.T, raw string) string {
	t.Helper()
	a, err := stream.Decode([]byte(raw), "")
	if err != nil {
		t.Fatal(err)
	}
	return string(a.ID)
}

// playbooks writes a folder of one playbook.
func (s *site) playbooks(src string) (dir string) {
	s.t.Helper()
	dir, err := os.MkdirTemp(s.dir, "playbooks")
	err = errors.Join(err, os.WriteFile(filepath.Join(dir, "book.yaml"), []byte(src), 0o600))
	if err != nil {
		s.t.Fatal(err)
	}
	return dir
}
