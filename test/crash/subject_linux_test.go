package crash

import (
	"archive/tar"
	"compress/gzip"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	"riposte/playbook/action"
	"riposte/stream/proc"
	"riposte/test/build"
	"riposte/test/namespace"
	"riposte/test/need"
	"riposte/test/redistest"
)

// deed is one action of a playbook, and what is to become of it.
type deed struct {
	action  string
	by      string // where there are several ways to do it
	on      func(*scene, *world) subject
	outcome action.Outcome
	again   action.Outcome // where the effect was in place, and its receipt did not say so
	undoes  string         // the action that takes it back; empty: none does
	undone  action.Outcome // of that
	repeats bool           // nobody can see whether it is in place
	alone   bool           // it is about the whole host
}

var deeds = []deed{
	{action: "terminate_process", on: onTree, outcome: action.Killed, again: action.AlreadyGone},
	{action: "suspend_process", on: onProcess, outcome: action.Suspended, again: action.Suspended, undoes: "resume_process", undone: action.Resumed},
	{action: "suspend_process", by: "freezer", on: onGroup, outcome: action.Suspended, again: action.Suspended, undoes: "resume_process", undone: action.Resumed},
	{action: "block_ip", on: onAddress, outcome: action.Blocked, again: action.Blocked, undoes: "unblock_ip", undone: action.Unblocked},
	{action: "isolate_host", on: onHost, outcome: action.Isolated, again: action.Isolated, undoes: "release_host", undone: action.Released, alone: true},
	{action: "quarantine_file", on: onFile, outcome: action.Quarantined, again: action.Quarantined, undoes: "restore_file", undone: action.Restored},
	{action: "collect_evidence", on: onEvidence, outcome: action.Collected, again: action.Collected},
	{action: "notify", on: onWebhook, outcome: action.Notified, again: action.Notified, repeats: true},
}

// name is that of a deed's cases.
func (d deed) name() string {
	if d.by != "" {
		return d.action + " by " + d.by
	}
	return d.action
}

// subject is what a deed acts on in one case, and how that looks from outside.
type subject struct {
	with  string // parameters of the step
	lift  string // and of one that takes it back by itself
	about *decoy // whom the alert is about; nil: nobody
	// done says what keeps the effect from being in place, once; empty: nothing. undone says the
	// same of its being taken back.
	done, undone func() string
}

// world is what the cases of one test have in common: namespaces, with a network in which
// nobody is reached, and a web server.
type world struct {
	staging
	hook  *httptest.Server
	mu    sync.Mutex
	posts map[string][]string // bodies, by their Idempotency-Key

	groups    string     // folder of control groups
	host      sync.Mutex // held by a case that acts on all of the host
	addresses atomic.Int32
}

// enterWorld goes on in namespaces of the test's own; nil where that has been done, and the
// test is over.
func enterWorld(t *testing.T) *world {
	t.Helper()
	need.Root(t)
	need.Binary(t, "redis-server")
	need.Binary(t, "nft")
	binary := build.Riposte(t, "riposte_crashpoints")
	groups := need.ControlGroups(t)
	if !namespace.Enter(t) {
		return nil
	}
	for _, args := range [][]string{
		{"link", "add", "net0", "type", "veth", "peer", "name", "net1"},
		{"addr", "add", "192.0.2.10/24", "dev", "net0"},
		{"link", "set", "net0", "up"},
		{"link", "set", "net1", "up"},
	} {
		if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
			t.Fatalf("ip %v: %v\n%s", args, err, out)
		}
	}
	server := redistest.Start(t)
	w := &world{staging: staging{binary, server.URL, server.Client()}, posts: map[string][]string{}, groups: groups}
	w.hook = httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Errorf("webhook: %v", err)
		}
		key := r.Header.Get("Idempotency-Key")
		w.mu.Lock()
		defer w.mu.Unlock()
		w.posts[key] = append(w.posts[key], string(body))
	}))
	t.Cleanup(w.hook.Close)
	return w
}

// address is one of documentation, that no other case has.
func (w *world) address(network string) string {
	return fmt.Sprintf("%s.%d", network, w.addresses.Add(1))
}

// firewall runs nft.
func firewall(t testing.TB, args ...string) []byte {
	t.Helper()
	out, err := exec.Command("nft", args...).CombinedOutput()
	if err != nil {
		t.Fatalf("nft %v: %v\n%s", args, err, out)
	}
	return out
}

// element is one of a set of the firewall, with its seconds.
type element struct {
	Val, Comment     string
	Timeout, Expires int
}

// elements are those of a table. Each that Riposte makes has an end.
func elements(t testing.TB, table string) (all []element) {
	t.Helper()
	var rules struct {
		Objects []struct {
			Set *struct {
				Table string
				Elem  []struct{ Elem element }
			}
		} `json:"nftables"`
	}
	raw := firewall(t, "-j", "list", "ruleset")
	if err := json.Unmarshal(raw, &rules); err != nil {
		t.Fatalf("%v: %s", err, raw)
	}
	for _, o := range rules.Objects {
		if o.Set == nil || o.Set.Table != table {
			continue
		}
		for _, e := range o.Set.Elem {
			all = append(all, e.Elem)
		}
	}
	return all
}

