package e2e_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"reflect"
	"strings"
	"syscall"
	"testing"
	"time"

	"riposte/test/need"
)

// TestContain is the main job, through every door: an alert of a process ends the process,
// an alert of an address blocks the address, and the ledger says so, once.
func TestContain(t *testing.T) {
	t.Parallel()
	if !enter(t) {
		return
	}
	s := newSite(t)
	// Detectors write the time of the host's own zone, and say nothing of it.
	zone := time.FixedZone("CST", 8*3600)
	s.env = []string{"TZ=Asia/Shanghai"}
	responder := s.responder("enforce")
	s.bridge()
	added := int64(0)
	doors := map[string]func(raw string){
		"XADD": func(raw string) { s.add(raw); added++ },
		"PUBLISH": func(raw string) {
			if n, err := s.rdb.Publish(t.Context(), "high_severity_alerts", raw).Result(); n != 1 || err != nil {
				t.Fatalf("%d are subscribed, %v", n, err)
			}
			added++
		},
	}

	for _, c := range []struct {
		what, alert   string // %[1]d is the PID, %[2]s the time
		wholeSecond   bool
		victim        func(*testing.T) victim
		outcome, said string
		signal        syscall.Signal
	}{
		{"an alert by hand", `{"level":"HIGH","title":"t","timestamp":"%[2]s","actionable_pid":%[1]d}`, false, sleeper, "terminated", "after SIGTERM", syscall.SIGTERM},
		// json.dumps of a dict, with its defaults.
		{"a detector in Python", `{"level": "HIGH", "title": "\u53ef\u7591\u8fdb\u7a0b\u94fe", "description": "winword.exe \u542f\u52a8\u4e86 powershell.exe", ` +
			`"details": {"parent": "winword.exe", "pid": %[1]d, "score": 0.97}, "timestamp": "%[2]s", "actionable_pid": %[1]d, "source_ip": null}`,
			false, sleeper, "terminated", "after SIGTERM", syscall.SIGTERM},
		// isoformat() leaves out a fraction of zero, and the process may have started at
		// any moment of that second.
		{"a detector in Python, on the second", `{"level": "CRITICAL", "title": "\u53ef\u7591", "timestamp": "%[2]s", "actionable_pid": %[1]d}`,
			true, sleeper, "terminated", "after SIGTERM", syscall.SIGTERM},
		{"a process that ignores SIGTERM", `{"level":"HIGH","title":"t","timestamp":"%[2]s","actionable_pid":%[1]d}`,
			false, stubborn, "killed", "outlived SIGTERM by the grace of 1s", syscall.SIGKILL},
	} {
		for _, door := range []string{"XADD", "PUBLISH"} {
			t.Run(c.what+" by "+door, func(t *testing.T) {
				if c.wholeSecond { // so that it starts well after the second has begun, and within it
					until(t, func() string { return "is mid-second" }, func() bool {
						ms := time.Now().Nanosecond() / 1e6
						return ms > 100 && ms < 600
					})
				}
				v := c.victim(t)
				at := time.Now().In(zone)
				if c.wholeSecond {
					at = at.Truncate(time.Second)
				}
				raw := fmt.Sprintf(c.alert, v.pid, isoformat(at))
				doors[door](raw)
				if sig := v.endedBy(); sig != c.signal {
					t.Errorf("ended by %v", sig)
				}
				s.drained(added)
				once := s.entry(idOf(t, raw))
				if once.State != "done" || once.Duplicates != 0 || once.outcomes() != "terminate "+c.outcome+", log logged" ||
					!strings.Contains(once.reason("terminate"), c.said) {
					t.Errorf("%+v", once)
				}

				wellFormed(t, once, responder.cmd.Process.Pid)

				entries := len(s.ledger())
				doors[door](raw)
				s.drained(added)
				twice := s.entry(idOf(t, raw))
				if twice.Duplicates != 1 || len(s.ledger()) != entries {
					t.Errorf("the same alert again: %d duplicates, %d entries more", twice.Duplicates, len(s.ledger())-entries)
				}
				if twice.Duplicates = 0; !reflect.DeepEqual(once, twice) {
					t.Errorf("the same alert again changed\n%+v to\n%+v", once, twice)
				}
			})
		}
	}

	t.Run("an address", func(t *testing.T) {
		for id, address := range map[string]string{"four": "198.51.100.7", "six": "2001:db8::7"} {
			doors["PUBLISH"](fmt.Sprintf(`{"id":%q,"level":"HIGH","title":"t","source_ip":%q}`, id, address))
		}
		s.drained(added)
		blocked := blockedAddresses(t)
		for id, address := range map[string]string{"four": "198.51.100.7", "six": "2001:db8::7"} {
			if e := s.entry(id); e.outcomes() != "block blocked, log logged" || blocked[address] != id {
				t.Errorf("%+v; the firewall blocks %v", e, blocked)
			}
		}
	})

	t.Run("the responder itself", func(t *testing.T) {
		doors["XADD"](fmt.Sprintf(`{"id":"itself","level":"HIGH","title":"t","actionable_pid":%d}`, responder.cmd.Process.Pid))
		s.drained(added)
		if e := s.entry("itself"); e.outcomes() != "terminate refused, log logged" || !strings.Contains(e.reason("terminate"), "is a process of Riposte") {
			t.Errorf("%+v", e)
		}
	})

	// The log step writes where the responder does.
	if n := strings.Count(responder.out.String(), "\n"); n != 11 {
		t.Errorf("%d lines for 11 alerts:\n%s", n, responder.out.String())
	}
	if !strings.Contains(responder.out.String(), `"title":"可疑进程链"`) {
		t.Errorf("the title does not read as it was meant:\n%s", responder.out.String())
	}
	responder.stop()
}

