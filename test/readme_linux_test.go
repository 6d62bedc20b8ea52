package test

import (
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"riposte/stream"
	"riposte/test/need"
	"riposte/test/redistest"
)

// elsewhere are the commands that another test runs: its package and its name.
var elsewhere = map[string]string{
	"go run ./cmd/riposte demo": "test/demo TestAsRootWithRedis",
	"go test ./...":             "test TestReadme", // it is part of this very command
	"RIPOSTE_TEST_ALL=1 RIPOSTE_TABLE=test/FAULTS.md go test -count=1 -p=1 -timeout=30m -v ./test/...": "test/table TestTable",

	"docker-compose up -d":                                          "test/compose TestCompose",
	"docker-compose up -d --force-recreate":                         "test/compose TestCompose",
	"docker-compose up -d --scale responder=5":                      "test/compose TestCompose",
	"docker-compose logs -f responder":                              "test/compose TestCompose",
	"docker-compose exec responder /riposte status":                 "test/compose TestCompose",
	"docker-compose exec responder /riposte ledger list":            "test/compose TestCompose",
	"docker-compose exec --index=2 responder /riposte ledger audit": "test/compose TestCompose",
	"docker kill $(docker-compose ps -q responder | head -1)":       "test/compose TestCompose",
	"docker-compose down -v":                                        "test/compose TestCompose",
	`riposte ledger resolve ID --note "host checked"`:               "cmd/riposte TestResolveCommand",
}

// lasting are the commands that run until they are stopped, and what they say once they
// are at work.
var lasting = map[string]string{
	"./riposte responder --host web-1": "responder is ready",
	"./riposte bridge --host web-1":    "bridge ready",
	"riposte ledger tail -f":           "observed",
}

// harmless are the commands that are run here: with a Redis of the test's own they touch
// nothing but the copy of the tree.
var harmless = regexp.MustCompile(`^(riposte|redis-cli|CGO_ENABLED=0 go build|sh deploy/new-passwords\.sh)( |$)`)

// patience is for slow machines, which build the binary meanwhile.
const patience = 10 * time.Minute

// TestReadme runs each command of the pages that tell people what to type, in their order,
// in a copy of the tree. Nothing is touched: the responder only observes.
func TestReadme(t *testing.T) {
	t.Parallel()
	u := newReader(t)
	known := map[string]bool{}
	for _, page := range []string{"README.md", "deploy/README.md"} {
		for _, line := range commandsOf(t, page) {
			known[line] = true
			test, done := elsewhere[line]
			switch ready := lasting[line]; {
			case done:
				folder, name, _ := strings.Cut(test, " ")
				if !testsIn(t, folder)[name] {
					t.Errorf("%s: no test %s in %s runs %s", page, name, folder, line)
				}
			case ready != "":
				u.start(line, ready)
			case harmless.MatchString(line) && !strings.Contains(line, "enforce"):
				u.run(line)
			default:
				t.Errorf("%s: nobody runs %s: let this test do it, or name the one that does", page, line)
			}
		}
	}
	for line := range elsewhere {
		if !known[line] {
			t.Errorf("no page says %s any more", line)
		}
	}
	for line := range lasting {
		if !known[line] {
			t.Errorf("no page says %s any more", line)
		}
	}
	u.stop()
}

var (
	block   = regexp.MustCompile("(?ms)^```sh\n(.*?)^```$")
	comment = regexp.MustCompile(`\s+# .*`)
)

// commandsOf are the commands in the sh blocks of a page, without their comments. What
// goes on in the next line is one, and what && joins are several.
func commandsOf(t *testing.T, page string) (all []string) {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join("..", page))
	if err != nil {
		t.Fatal(err)
	}
	text := regexp.MustCompile("(?m)^> ?").ReplaceAllString(string(raw), "") // a quoted block is one as well
	for _, m := range block.FindAllStringSubmatch(text, -1) {
		for line := range strings.Lines(strings.ReplaceAll(m[1], "\\\n", " ")) {
			for command := range strings.SplitSeq(comment.ReplaceAllString(strings.TrimSpace(line), ""), " && ") {
				if command != "" {
					all = append(all, command)
				}
			}
		}
	}
	if len(all) == 0 {
		t.Fatalf("%s has no commands", page)
	}
	return all
}

// reader does what the pages say, on the host web-1.
type reader struct {
	t       *testing.T
	tree    string
	env     []string
	redis   *redistest.Server
	running []*running
}

// running is a command that lasts.
type running struct {
	line string
	cmd  *exec.Cmd
	said text
	gone chan struct{}
}