// blocks are the elements that block an address.
func blocks(t testing.TB, address string) []element {
	t.Helper()
	return slices.DeleteFunc(elements(t, "riposte"), func(e element) bool { return e.Val != address })
}

const isolationTable = "riposte_isolation"

// cutOff says that nothing leaves the host.
func cutOff(t testing.TB) bool {
	t.Helper()
	conn, err := net.Dial("udp", "192.0.2.99:9")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err = conn.Write([]byte("x")); err != nil && !errors.Is(err, unix.EPERM) {
		t.Fatal(err)
	}
	return err != nil
}

// trunk is a decoy with a shell below it, and two more processes below that. They all end
// with their input.
const trunk = `exec 3<&0; sh -c 'cat <&3 & cat <&3 & wait' & echo ready; wait`

// below are all that descend from a process, with the ticks of their start.
func below(t testing.TB, pid int) map[int]uint64 {
	t.Helper()
	files, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		t.Fatal(err)
	}
	all := map[int]proc.Stat{}
	for _, file := range files {
		var other int
		if _, err := fmt.Sscan(filepath.Base(file), &other); err != nil {
			continue
		}
		if st, err := proc.ReadStat(other); err == nil {
			all[other] = st
		}
	}
	found := map[int]uint64{}
	for _, st := range all {
		for up := st; up.PPID != 0; up = all[up.PPID] {
			if up.PPID == pid {
				found[st.PID] = st.StartTicks
			}
		}
	}
	return found
}

func onTree(s *scene, _ *world) subject {
	s.decoy = newDecoy(s.t, trunk)
	var members map[int]uint64
	await(s.t, "a tree of processes", func() bool {
		members = below(s.t, s.decoy.pid)
		return len(members) == 3
	})
	root, err := proc.ReadStat(s.decoy.pid)
	if err != nil {
		s.t.Fatal(err)
	}
	members[root.PID] = root.StartTicks
	return subject{
		with: "{tree: true}", about: s.decoy,
		done: func() string {
			for pid, ticks := range members {
				if st, err := proc.ReadStat(pid); err == nil && st.StartTicks == ticks && !st.Zombie() {
					return fmt.Sprintf("%s, PID %d, is alive", st.Comm, pid)
				}
			}
			if <-s.decoy.gone; s.decoy.status.Signal() != unix.SIGKILL {
				return fmt.Sprintf("its root ended by wait status %#x", s.decoy.status)
			}
			return ""
		},
	}
}

func onProcess(s *scene, _ *world) subject {
	d := newDecoy(s.t, meek)
	s.t.Cleanup(func() { // before it is waited for
		if !d.dead() {
			_ = unix.Kill(d.pid, unix.SIGCONT)
		}
	})
	state := func(want string) func() string {
		return func() string {
			st, err := proc.ReadStat(d.pid)
			if d.dead() || err != nil || !strings.ContainsRune(want, rune(st.State)) {
				return fmt.Sprintf("dead: %t, state %c, %v", d.dead(), st.State, err)
			}
			return ""
		}
	}
	return subject{about: d, done: state("T"), undone: state("SR")}
}

// onGroup is about a process in a control group of its own.
func onGroup(s *scene, w *world) subject {
	dir := filepath.Join(w.groups, string(s.host))
	if err := os.Mkdir(dir, 0o755); err != nil {
		s.t.Fatal(err)
	}
	sub := onProcess(s, w)
	if err := os.WriteFile(filepath.Join(dir, "cgroup.procs"), fmt.Append(nil, sub.about.pid), 0); err != nil {
		s.t.Fatal(err)
	}
	running := sub.undone
	frozen := func(want string) string {
		raw, err := os.ReadFile(filepath.Join(dir, "cgroup.events"))
		if !strings.Contains(string(raw), "frozen "+want+"\n") {
			return fmt.Sprintf("of its control group %q, %v", raw, err)
		}
		return running() // no SIGSTOP
	}
	s.t.Cleanup(func() { // before it is waited for
		if err := os.WriteFile(filepath.Join(dir, "cgroup.freeze"), []byte("0"), 0); err != nil {
			s.t.Error(err)
		}
	})
	sub.done, sub.undone = func() string { return frozen("1") }, func() string { return frozen("0") }
	return sub
}

