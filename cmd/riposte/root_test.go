package main

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"os/signal"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"riposte/ledger"
)

// result is what a run of the program left.
type result struct {
	code     int
	out, err string
}

// cli runs the program in this process. Variables are NAME=VALUE before the arguments.
func cli(t *testing.T, stdin string, args ...string) result {
	t.Helper()
	env := map[string]string{}
	for len(args) > 0 && strings.HasPrefix(args[0], "RIPOSTE_") {
		name, value, _ := strings.Cut(args[0], "=")
		env[name] = value
		args = args[1:]
	}
	lookup := func(name string) (string, bool) { v, ok := env[name]; return v, ok }
	var out, errw bytes.Buffer
	code := run(t.Context(), args, lookup, strings.NewReader(stdin), &out, &errw)
	return result{code, out.String(), errw.String()}
}

func TestExitCodes(t *testing.T) {
	for _, c := range []struct {
		args []string
		code int
		says string // on stderr
	}{
		{[]string{"version"}, 0, ""},
		{[]string{"--help"}, 0, ""},
		{[]string{"publish", "--help"}, 0, ""},
		{[]string{"status", "--redis", "unix:///does/not/exist"}, 1, "riposte demo"},
		{[]string{"status", "--redis", "redis://u:hunter2@h:x"}, 2, "Redis URL"},
		{[]string{"status", "--redis", "http://h"}, 2, "want redis://"},
		{[]string{"status", "--redis", "redis://h:65536"}, 2, "out of range"},
		{[]string{"RIPOSTE_REDIS=http://h", "version"}, 2, "want redis://"},
		{[]string{"status", "--redis", "redis://u:hunter2@h", "--redis-password-file", "/does/not/exist"}, 2, "drop one of them"},
		{[]string{"status", "--redis-password-file", "/does/not/exist"}, 1, "password"},
		{nil, 2, "a command is missing"},
		{[]string{"stauts"}, 2, "did you mean status?"},
		{[]string{"check"}, 2, "an argument is missing; want riposte check PATH..."},
		{[]string{"approve", "a", "b", "--reason", "c"}, 2, `wrong number of arguments, ["a" "b"]; want riposte approve ALERTID`},
		{[]string{"ledger", "list", "--outcome", "kiled"}, 2, `no step ends in outcome "kiled"; there are [terminated killed `},
		{[]string{"nonsense"}, 2, "there are actions, approve, breaker, bridge, check, completion, dead, "},
		{[]string{"ledger", "adit"}, 2, "did you mean audit?"},
		{[]string{"help"}, 0, ""},
		{[]string{"help", "ledger", "audit"}, 0, ""},
		{[]string{"help", "nonsense"}, 2, "there are actions, approve, breaker, bridge, check, completion, dead, "},
		{[]string{"help", "stauts"}, 2, "did you mean status?"},
		{[]string{"help", "ledger", "adit"}, 2, "did you mean audit?"},
		{[]string{"help", "status", "x"}, 2, "riposte status has none below it"},
		{[]string{"completion", "bash"}, 0, ""},
		{[]string{"completion", "bsh"}, 2, "did you mean bash or "},
		{[]string{"--nonsense"}, 2, "unknown flag"},
		{[]string{"version", "--nonsense"}, 2, "unknown flag"},
		{[]string{"version", "extra"}, 2, "extra"},
		{[]string{"version", "-o", "xml"}, 2, "table, json"},
		{[]string{"version", "--log-level", "loud"}, 2, "debug"},
		{[]string{"ledger", "list", "--state", "lost"}, 2, "want one of held, done, dead, waiting"},
		{[]string{"version", "-o"}, 2, "needs an argument"},
		{[]string{"publish", "--host", "a b"}, 2, "host"},
		{[]string{"RIPOSTE_OUTPUT=xml", "version"}, 2, "RIPOSTE_OUTPUT"},
		{[]string{"RIPOSTE_LEASE=0", "responder", "--redis", "unix:///does/not/exist"}, 2, "want 100ms to 1h"},
		{[]string{"RIPOSTE_OUTPUT=xml", "version", "-o", "json"}, 0, ""},
		{[]string{"RIPOSTE_OUTPUT=", "version"}, 0, ""},
		{[]string{"RIPOSTE_HELP=true", "version"}, 0, ""},
	} {
		r := cli(t, "", c.args...)
		if r.code != c.code || !strings.Contains(r.err, c.says) {
			t.Errorf("%q: exit %d, want %d; stderr %q, want %q in it", c.args, r.code, c.code, r.err, c.says)
		}
		if (r.out == "") != (c.code != 0) {
			t.Errorf("%q: stdout %q", c.args, r.out)
		}
		if c.code == 2 && !strings.Contains(r.err, "--help") {
			t.Errorf("%q: stderr %q does not say where to find help", c.args, r.err)
		}
		if strings.Contains(r.err, "hunter2") {
			t.Errorf("%q: stderr shows the password: %s", c.args, r.err)
		}
	}
}