// wellFormed checks what else scripts rely on in the ledger.
func wellFormed(t *testing.T, e entry, responder int) {
	t.Helper()
	replica := fmt.Sprintf("h1-%d-", responder)
	if e.Host != "h1" || e.Group != "containment" || !strings.HasPrefix(e.Owner, replica) || e.Epoch == 0 || e.Attempts != 1 || e.Flags == nil {
		t.Errorf("%+v", e)
	}
	const micro = "2006-01-02T15:04:05.000000Z07:00"
	for _, st := range e.Steps {
		_, err1 := time.Parse(micro, st.Started)
		_, err2 := time.Parse(micro, st.Ended)
		if err := errors.Join(err1, err2); err != nil || st.Started > st.Ended || st.Playbook != "default" || st.Action == "" ||
			st.Mode != "enforce" || st.Epoch != e.Epoch || st.Replica != e.Owner {
			t.Errorf("%+v: %v", st, err)
		}
	}
}

// blockedAddresses is what the firewall itself says: the blocked addresses, and for which
// alert. Nil where there is no rule at all.
func blockedAddresses(t *testing.T) map[string]string {
	t.Helper()
	raw := ruleset(t)
	var all struct {
		Objects []struct {
			Set *struct {
				Table string
				Elem  []struct {
					Elem struct {
						Val              string
						Comment          string
						Timeout, Expires int
					}
				}
			}
			Rule *struct{ Table, Chain, Comment string }
		} `json:"nftables"`
	}
	if err := json.Unmarshal([]byte(raw), &all); err != nil {
		t.Fatalf("%v: %s", err, raw)
	}
	var rules []string
	var blocked map[string]string
	for _, o := range all.Objects {
		if o.Rule != nil && o.Rule.Table == "riposte" {
			rules = append(rules, o.Rule.Chain+" "+o.Rule.Comment)
		}
		if o.Set == nil || o.Set.Table != "riposte" {
			continue
		}
		if blocked == nil {
			blocked = map[string]string{}
		}
		for _, e := range o.Set.Elem {
			if blocked[e.Elem.Val] = e.Elem.Comment; e.Elem.Timeout != 3600 || e.Elem.Expires < 3500 {
				t.Errorf("%s is blocked for %d s, %d s are left; want an hour", e.Elem.Val, e.Elem.Timeout, e.Elem.Expires)
			}
		}
	}
	if want := "input riposte:in4, input riposte:in6, output riposte:out4, output riposte:out6"; blocked != nil && strings.Join(rules, ", ") != want {
		t.Errorf("rules %v", rules)
	}
	return blocked
}

// ruleset is the firewall of this network namespace.
func ruleset(t *testing.T) string {
	t.Helper()
	out, err := exec.Command(need.Binary(t, "nft"), "-j", "list", "ruleset").CombinedOutput()
	if err != nil {
		t.Fatalf("nft: %v\n%s", err, out)
	}
	return string(out)
}