func onAddress(s *scene, w *world) subject {
	address := w.address("198.51.100")
	return subject{
		with: fmt.Sprintf("{address: %s, ttl: 1h}", address),
		lift: fmt.Sprintf("{address: %s}", address),
		done: func() string {
			all := blocks(s.t, address)
			if len(all) != 1 || all[0].Comment != string(alertID) || all[0].Timeout != 3600 || all[0].Expires < 3000 {
				return fmt.Sprintf("blocks of %s: %+v", address, all)
			}
			return ""
		},
		undone: func() string {
			if all := blocks(s.t, address); len(all) > 0 {
				return fmt.Sprintf("it is still blocked: %+v", all)
			}
			return ""
		},
	}
}

func onHost(s *scene, _ *world) subject {
	if cutOff(s.t) {
		s.t.Fatal("the host is cut off before anything has begun")
	}
	return subject{
		with: "{ttl: 10m}",
		done: func() string {
			all := elements(s.t, isolationTable)
			wrong := func(e element) bool {
				return e.Comment != string(alertID) || e.Timeout > 600 || e.Timeout < 540 || e.Expires < 300
			}
			if len(all) != 2 || slices.ContainsFunc(all, wrong) || !cutOff(s.t) {
				return fmt.Sprintf("isolated by %+v; nothing gets out: %t", all, cutOff(s.t))
			}
			return ""
		},
		undone: func() string {
			if all := elements(s.t, isolationTable); len(all) > 0 || cutOff(s.t) {
				return fmt.Sprintf("isolated by %+v; nothing gets out: %t", all, cutOff(s.t))
			}
			return ""
		},
	}
}

func onFile(s *scene, _ *world) subject {
	const content, mode = "not a virus", 0o750
	file := filepath.Join(s.dir, "sample")
	if err := os.WriteFile(file, []byte(content), mode); err != nil {
		s.t.Fatal(err)
	}
	is := func(path string, want os.FileMode) string {
		raw, err1 := os.ReadFile(path)
		st, err2 := os.Lstat(path)
		switch {
		case err1 != nil || err2 != nil:
			return fmt.Sprint(err1, err2)
		case string(raw) != content || st.Mode() != want:
			return fmt.Sprintf("%s is %q of mode %v", path, raw, st.Mode())
		}
		return ""
	}
	kept := func(name string) []string {
		found, err := filepath.Glob(filepath.Join(s.stateDir(), "vault", "*", name))
		if err != nil {
			s.t.Fatal(err)
		}
		return found
	}
	return subject{
		with: fmt.Sprintf("{path: %q}", file),
		lift: fmt.Sprintf("{path: %q, entry: '%x'}", file, sha256.Sum256([]byte(s.key("act")))), // whatever the alert
		done: func() string {
			if _, err := os.Lstat(file); !os.IsNotExist(err) {
				return fmt.Sprintf("the file is at its path: %v", err)
			}
			all := kept("content")
			if len(all) != 1 || len(kept("manifest.json")) != 1 {
				return fmt.Sprintf("in the vault: %q", kept("*"))
			}
			return is(all[0], 0o400)
		},
		undone: func() string {
			if len(kept("content")) > 0 || len(kept("restored.json")) != 1 {
				return fmt.Sprintf("in the vault: %q", kept("*"))
			}
			return is(file, mode)
		},
	}
}

func onEvidence(s *scene, _ *world) subject {
	d := newDecoy(s.t, meek)
	return subject{about: d, done: func() string {
		files, err := os.ReadDir(filepath.Join(s.stateDir(), "evidence"))
		if err != nil || len(files) != 1 || !strings.HasSuffix(files[0].Name(), ".tar.gz") {
			return fmt.Sprintf("%v, %v", files, err)
		}
		members, err := archive(filepath.Join(s.stateDir(), "evidence", files[0].Name()))
		switch {
		case err != nil:
			return err.Error()
		case members["manifest.json"] == "" || !strings.Contains(members["status"], fmt.Sprintf("\nPid:\t%d\n", d.pid)):
			return fmt.Sprintf("manifest %q, status %q", members["manifest.json"], members["status"])
		case d.dead():
			return "the process has ended"
		}
		return ""
	}}
}

// archive reads all of a .tar.gz.
func archive(path string) (map[string]string, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	gz, err := gzip.NewReader(f)
	if err != nil {
		return nil, err
	}
	members := map[string]string{}
	for files := tar.NewReader(gz); ; {
		h, err := files.Next()
		if err == io.EOF {
			return members, gz.Close()
		}
		if err != nil {
			return nil, err
		}
		raw, err := io.ReadAll(files)
		if err != nil {
			return nil, err
		}
		members[h.Name] = string(raw)
	}
}

func onWebhook(s *scene, w *world) subject {
	return subject{
		with: fmt.Sprintf("{channel: webhook, url: %q}", w.hook.URL+"/"+string(s.host)),
		done: func() string {
			w.mu.Lock()
			defer w.mu.Unlock()
			posts := w.posts[s.key("act")]
			if len(posts) == 0 || len(slices.Compact(slices.Clone(posts))) != 1 || !strings.Contains(posts[0], s.key("act")) {
				return fmt.Sprintf("posted %q", posts)
			}
			return ""
		},
	}
}
