package e2e_test

import (
	"encoding/json"
	"fmt"
	"os/exec"
	"strings"
	"testing"

	"riposte/test/build"
)

// TestPoison: an alert that kills every replica that touches it is buried, however early it
// does so, and what was read and held together with it is not buried with it.
func TestPoison(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		at     string
		deaths int // until it is known for what it is
		reason string
		alert  string // under which it is buried
	}{
		"before Begin": {"claim", 10, "delivered 11 times; every replica that took it died before it could begin", "entry~"},
		"after Begin":  {"before-gate", 5, "poison: the replicas that held it died", "alert-poison"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t)
			s.binary = build.Riposte(t, "riposte_crashpoints")
			s.env = []string{"RIPOSTE_CRASH=" + c.at + "@alert-poison:kill"}
			for i := range 8 {
				if i == 4 {
					s.add(`{"id":"alert-poison","level":"LOW"}`)
				}
				s.add(fmt.Sprintf(`{"id":"alert-%d","level":"LOW"}`, i))
			}
			deaths := 0
			done := func() bool {
				groups, err := s.rdb.XInfoGroups(t.Context(), host.AlertsKey()).Result()
				return err == nil && len(groups) == 1 && groups[0].EntriesRead == 9 && groups[0].Pending == 0
			}
			for !done() {
				cmd := s.command(append([]string{"responder", "--lease", "1s"}, s.folders()...)...)
				var said text
				cmd.Stderr = &said
				gone := spawn(t, cmd)
				until(t, func() string { return "dies or has nothing left to do:\n" + said.String() }, func() bool {
					select {
					case <-gone:
						return true
					default:
						return done()
					}
				})
				select {
				case <-gone:
					if deaths++; deaths > 3*c.deaths {
						t.Fatalf("it is not known for what it is; the last replica said:\n%s", said.String())
					}
				default:
					end(t, cmd, gone)
				}
			}
			if deaths < c.deaths || deaths > c.deaths+2 {
				t.Errorf("%d replicas died of it; want about %d", deaths, c.deaths)
			}
			var letters []struct{ Alert, Reason string }
			if err := json.Unmarshal([]byte(s.run("dead", "list", "-o", "json")), &letters); err != nil {
				t.Fatal(err)
			}
			if len(letters) != 1 || !strings.HasPrefix(letters[0].Alert, c.alert) || letters[0].Reason != c.reason {
				t.Errorf("dead letters: %+v", letters)
			}
			for _, e := range s.ledger() {
				if strings.Contains(e.ID, "poison") || strings.HasPrefix(e.ID, "entry~") {
					continue
				}
				if e.State != "done" || e.outcomes() != "- no_match" {
					t.Errorf("a neighbour of it: %+v", e)
				}
			}
			if n := len(s.ledger()); n != 9 {
				t.Errorf("%d entries of 9 alerts", n)
			}
			s.run(append([]string{"ledger", "audit"}, s.folders()...)...)
		})
	}
}

// end kills a process and waits until it is gone.
func end(t *testing.T, cmd *exec.Cmd, gone <-chan struct{}) {
	t.Helper()
	_ = cmd.Process.Kill()
	<-gone
}