// The help of every command shows how to use it, in plain text.
func TestHelp(t *testing.T) {
	var walk func(*cobra.Command)
	walk = func(cmd *cobra.Command) {
		if cmd.Hidden {
			return
		}
		args := append(strings.Fields(cmd.CommandPath())[1:], "--help")
		r := cli(t, "", args...)
		if r.code != 0 || r.err != "" || !strings.Contains(r.out, "Examples:\n  ") {
			t.Errorf("%v: exit %d, %s%s", args, r.code, r.out, r.err)
		}
		if strings.Contains(r.out, "\x1b") || strings.Contains(r.out, "--state |") {
			t.Errorf("%v: colours, or a choice of nothing:\n%s", args, r.out)
		}
		if cmd.HasSubCommands() != strings.Contains(r.out, cmd.CommandPath()+" COMMAND [flags]") {
			t.Errorf("%v: does it ask for a command?\n%s", args, r.out)
		}
		for _, child := range cmd.Commands() {
			walk(child)
		}
	}
	walk(newRootCmd(new(app)))
	r := cli(t, "", "--help")
	if !strings.Contains(r.out, "\n  completion ") {
		t.Errorf("completion is hidden:\n%s", r.out)
	}
	for flag, fallback := range map[string]string{"mode": "observe", "lease": "5s", "concurrency": "64", "max-age": "10m", "group": `"containment"`} {
		if r := cli(t, "", "responder", "--help"); !slices.ContainsFunc(strings.Split(r.out, "\n"), func(line string) bool {
			return strings.HasPrefix(line, "      --"+flag+" ") && strings.HasSuffix(line, "(default "+fallback+")")
		}) {
			t.Errorf("--%s does not default to %s:\n%s", flag, fallback, r.out)
		}
	}
}

// A number or a time that cannot be is the command line's fault, found before Redis is asked
// for, and a zero does not mean the default.
func TestLimits(t *testing.T) {
	for _, c := range []struct{ command, flag, value, says string }{
		{"responder", "--lease", "0", "want 100ms to 1h"},
		{"responder", "--lease", "0s", "want 100ms to 1h"},
		{"responder", "--lease", "1ms", "want 100ms to 1h"},
		{"responder", "--lease", "61m", "want 100ms to 1h"},
		{"responder", "--lease", "10", "10 what? write 10s"},
		{"responder", "--lease", "long", "want 100ms to 1h"},
		{"responder", "--concurrency", "0", "want 1 to 4096"},
		{"responder", "--concurrency", "4097", "want 1 to 4096"},
		{"responder", "--concurrency", "many", "want 1 to 4096"},
		{"responder", "--max-age", "0", "want 1s to 24h"},
		{"responder", "--max-age", "25h", "want 1s to 24h"},
		{"responder", "--wait-replicas", "-1", "want 0 or more"},
		{"sensor", "--poll-interval", "0", "want 1ms to 1m"},
		{"sensor", "--poll-interval", "2m", "want 1ms to 1m"},
		{"simulate", "--every", "0", "want 1ms or more"},
		{"simulate", "--count", "-1", "want 0 or more"},
		{"ledger audit", "--every", "0", "want 100ms or more"},
		{"ledger list", "--limit", "-1", "want 0 or more"},
		{"ledger tail", "--lines", "-1", "want 0 or more"},
		{"dead purge", "--older-than", "-1h", "want 0 or more"},
	} {
		r := cli(t, "", append(strings.Fields(c.command), "--redis", "unix:///does/not/exist", c.flag, c.value)...)
		if r.code != 2 || !strings.Contains(r.err, c.flag) || !strings.Contains(r.err, c.says) {
			t.Errorf("%s %s %s: exit %d, %s", c.command, c.flag, c.value, r.code, r.err)
		}
	}
	// The limits themselves are within, and the parts do not think otherwise.
	led := ledger.Config{Owner: "o", Lease: ledger.ShortestLease}
	if err := led.Validate(); err != nil {
		t.Error(err)
	}
	for _, args := range [][]string{{"--lease", "100ms"}, {"--lease", "1h"}, {"--concurrency", "1"}, {"--concurrency", "4096"}, {"--max-age", "24h"}} {
		if r := cli(t, "", append([]string{"responder", "--own-uid", "--redis", "unix:///does/not/exist"}, args...)...); r.code != 1 {
			t.Errorf("%v: exit %d, %s", args, r.code, r.err)
		}
	}
}

