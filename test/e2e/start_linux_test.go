package e2e_test

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"riposte/stream"
	"riposte/test/build"
	"riposte/test/need"
)

// TestPlaybookMistakes: whoever mistypes a playbook hears of it at the start, with the
// place and the word he meant, and before any alert has been taken.
func TestPlaybookMistakes(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.add(`{"id":"a","level":"HIGH","actionable_pid":0}`)
	for _, c := range []struct{ what, src, want string }{
		{"field", "name: p\nmatch: \"true\"\nstpes: []\n", `book.yaml:3:1: unknown field "stpes"; did you mean "steps"?`},
		{"field of with", "name: p\nmatch: \"true\"\nsteps:\n  - name: a\n    action: terminate_process\n    with:\n      grase: 1s\n", `book.yaml:7:7: unknown field "grase"; did you mean "grace"?`},
		{"action", "name: p\nmatch: \"true\"\nsteps:\n  - name: a\n    action: terminate_proces\n", `book.yaml:5:13: step "a": unknown action "terminate_proces"; did you mean "terminate_process"?`},
		{"duration", "name: p\nmatch: \"true\"\nsteps:\n  - name: a\n    action: terminate_process\n    with: {grace: 1sec}\n", `book.yaml:6:19: time: unknown unit "sec" in duration "1sec"; write it like 300ms`},
		{"condition", "name: p\nmatch: alert.levle == \"HIGH\"\nsteps:\n  - name: a\n    action: log\n", `book.yaml:2:14: match: unknown field "levle"; did you mean "level"?`},
		{"mode", "name: p\nmode: enfroce\nmatch: \"true\"\nsteps:\n  - name: a\n    action: log\n", `book.yaml:2:7: mode "enfroce"; did you mean "enforce"?`},
		{"YAML", "name: p\nmatch: [\n", `book.yaml:2:8: `},
	} {
		r := run(t, s.command(append([]string{"responder", "--playbooks", s.playbooks(c.src)}, s.folders()...)...))
		if r.code != 1 || r.out != "" || !strings.Contains(r.err, c.want) {
			t.Errorf("%s: exit %d, want 1 and %s\n%s%s", c.what, r.code, c.want, r.out, r.err)
		}
	}
	r := run(t, s.command(append([]string{"responder", "--playbooks", filepath.Join(s.dir, "absent")}, s.folders()...)...))
	if r.code != 1 || !strings.Contains(r.err, "absent: no such file or directory") {
		t.Errorf("no folder: exit %d\n%s", r.code, r.err)
	}
	if groups, err := s.rdb.XInfoGroups(t.Context(), host.AlertsKey()).Result(); err != nil || len(groups) != 0 {
		t.Errorf("groups were made: %+v, %v", groups, err)
	}
}

