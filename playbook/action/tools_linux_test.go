package action

import (
	"context"
	"errors"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/nftables/userdata"
	"golang.org/x/sys/unix"

	"riposte/test/need"
)

func TestRunTool(t *testing.T) {
	t.Setenv("SECRET", "hunter2")
	lock, err := os.Create(filepath.Join(t.TempDir(), "lock"))
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	out, err := runTool(t.Context(), []*os.File{lock}, []string{"sh", "-c", `readlink /proc/self/fd/3; env; echo "$1"`, "sh", "$(id); `id`"})
	if err != nil || !strings.HasPrefix(out, lock.Name()+"\n") || !strings.HasSuffix(out, "\n$(id); `id`\n") || strings.Contains(out, "hunter2") {
		t.Errorf("%v\n%s", err, out)
	}
	_, err = runTool(t.Context(), nil, []string{"sh", "-c", `printf '\033[2Jno' >&2; exit 3`})
	if failed := (*toolError)(nil); !errors.As(err, &failed) || failed.exit != 3 || !strings.HasSuffix(err.Error(), `exit 3: \u001b[2Jno`) {
		t.Errorf("exit 3: %v", err)
	}
	if _, err = runTool(t.Context(), nil, []string{"no-such-tool"}); !errors.Is(err, exec.ErrNotFound) {
		t.Errorf("no such tool: %v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	begun := time.Now()
	if _, err = runTool(ctx, nil, []string{"sleep", "60"}); !errors.Is(err, context.DeadlineExceeded) || time.Since(begun) > 10*time.Second {
		t.Errorf("cancelled: %v after %s", err, time.Since(begun))
	}
	t.Setenv("PATH", "/nonexistent")
	if path, err := findTool("iptables"); err != nil || !strings.Contains(path, "sbin") {
		t.Logf("iptables is not installed: %v", err)
	}
}

// TestToolDiesWithRiposte kills a process that waits for a tool, and watches the tool.
func TestToolDiesWithRiposte(t *testing.T) {
	const role = "RIPOSTE_TEST_FIFO"
	if fifo := os.Getenv(role); fifo != "" {
		_, err := runTool(t.Context(), nil, []string{"sh", "-c", `exec sleep 1000 >"$1"`, "sh", fifo})
		t.Fatal("the tool ended first: ", err)
	}
	need.Binary(t, "sh")
	need.Binary(t, "sleep")
	fifo := filepath.Join(t.TempDir(), "fifo")
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestToolDiesWithRiposte$")
	cmd.Env = append(os.Environ(), role+"="+fifo)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	held, err := os.Open(fifo) // returns when the tool has opened it too
	if err != nil {
		t.Fatal(err)
	}
	defer held.Close()
	cmd.Process.Kill()
	cmd.Wait()
	ended := make(chan error, 1)
	go func() { _, err := io.ReadAll(held); ended <- err }()
	select {
	case err := <-ended: // end of file: nobody has it open for writing any more
		if err != nil {
			t.Error(err)
		}
	case <-time.After(10 * time.Second):
		t.Error("the tool lives on")
	}
}

// Two ticks are what a start time may be off. More, and whoever got the PID of a process that
// an alert was about would be ended in its stead.
func TestStartTolerance(t *testing.T) {
	seen := time.Unix(1790000000, 0)
	e := &TerminateProcess{Process: Process{PID: 4711, SeenUntil: seen}}
	for late, want := range map[time.Duration]bool{
		-time.Hour: true, 0: true, 20*time.Millisecond - 1: true,
		20 * time.Millisecond: false, time.Second: false, time.Hour: false,
	} {
		err := e.startedInTime(seen.Add(late))
		if _, refused := Reason(err); refused == want || (err == nil) != want {
			t.Errorf("started %s after the alert: %v", late, err)
		}
	}
}

func TestRules(t *testing.T) {
	r := ipRule{"-s", netip.MustParsePrefix("198.51.100.2/32"), "a-1~0f", time.Hour, 1790000000}
	line := strings.Join(append([]string{"-A", "RIPOSTE"}, r.argv()...), " ")
	if want := "-A RIPOSTE -s 198.51.100.2/32 -m comment --comment riposte/a-1~0f/3600s/1790000000 -j DROP"; line != want {
		t.Errorf("got  %s\nwant %s", line, want)
	}
	for _, l := range []string{line, strings.Replace(line, "riposte/a-1~0f/3600s/1790000000", `"riposte/a-1~0f/3600s/1790000000"`, 1)} {
		if got, ok := parseRule(l); !ok || got != r {
			t.Errorf("%s reads back as %v, %t", l, got, ok)
		}
	}
	for _, l := range []string{
		"", "-N RIPOSTE", "-A INPUT -j RIPOSTE",
		strings.Replace(line, "DROP", "ACCEPT", 1), strings.Replace(line, "RIPOSTE", "INPUT", 1),
		strings.Replace(line, "/32", "/24", 1), strings.Replace(line, "-s", "! -s", 1), strings.Replace(line, "3600s", "s", 1),
	} {
		if got, ok := parseRule(l); ok {
			t.Errorf("%s reads as %v", l, got)
		}
	}
}

func TestRuleset(t *testing.T) {
	now := time.Unix(1790000000, 0)
	addr := netip.MustParsePrefix("198.51.100.2/32")
	rule := func(match, comment string) string {
		return "-A RIPOSTE " + match + " 198.51.100.2/32 -m comment --comment \"riposte/" + comment + "\" -j DROP\n"
	}
	head := "-P INPUT ACCEPT\n-P OUTPUT ACCEPT\n-N RIPOSTE\n"
	jumps := "-A INPUT -j RIPOSTE\n-A INPUT -p tcp -j ACCEPT\n-A OUTPUT -j RIPOSTE\n"
	both := rule("-s", "a/60s/1790000060") + rule("-d", "a/60s/1790000060")
	for name, c := range map[string]struct {
		listing string
		want    standing
	}{
		"whole":            {head + jumps + both, standing{"a", time.Minute, time.Minute}},
		"empty":            {"", standing{}},
		"no jumps":         {head + both, standing{}},
		"jump not first":   {head + "-A INPUT -p tcp -j ACCEPT\n" + jumps + both, standing{}},
		"one direction":    {head + jumps + rule("-s", "a/60s/1790000060"), standing{}},
		"expired":          {head + jumps + rule("-s", "a/60s/1790000000") + rule("-d", "a/60s/1790000000"), standing{}},
		"longest counts":   {head + jumps + both + rule("-s", "b/90s/1790000090") + rule("-d", "b/90s/1790000090"), standing{"b", 90 * time.Second, 90 * time.Second}},
		"shorter of two":   {head + jumps + both + rule("-s", "b/90s/1790000090"), standing{"a", time.Minute, time.Minute}},
		"another address":  {head + jumps + strings.ReplaceAll(both, ".2/", ".3/"), standing{}},
		"conditional jump": {head + strings.ReplaceAll(jumps, "-j RIPOSTE", "-p tcp -j RIPOSTE") + both, standing{}},
	} {
		if got := parseRuleset(c.listing).standing(addr, now); got != c.want {
			t.Errorf("%s: got %v, want %v", name, got, c.want)
		}
	}
}

func FuzzRuleset(f *testing.F) {
	f.Add("-N RIPOSTE\n-A INPUT -j RIPOSTE\n-A OUTPUT -j RIPOSTE\n-A RIPOSTE -s 198.51.100.2/32 -m comment --comment \"riposte/a/60s/1790000060\" -j DROP\n")
	f.Add("-A RIPOSTE -d 2001:db8::1/128 -m comment --comment riposte/a/60s/1790000060 -j DROP")
	f.Add("-A")
	f.Fuzz(func(t *testing.T, listing string) {
		for _, r := range parseRuleset(listing).rules {
			again, ok := parseRule(strings.Join(append([]string{"-A", iptablesChain}, r.argv()...), " "))
			if !ok || again != r {
				t.Errorf("%v reads back as %v, %t", r, again, ok)
			}
			if slices.Contains(r.argv(), "") || r.Made > 100*24*time.Hour {
				t.Errorf("%q", r.argv())
			}
		}
	})
}

func FuzzElement(f *testing.F) {
	f.Add(userdata.AppendString(nil, userdata.NFTNL_UDATA_SET_ELEM_COMMENT, "alert-1"))
	f.Add([]byte{1, 2, 3, 4, 0, 2, 'a', 0})
	f.Add([]byte{0, 255})
	f.Fuzz(func(t *testing.T, data []byte) {
		if c := comment(data); len(c) > 255 {
			t.Errorf("a comment of %d bytes", len(c))
		}
		all, err := parseElements(data)
		if err != nil && all != nil {
			t.Errorf("%v, %v", all, err)
		}
		for i, p := range intervals(all) { // of keys that are no addresses, too
			if p.to.Less(p.from) {
				t.Errorf("%d: %v of %v", i, p, all)
			}
		}
	})
}

func TestGroupMount(t *testing.T) {
	for text, want := range map[string]string{
		"35 24 0:30 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate\n":                               "/sys/fs/cgroup",
		"30 22 0:27 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n40 30 0:37 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n": "/sys/fs/cgroup/unified",
		`40 30 0:37 / /a\040b rw - cgroup2 cgroup2 rw`:                                                                   "/a b",
		"40 30 0:37 /docker/x /sys/fs/cgroup rw - cgroup2 c rw\n":                                                        "", // a part of it
		"40 30 0:37 /../.. /sys/fs/cgroup rw - cgroup2 c rw\n":                                                           "", // of another namespace's
		"33 30 0:33 / /sys/fs/cgroup/freezer rw - cgroup c rw\n":                                                         "",
		"":                "",
		"1 2 - cgroup2 x": "",
	} {
		if got, ok := parseGroupMount(text); got != want || ok != (want != "") {
			t.Errorf("%q: got %q, %t; want %q", text, got, ok, want)
		}
	}
	for _, path := range []string{"", "/", "/..", "/../x", "x", "//", "/.", "/no such group"} {
		if g, err := openGroup(path); err == nil {
			t.Errorf("%q was opened: %+v", path, g)
		}
	}
}

// TestTimeout wants no block to stand for ever because hardly anything is left of it: the kernel rounds
// a timeout to ticks, and none is no end.
func TestTimeout(t *testing.T) {
	for left, want := range map[time.Duration]time.Duration{
		forever: 0, 1: 100 * time.Millisecond, time.Millisecond: 100 * time.Millisecond, time.Hour: time.Hour,
	} {
		if got := (standing{Left: left}).timeout(); got != want {
			t.Errorf("%v: %v, want %v", left, got, want)
		}
	}
}
