package crash

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"riposte/playbook/action"
	"riposte/test/build"
	"riposte/test/faultproxy"
	"riposte/test/redistest"
	"riposte/test/table"
)

// command is one that the pipeline sends, and when it is broken.
type command struct {
	name  string
	arg   string // one that tells it from others of its name, which need cases of their own
	nth   int    // time that it is sent; 0: the first
	cause bool   // it is sent only where a read of alerts was lost, which is broken as well
}

const (
	newAlerts = ">"                                         // what a read asks for
	noAlerts  = "18446744073709551615-18446744073709551614" // what a sign of life asks for
)

var commands = []command{
	{name: "HELLO"}, {name: "HELLO", nth: 2}, {name: "PING"}, {name: "INFO"}, {name: "register"},
	{name: "XGROUP", arg: "create"}, {name: "XREADGROUP", arg: newAlerts}, {name: "XREADGROUP", arg: noAlerts}, {name: "ZADD"},
	{name: "XINFO", arg: "consumers"}, {name: "XINFO", arg: "groups"}, {name: "XPENDING"}, {name: "XRANGE", cause: true}, {name: "trim"},
	{name: "TIME"}, {name: "ZRANGEBYSCORE"}, {name: "HKEYS"}, {name: "SCRIPT", arg: "load"}, {name: "SCRIPT", arg: "load", nth: 5},
	{name: "takeover"}, {name: "takeover", nth: 2},
	{name: "begin"}, {name: "begin", nth: 2}, {name: "begin", nth: 3},
	{name: "renew"}, {name: "release"}, {name: "bury"},
	{name: "record", arg: "retry"}, {name: "record", arg: "record"}, {name: "record", arg: bookName + "/act"}, {name: "record", arg: bookName + "/after"},
}

func (c command) String() string {
	text := strings.TrimSpace(c.name + " " + strings.Replace(c.arg, noAlerts, "none", 1))
	if c.nth > 1 {
		text += fmt.Sprintf(", time %d", c.nth)
	}
	return text
}

// inject breaks the command. Where the server is not to see it, it is for one class the
// server itself that says so.
func (c command) inject(p *faultproxy.Proxy, when faultproxy.When, about class) *faultproxy.Fault {
	if c.cause {
		p.Inject(faultproxy.Rule{Command: "XREADGROUP", Arg: newAlerts, When: faultproxy.After})
	}
	r := faultproxy.Rule{Command: c.name, Arg: c.arg, Nth: c.nth, When: when}
	if when == faultproxy.Before && about.class == action.Idempotent {
		r.Error = "LOADING Redis is loading the dataset in memory"
	}
	return p.Inject(r)
}

