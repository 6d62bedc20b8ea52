// Package compose_test runs docker-compose.yml as it is, on images made on the spot.
package compose_test

import (
	"encoding/json"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"riposte/stream"
)

const (
	host    = stream.Host("endpoint")
	group   = string(stream.DefaultGroup)
	attacks = 72
)

// Three responders contain simulated attacks while one of them is killed in the middle of
// its work, and what is left behind tells what happened.
func TestCompose(t *testing.T) {
	p := newProject(t, "RIPOSTE_EVERY=200ms", "RIPOSTE_COUNT="+strconv.Itoa(attacks))
	p.compose("config", "--quiet")
	p.compose("up", "--detach")
	rdb := p.connect("responder")

	killed := p.killOne(rdb)
	victims := p.simulated()
	p.settled(rdb)
	p.checkLedger(victims, killed)
	p.checkViews(rdb, killed)
	p.checkBlock()
	p.checkAccess()
	p.checkScale()
}

// replica is a responder container and the consumer it is.
type replica struct {
	container
	consumer string // as XINFO shows it, up to its random end
}

func (p *project) replicas() (found []replica) {
	for _, c := range p.containers("responder") {
		if inner := innerPID(c.State.Pid); c.State.Status == "running" && inner != 0 {
			found = append(found, replica{c, fmt.Sprintf("%s-%d-", host, inner)})
		}
	}
	return found
}

// killOne kills a responder on this machine, not through Docker, whose `kill` would keep
// it from being restarted: while it waits for a decoy that ignores SIGTERM, and so holds
// an alert that it has not recorded. It returns the name of the consumer that died.
func (p *project) killOne(rdb *redis.Client) (consumer string) {
	t := p.t
	var victim replica
	await(t, "a replica dies with an alert in its hands", time.Minute, func() bool {
		all := p.replicas()
		if len(all) != 3 {
			return false
		}
		for _, held := range p.pending(rdb, "-", "+") {
			// The first moments are those of decoys that obey, the last ones are too late.
			if held.Idle < 100*time.Millisecond || held.Idle > 600*time.Millisecond {
				continue
			}
			i := slices.IndexFunc(all, func(r replica) bool { return strings.HasPrefix(held.Consumer, r.consumer) })
			if i < 0 {
				continue
			}
			victim, consumer = all[i], held.Consumer
			p.kill(victim)
			if len(p.pending(rdb, held.ID, held.ID)) == 1 {
				t.Logf("killed %s %v after it was given %s", consumer, held.Idle, held.ID)
				return true
			}
			t.Logf("%s had just finished when it was killed", consumer)
			return false
		}
		return false
	})
	await(t, "the killed container runs again", 30*time.Second, func() bool {
		for _, c := range p.containers("responder") {
			if c.ID == victim.ID {
				return c.RestartCount > victim.RestartCount && c.State.Status == "running" && c.State.Pid != victim.State.Pid
			}
		}
		return false
	})
	return consumer
}

func (p *project) pending(rdb *redis.Client, from, to string) []redis.XPendingExt {
	p.t.Helper()
	rows, err := rdb.XPendingExt(p.t.Context(), &redis.XPendingExtArgs{
		Stream: host.AlertsKey(), Group: group, Start: from, End: to, Count: 1000,
	}).Result()
	if err != nil && !strings.HasPrefix(err.Error(), "NOGROUP") {
		p.t.Fatal(err)
	}
	return rows
}

// kill sends SIGKILL to a container's process once it is sure to be one of this test's.
func (p *project) kill(r replica) {
	p.t.Helper()
	process, err := os.FindProcess(r.State.Pid)
	if err != nil {
		p.t.Fatal(err)
	}
	defer process.Release()
	cgroup, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", r.State.Pid))
	if err != nil || !strings.Contains(string(cgroup), r.ID) {
		p.t.Fatalf("PID %d is not of container %s: %v\n%s", r.State.Pid, r.ID, err, cgroup)
	}
	if err := process.Kill(); err != nil {
		p.t.Fatal(err)
	}
}

var ended = regexp.MustCompile(`(?m)^\S+ -> \S+ \(PID (\d+)\) ended after \S+: (.*)$`)

