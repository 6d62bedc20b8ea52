package e2e_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"riposte/test/need"
)

// TestObserve gives a responder in its default mode what TestContain gives one that
// enforces: nothing is touched, and the ledger tells what would have been done.
func TestObserve(t *testing.T) {
	t.Parallel()
	if !enter(t) {
		return
	}
	for _, c := range []struct {
		what      string
		as        []string // how the responder is started
		terminate string   // outcome and the beginning of its reason, %d being the PID
		block     string
	}{
		{"as root", nil,
			"observed: would terminate PID %d", "observed: would block 198.51.100.7 for 10m (nftables)"},
		// Without the right to look, what it would do is said all the same, but for a
		// process of which it cannot tell whether it is protected.
		{"without capabilities", []string{need.Binary(t, "setpriv"), "--bounding-set=-all", "--inh-caps=-all", "--"},
			"refused: the executable of PID %d cannot be read", "observed: would block 198.51.100.7 for 10m (nftables), if it is not in place already: "},
	} {
		t.Run(c.what, func(t *testing.T) {
			s := newSite(t)
			s.as = c.as
			log := filepath.Join(s.dir, "log")
			s.responder("observe", "--playbooks", s.playbooks(`
name: contain
mode: enforce
match: alert.level in ["HIGH", "CRITICAL"]
steps:
  - {name: terminate, action: terminate_process}
  - {name: block, action: block_ip, with: {ttl: 10m}}
  - {name: note, action: log, with: {path: `+log+`}}
`))
			before := ruleset(t)
			v, w := sleeper(t), stubborn(t)
			for _, v := range []victim{v, w} {
				s.add(fmt.Sprintf(`{"id":"pid-%d","level":"HIGH","title":"t","timestamp":%q,"actionable_pid":%[1]d,"source_ip":"198.51.100.7"}`, v.pid, isoformat(time.Now())))
			}
			s.drained(2)
			for _, v := range []victim{v, w} {
				e := s.entry(fmt.Sprint("pid-", v.pid))
				for i, want := range []string{fmt.Sprintf(c.terminate, v.pid), c.block, "observed: would log to " + log} {
					if st := e.Steps[i]; st.Mode != "observe" || !strings.HasPrefix(st.Outcome+": "+st.Reason, want) {
						t.Errorf("%+v, want %s", st, want)
					}
				}
			}
			v.untouched()
			w.untouched()
			if after := ruleset(t); after != before {
				t.Errorf("the firewall was\n%s and is\n%s", before, after)
			}
			if _, err := os.Stat(log); !os.IsNotExist(err) {
				t.Errorf("something was logged: %v", err)
			}
		})
	}
}

// TestObserveKernelThread runs where kernel threads are seen: on the machine itself, where
// it only observes.
func TestObserveKernelThread(t *testing.T) {
	t.Parallel()
	pid := need.KernelThread(t)
	s := newSite(t)
	s.responder("observe")
	s.add(fmt.Sprintf(`{"id":"kthread","level":"HIGH","title":"t","timestamp":%q,"actionable_pid":%d}`, isoformat(time.Now()), pid))
	s.drained(1)
	if e := s.entry("kthread"); !strings.HasPrefix(e.outcomes(), "terminate refused") || !strings.Contains(e.reason("terminate"), "is a kernel thread") {
		t.Errorf("%+v", e)
	}
}

// wrap has a command started by another one.
func wrap(as []string, cmd *exec.Cmd) *exec.Cmd {
	if len(as) == 0 {
		return cmd
	}
	wrapped := exec.Command(as[0], append(as[1:len(as):len(as)], cmd.Args...)...)
	wrapped.Env = cmd.Env
	return wrapped
}