func newReader(t *testing.T) *reader {
	t.Helper()
	need.Binary(t, "sh")
	need.Binary(t, "openssl")
	need.Binary(t, "go")
	client := need.Binary(t, "redis-cli")
	u := &reader{t: t, tree: copyTree(t), redis: redistest.Start(t)}
	bin, state := t.TempDir(), t.TempDir()
	_, port, _ := strings.Cut(u.redis.Addr, ":")
	u.write(filepath.Join(bin, "redis-cli"), fmt.Sprintf("#!/bin/sh\nexec %s -e -p %s \"$@\"\n", client, port))
	u.write(filepath.Join(u.tree, "alert.json"), fmt.Sprintf(`{"id":"ID","level":"HIGH","title":"t","timestamp":%q}`, time.Now().UTC().Format(time.RFC3339)))
	u.env = slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, "RIPOSTE_") })
	// What a reader builds is without the race detector, whatever this test was built with.
	u.env = append(u.env, "GOFLAGS="+strings.ReplaceAll(os.Getenv("GOFLAGS"), "-race", ""), "PATH="+strings.Join([]string{bin, u.tree, os.Getenv("PATH")}, ":"),
		"RIPOSTE_REDIS="+u.redis.URL, "RIPOSTE_HOST=web-1",
		"RIPOSTE_RUNTIME_DIR="+filepath.Join(state, "run"), "RIPOSTE_STATE_DIR="+filepath.Join(state, "state"))
	return u
}

func (u *reader) write(path, content string) {
	u.t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o755); err != nil {
		u.t.Fatal(err)
	}
}

// copyTree copies what git would, roughly.
func copyTree(t *testing.T) string {
	t.Helper()
	to := t.TempDir()
	from := os.DirFS("..")
	err := fs.WalkDir(from, ".", func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil || path == ".":
			return err
		case strings.HasPrefix(d.Name(), ".") && d.IsDir():
			return fs.SkipDir
		case d.IsDir():
			return os.Mkdir(filepath.Join(to, path), 0o755)
		case !d.Type().IsRegular() || path == "riposte":
			return nil
		}
		raw, err := fs.ReadFile(from, path)
		if err != nil {
			return err
		}
		return os.WriteFile(filepath.Join(to, path), raw, 0o644)
	})
	if err != nil {
		t.Fatal(err)
	}
	return to
}

// command is a line as a shell gets it.
func (u *reader) command(line string) *exec.Cmd {
	cmd := exec.Command("sh", "-c", line)
	cmd.Dir, cmd.Env = u.tree, u.env
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return cmd
}

// run runs a line to its end, once the responder has done what there is to do.
func (u *reader) run(line string) {
	u.t.Helper()
	u.settled()
	out, err := u.command(line).CombinedOutput()
	if err != nil {
		u.t.Errorf("%s: %v\n%s", line, err, out)
		return
	}
	u.t.Logf("$ %s\n%s", line, out)
}

// settled waits until every alert is, if there is anybody to do it.
func (u *reader) settled() {
	u.t.Helper()
	if len(u.running) == 0 {
		return
	}
	rdb := u.redis.Client()
	defer rdb.Close()
	u.await("every alert is settled", func() bool {
		groups, err := rdb.XInfoGroups(u.t.Context(), stream.Host("web-1").AlertsKey()).Result()
		return err == nil && len(groups) == 1 && groups[0].Lag == 0 && groups[0].Pending == 0
	})
}

// start starts a line that lasts, and waits until it is at work.
func (u *reader) start(line, ready string) {
	u.t.Helper()
	r := &running{line: line, cmd: u.command("exec " + line), gone: make(chan struct{})}
	r.cmd.Stdout, r.cmd.Stderr = &r.said, &r.said
	started := make(chan error)
	go func() {
		defer close(r.gone)
		runtime.LockOSThread() // the kernel means the thread when it speaks of the parent
		defer runtime.UnlockOSThread()
		err := r.cmd.Start()
		started <- err
		if err == nil {
			_ = r.cmd.Wait()
		}
	}()
	if err := <-started; err != nil {
		u.t.Fatalf("%s: %v", line, err)
	}
	u.t.Cleanup(func() {
		_ = r.cmd.Process.Kill()
		<-r.gone
	})
	u.running = append(u.running, r)
	u.await(line+" says "+ready, func() bool {
		select {
		case <-r.gone:
			u.t.Fatalf("%s has ended:\n%s", line, r.said.String())
		default:
		}
		return strings.Contains(r.said.String(), ready)
	})
}

// stop ends what lasts, the last one first, in good order.
func (u *reader) stop() {
	u.t.Helper()
	for _, r := range slices.Backward(u.running) {
		_ = r.cmd.Process.Signal(syscall.SIGTERM)
		select {
		case <-r.gone:
		case <-time.After(patience):
			u.t.Fatalf("%s does not stop:\n%s", r.line, r.said.String())
		}
		if code := r.cmd.ProcessState.ExitCode(); code != 0 {
			u.t.Errorf("%s: exit %d\n%s", r.line, code, r.said.String())
		}
	}
}

func (u *reader) await(what string, is func() bool) {
	u.t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(patience); !is(); <-tick.C {
		if time.Now().After(deadline) {
			u.t.Fatalf("never happened: %s", what)
		}
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