// simulated waits until the last attack is over and returns the PIDs of those attacked
// with. How each ended is what its own parent saw.
func (p *project) simulated() (pids []string) {
	t := p.t
	var c container
	await(t, "the simulation ends", 2*time.Minute, func() bool {
		c = p.container("simulate")
		return c.State.Status == "exited"
	})
	out := p.docker("logs", c.ID)
	for _, m := range ended.FindAllStringSubmatch(out, -1) {
		pids = append(pids, m[1])
		if m[2] != "signal: terminated" && m[2] != "signal: killed" {
			t.Errorf("the decoy with PID %s was not contained: %s", m[1], m[2])
		}
	}
	if c.State.ExitCode != 0 || c.RestartCount != 0 || len(pids) != attacks {
		t.Errorf("the simulation ended with exit code %d after %d restarts and %d attacks, want 0, 0, %d", c.State.ExitCode, c.RestartCount, len(pids), attacks)
	}
	return pids
}

// settled waits until nothing is unread or pending in any group: containment, and the other
// kinds of responders beside it.
func (p *project) settled(rdb *redis.Client) {
	p.t.Helper()
	await(p.t, "all alerts are settled", 30*time.Second, func() bool {
		groups, err := rdb.XInfoGroups(p.t.Context(), host.AlertsKey()).Result()
		return err == nil && len(groups) == 3 && !slices.ContainsFunc(groups, func(g redis.XInfoGroup) bool { return g.Lag != 0 || g.Pending != 0 })
	})
}

// entry is as much of `riposte ledger list -o json` as the test needs.
type entry struct {
	ID, State string
	Steps     []struct{ Action, Mode, Outcome, Reason, Replica string }
}

// riposte runs one of our own commands in a responder container, as the tour in the README
// does.
func (p *project) riposte(args ...string) string {
	p.t.Helper()
	return p.compose(append([]string{"exec", "-T", "responder", "/riposte"}, args...)...)
}

func (p *project) ledger() (entries []entry) {
	p.t.Helper()
	if err := json.Unmarshal([]byte(p.riposte("ledger", "list", "-o", "json")), &entries); err != nil {
		p.t.Fatal(err)
	}
	return entries
}

var pidIn = regexp.MustCompile(`^PID (\d+) `)

// checkLedger compares the ledger with the decoys.
func (p *project) checkLedger(victims []string, killed string) {
	t := p.t
	entries := p.ledger()
	outcome, takenOver := map[string]string{}, 0
	workers := map[string]int{}
	for _, e := range entries {
		if e.State != "done" {
			t.Errorf("alert %s is %s", e.ID, e.State)
		}
		for _, s := range e.Steps {
			if s.Mode != "enforce" || s.Outcome == "failed" || s.Outcome == "refused" || s.Outcome == "expired" {
				t.Errorf("alert %s: %s in mode %s: %s %s", e.ID, s.Action, s.Mode, s.Outcome, s.Reason)
			}
			workers[s.Replica]++
			if m := pidIn.FindStringSubmatch(s.Reason); s.Action == "terminate_process" && m != nil {
				outcome[m[1]] = s.Outcome
			}
		}
	}
	for _, pid := range victims {
		switch outcome[pid] {
		case "terminated", "killed", "already_gone":
		default:
			t.Errorf("decoy %s: the ledger says %q", pid, outcome[pid])
		}
	}
	if len(entries) != len(victims) {
		t.Errorf("%d alerts about %d attacks", len(entries), len(victims))
	}
	for line := range strings.Lines(p.riposte("ledger", "tail", "-n", "10000", "-o", "json")) {
		var event struct{ Event, From string }
		if err := json.Unmarshal([]byte(line), &event); err != nil {
			t.Fatalf("journal: %v: %s", err, line)
		}
		if event.Event == "resume" && event.From == killed {
			takenOver++
		}
	}
	if takenOver == 0 {
		t.Errorf("nothing was taken over from %s, which died with an alert in its hands", killed)
	}
	if delete(workers, killed); len(workers) < 2 {
		t.Errorf("the work was done by %v and %s, want at least three replicas", workers, killed)
	}
	audit := p.riposte("ledger", "audit", "--runtime-dir", "/run/riposte", "--state-dir", "/var/lib/riposte/state")
	if !strings.Contains(audit, "clean:") {
		t.Errorf("ledger audit:\n%s", audit)
	}
	t.Logf("%d attacks, outcomes %v, taken over %d, steps by survivors %v\n%s", len(victims), count(outcome), takenOver, workers, audit)
}

func count(m map[string]string) map[string]int {
	n := map[string]int{}
	for _, v := range m {
		n[v]++
	}
	return n
}