// Every flag of every command can be given through the environment.
func TestFlagsFromEnvironment(t *testing.T) {
	a := &app{}
	var walk func(*cobra.Command)
	walk = func(cmd *cobra.Command) {
		if cmd.Hidden {
			return
		}
		if cmd.Runnable() && (cmd.Example == "" || cmd.Short == "") {
			t.Errorf("%s has no example or no description", cmd.CommandPath())
		}
		cmd.LocalFlags().VisitAll(func(f *pflag.Flag) {
			want := f.DefValue
			if err := fromEnvironment(cmd.Flags(), func(name string) (string, bool) {
				return want, name == "RIPOSTE_"+strings.ToUpper(strings.ReplaceAll(f.Name, "-", "_"))
			}); err != nil {
				t.Errorf("%s --%s: %v", cmd.CommandPath(), f.Name, err)
			}
			if !f.Changed && want != "" && f.Name != "help" {
				t.Errorf("%s --%s is not taken from the environment", cmd.CommandPath(), f.Name)
			}
		})
		for _, child := range cmd.Commands() {
			walk(child)
		}
	}
	walk(newRootCmd(a))
}

func TestHostFlag(t *testing.T) {
	a := &app{hostFlag: "web-1"}
	if h, err := a.host(); err != nil || h != "web-1" {
		t.Errorf("got %q, %v", h, err)
	}
	a.hostFlag = ""
	if h, err := a.host(); err != nil || h == "" {
		t.Errorf("hostname: got %q, %v", h, err)
	}
}

func TestVersion(t *testing.T) {
	if r := cli(t, "", "version"); !strings.HasPrefix(r.out, "riposte ") || !strings.Contains(r.out, runtime.GOOS+"/"+runtime.GOARCH) {
		t.Errorf("got %q", r.out)
	}
	var b buildInfo
	if r := cli(t, "", "version", "-o", "json"); json.Unmarshal([]byte(r.out), &b) != nil || b.Go != runtime.Version() || b.Version == "" {
		t.Errorf("got %q", r.out)
	}
}

func TestPlain(t *testing.T) {
	for s, want := range map[string]string{
		"可疑 <é> \u3000x":      "可疑 <é> \u3000x",
		"\x1b[2J\x07":         `\u001b[2J\u0007`,
		"a\nb\tc\r":           `a\u000ab\u0009c\u000d`,
		"\u202egnp.exe":       `\u202egnp.exe`, // right to left
		"bad \xff utf-8 \x00": `bad � utf-8 \u0000`,
	} {
		if got := plain(s); got != want {
			t.Errorf("%q: got %q, want %q", s, got, want)
		}
	}
}

func TestTable(t *testing.T) {
	var out bytes.Buffer
	a := &app{out: &out}
	if err := a.table([]string{"A", "B"}, [][]string{{"long cell", "\x1b[31mx"}, {"s", "y"}}); err != nil {
		t.Fatal(err)
	}
	want := "A          B\nlong cell  \\u001b[31mx\ns          y\n"
	if out.String() != want {
		t.Errorf("got %q, want %q", out.String(), want)
	}
}

func TestLogFlags(t *testing.T) {
	var errw bytes.Buffer
	log := newLogger(&errw, "warn", "json")
	log.Info("quiet")
	log.Log(context.Background(), 4, "loud")
	var line struct{ Level, Msg string }
	if err := json.Unmarshal(errw.Bytes(), &line); err != nil || line.Msg != "loud" {
		t.Errorf("got %q, %v", errw.String(), err)
	}
}

// A hang-up ends a command in good order, but not one that was started with nohup.
func TestHangUp(t *testing.T) {
	if !signal.Ignored(syscall.SIGHUP) && !slices.Contains(endings(), os.Signal(syscall.SIGHUP)) {
		t.Error("a hang-up ends nothing")
	}
	signal.Ignore(syscall.SIGHUP) // as nohup does
	defer signal.Reset(syscall.SIGHUP)
	if slices.Contains(endings(), os.Signal(syscall.SIGHUP)) {
		t.Error("nohup is of no use")
	}
}