// TestNoRedis: a command that needs Redis says where it looked and how to start one.
func TestNoRedis(t *testing.T) {
	t.Parallel()
	binary := build.Riposte(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed := l.Addr().String()
	l.Close()
	dir := t.TempDir()
	for _, where := range []string{"redis://" + closed, "unix://" + filepath.Join(dir, "redis.sock")} {
		for _, args := range [][]string{
			{"responder", "--runtime-dir", filepath.Join(dir, "run"), "--state-dir", filepath.Join(dir, "state")},
			{"bridge"}, {"publish"}, {"status"}, {"ledger", "list"}, {"dead", "list"},
		} {
			cmd := exec.Command(binary, append(args, "--redis", where, "--host", "h1")...)
			cmd.Env = environment()
			r := run(t, cmd)
			if r.code != 1 || r.out != "" || !strings.Contains(r.err, "no Redis at "+where) || !strings.Contains(r.err, "redis-server --appendonly yes") {
				t.Errorf("%v at %s: exit %d\n%s%s", args, where, r.code, r.out, r.err)
			}
		}
	}
}

// TestUsage: what is wrong with the command line is exit code 2.
func TestUsage(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	for _, c := range []struct {
		args, want string
		env        []string
	}{
		{args: "responder --mode kill", want: "want one of observe, approve, enforce"},
		{args: "responder", env: []string{"RIPOSTE_MODE=kill"}, want: "RIPOSTE_MODE"},
		{args: "responder --concurrency many", want: "many"},
		{args: "responder --concurrency -1", want: "want 1 to 4096"},
		{args: "responder --lease 1ms", want: "want 100ms to 1h"},
		{args: "responder --lease 5", want: "5 what? write 5s"},
		{args: "responder --max-age 48h", want: "want 1s to 24h"},
		{args: "responder --timezone Mars/Olympus", want: "--timezone: unknown time zone Mars/Olympus"},
		{args: "responder --group a/b", want: `group "a/b": want`},
		{args: "responder --host a/b", want: `host "a/b": want`},
		{args: "responder --palybooks /tmp", want: "unknown flag: --palybooks"},
		{args: "responder now", want: "wrong number of arguments"},
		{args: "respond", want: `did you mean responder?`},
		{args: "ledger list -o yaml", want: "want one of table, json"},
	} {
		args := strings.Fields(c.args)
		if args[0] == "responder" {
			args = append(args, s.folders()...)
		}
		// The last word on a flag wins, so those of the site come first.
		cmd := exec.Command(s.binary, append([]string{"--redis", s.redis.URL, "--host", "h1"}, args...)...)
		cmd.Env = append(environment(), c.env...)
		r := run(t, cmd)
		if r.code != 2 || r.out != "" || !strings.Contains(r.err, c.want) || !strings.Contains(r.err, "--help") {
			t.Errorf("riposte %s: exit %d, want 2 and %s\n%s%s", c.args, r.code, c.want, r.out, r.err)
		}
	}
	if s.rdb.Exists(t.Context(), host.AlertsKey()).Val() != 0 {
		t.Error("a group was made")
	}
}

// TestEnforceStart: a responder that enforces starts only where it can do what it says,
// and where what it did will be remembered.
func TestEnforceStart(t *testing.T) {
	t.Parallel()
	if !enter(t) {
		return
	}
	addNetwork(t)
	setpriv := need.Binary(t, "setpriv")
	without := func(caps string) []string {
		return []string{setpriv, "--bounding-set=" + caps, "--inh-caps=" + caps, "--"}
	}
	const onlyTerminate = "name: p\nmatch: \"true\"\nsteps:\n  - {name: stop, action: terminate_process}\n"
	const onlyObserve = "name: p\nmode: observe\nmatch: \"true\"\nsteps:\n  - {name: stop, action: terminate_process}\n"
	for _, c := range []struct {
		what  string
		redis []string
		as    []string
		url   string // where Redis is looked for, if not on loopback
		book  string
		args  []string
		fails []string // empty: it starts
	}{
		{what: "all is well"},
		{what: "no capability", as: without("-all"), fails: []string{"CAP_KILL, CAP_SYS_PTRACE, CAP_NET_ADMIN", "setcap cap_kill,cap_sys_ptrace,cap_net_admin+ep", "--own-uid", "--mode observe"}},
		{what: "no CAP_NET_ADMIN", as: without("-net_admin"), fails: []string{"the playbooks need CAP_NET_ADMIN,", "setcap cap_net_admin+ep"}},
		{what: "no CAP_NET_ADMIN, and no need of it", as: without("-net_admin"), book: onlyTerminate},
		{what: "no CAP_KILL", as: without("-kill"), book: onlyTerminate, fails: []string{"the playbooks need CAP_KILL,"}},
		{what: "no capability, own processes only", as: without("-all"), book: onlyTerminate, args: []string{"--own-uid"}},
		{what: "no capability, a playbook that observes", as: without("-all"), book: onlyObserve},

		{what: "no append-only file", redis: []string{"--appendonly", "no"},
			fails: []string{"redis-cli CONFIG SET appendonly yes\n", "redis-cli CONFIG REWRITE\n", "--allow-volatile"}},
		{what: "snapshots alone", redis: []string{"--appendonly", "no", "--save", "60 1"}, fails: []string{"redis-cli CONFIG SET appendonly yes"}},
		{what: "no append-only file, accepted", redis: []string{"--appendonly", "no"}, args: []string{"--allow-volatile"}},
		{what: "a Redis that evicts", redis: []string{"--maxmemory-policy", "allkeys-lru"},
			fails: []string{"redis-cli CONFIG SET maxmemory-policy noeviction\n", "redis-cli CONFIG REWRITE\n", "--allow-volatile"}},
		{what: "a Redis open to all", redis: []string{"--bind", "0.0.0.0", "--protected-mode", "no"}, url: "192.0.2.10",
			fails: []string{"asks for no password", "--redis-password-file", "--insecure-redis"}},
		{what: "a Redis open to all, accepted", redis: []string{"--bind", "0.0.0.0", "--protected-mode", "no"}, url: "192.0.2.10", args: []string{"--insecure-redis"}},
	} {
		t.Run(c.what, func(t *testing.T) {
			t.Parallel() // most of it waits
			s := newSite(t, c.redis...)
			s.as = c.as
			if c.url != "" {
				s.redis.URL = strings.Replace(s.redis.URL, "127.0.0.1", c.url, 1)
			}
			if c.book != "" {
				c.args = append(c.args, "--playbooks", s.playbooks(c.book))
			}
			if len(c.fails) == 0 {
				d := s.responder("enforce", c.args...)
				// A victim of its own rights, which is what it may act on in every case.
				cmd := wrap(c.as, exec.Command("sleep", "1000"))
				gone := spawn(t, cmd)
				v := victim{t, cmd, gone, cmd.Process.Pid}
				until(t, func() string { return "runs sleep" }, func() bool { return v.stat().Comm == "sleep" })
				s.add(v.alert("t"))
				s.drained(1)
				switch e := s.ledger()[0]; {
				case c.book == onlyObserve:
					if e.outcomes() != "stop observed" {
						t.Errorf("%+v", e)
					}
					v.untouched()
				default:
					if sig := v.endedBy(); sig != syscall.SIGTERM {
						t.Errorf("%+v", e)
					}
				}
				d.stop()
				return
			}
			args := append([]string{"responder", "--mode", "enforce"}, append(s.folders(), c.args...)...)
			r := run(t, s.command(args...))
			for _, want := range c.fails {
				if r.code != 1 || r.out != "" || !strings.Contains(r.err, want) {
					t.Errorf("exit %d, want 1 and %q\n%s%s", r.code, want, r.out, r.err)
				}
			}
			if s.rdb.Exists(t.Context(), host.AlertsKey(), stream.HostsKey).Val() != 0 {
				t.Error("it left something in Redis")
			}
			// Only to enforce takes so much.
			s.responder("observe", c.args...).stop()
		})
	}

	t.Run("a runtime folder open to others", func(t *testing.T) {
		s := newSite(t)
		run1 := filepath.Join(s.dir, "run")
		if err := os.Mkdir(run1, 0o755); err != nil {
			t.Fatal(err)
		}
		r := run(t, s.command(append([]string{"responder", "--mode", "enforce"}, s.folders()...)...))
		if r.code != 1 || !strings.Contains(r.err, run1+" is open to others (mode 0755); chmod 0700 it") {
			t.Errorf("exit %d\n%s", r.code, r.err)
		}
	})
}