// relay hands one alert from replica to replica, through a proxy, and an entry that is no
// alert with it: the first replica is killed when it was granted both, the second stopped
// when it has failed at a step and renewed its lease.
func (st staging) relay(t *testing.T, host string, c class, breakIt func(*faultproxy.Proxy) *faultproxy.Fault) (result, map[string]int) {
	s := st.scene(t, host, c, 1500*time.Millisecond, unhurried)
	proxy := faultproxy.Start(t, s.rdb.Options().Addr)
	proxy.Expect(rules(commands))
	s.url = proxy.URL
	later := filepath.Join(s.dir, "later")
	s.book(
		fmt.Sprintf("{name: wait, action: log, with: {path: %q}, retry: {attempts: 100, initial: 20ms, max: 100ms}}", filepath.Join(later, "file")),
		s.steps(), s.after())
	if c.class != action.Verifiable {
		s.possible(t)
	}
	s.publish()
	s.add([]byte("not an alert"))
	fault := breakIt(proxy)

	first := s.start("granted:stop")
	first.awaitFrozen(t)
	second := s.start("")
	died := first.kill(t)
	await(t, "an attempt to fail, a lease to be renewed, and everything else to be looked after", func() bool {
		seen := proxy.Seen()
		return s.happened("retry") && seen["renew"] > 0 && seen["ZRANGEBYSCORE"] > 0
	})
	second.stop(t)
	s.start("")
	if err := os.Mkdir(later, 0o700); err != nil {
		t.Fatal(err)
	}
	s.settle()
	r := result{class: c}
	if at, ok := s.begun(second); ok {
		r.takeover = max(at.Sub(died), time.Millisecond)
	} else {
		t.Error("the second replica did not take over")
	}
	s.stop()
	if fault != nil && !fault.Struck() {
		t.Error("the fault did not strike")
	}
	r.verdict = s.judge()
	if r.outcome != c.outcome[0] || r.effects != 1 || r.lost+r.doubled > 0 {
		t.Errorf("outcome %q, want %q; the effect happened %d times; lost %d, doubled %d", r.outcome, c.outcome[0], r.effects, r.lost, r.doubled)
	}
	for _, file := range []string{s.afterFile(), filepath.Join(later, "file")} {
		if n := count(t, file, string(s.host)); n != 1 {
			t.Errorf("%d lines in %s", n, filepath.Base(file))
		}
	}
	if s.happened("late") {
		t.Error("a holder was told that its grant is lost, and it was not")
	}
	letters, err := s.rdb.XLen(t.Context(), s.host.DeadKey("containment")).Result()
	if err != nil || letters != 1 {
		t.Errorf("%d dead letters, %v", letters, err)
	}
	s.audit()
	uncovered(t, proxy)
	return r, proxy.Seen()
}

func TestCommands(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	st := staging{build.Riposte(t, "riposte_crashpoints"), server.URL, server.Client()}
	t.Run("none", func(t *testing.T) {
		_, seen := st.relay(t, "clean", classes[0], func(*faultproxy.Proxy) *faultproxy.Fault { return nil })
		t.Logf("the pipeline sends %v", seen)
	})

	whens := []faultproxy.When{faultproxy.Before, faultproxy.After}
	var mu sync.Mutex
	rows := map[string]table.Row{}
	results := map[string]result{}
	var cases []func()
	for _, when := range whens {
		for _, c := range classes {
			row := string(when) + c.name
			rows[row] = table.Row{Group: "command", Fault: "broken " + string(when) + " it ran, each command", Class: c.name}
			for _, cmd := range commands {
				host := fmt.Sprintf("c%d", len(cases))
				cases = append(cases, func() {
					t.Run(fmt.Sprintf("%v/%s/%s", cmd, c.name, when), func(t *testing.T) {
						r, _ := st.relay(t, host, c, func(p *faultproxy.Proxy) *faultproxy.Fault {
							return cmd.inject(p, when, c)
						})
						mu.Lock()
						defer mu.Unlock()
						rows[row] = r.into(rows[row])
						results[cmd.String()+row] = r
					})
				})
			}
		}
	}
	together(cases)
	for _, when := range whens {
		for _, c := range classes {
			if row := rows[string(when)+c.name]; row.Accepted > 0 {
				table.Add(t, row)
			}
		}
	}
	var out strings.Builder
	out.WriteString("\n| command | class | " + strings.Join(words(whens), " | ") + " |\n|---|---|---|---|\n")
	for _, cmd := range commands {
		for _, c := range classes {
			fmt.Fprintf(&out, "| %v | %s |", cmd, c.name)
			for _, when := range whens {
				fmt.Fprintf(&out, " %v |", results[cmd.String()+string(when)+c.name])
			}
			out.WriteString("\n")
		}
	}
	t.Log(out.String())
}

// rules are the commands, as the proxy knows them. A command without an argument of its own
// stands for all of its name: what INFO, PING or a script is asked with is data.
func rules(commands []command) (all []faultproxy.Rule) {
	for _, c := range commands {
		all = append(all, faultproxy.Rule{Command: c.name, Arg: c.arg})
	}
	return all
}

// uncovered fails the test for commands that came by and are never broken.
func uncovered(t testing.TB, proxy *faultproxy.Proxy) {
	t.Helper()
	for _, stranger := range proxy.Strangers() {
		t.Errorf("no case breaks %s: add it to the commands", stranger)
	}
}
