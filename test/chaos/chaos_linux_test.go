package chaos

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"riposte/playbook/action"
	"riposte/playbook/judge"
	"riposte/test/table"
)

var (
	seed     = flag.Uint64("seed", 0, "`seed` of the chaos; 0 takes a new one")
	alerts   = flag.Int("alerts", 1000, "`number` of decoys to be contained")
	duration = flag.Duration("duration", 28*time.Second, "how long replicas are killed")
	kills    = flag.Duration("kills", 200*time.Millisecond, "time between two kills")
	every    = flag.Duration("faults", 1500*time.Millisecond, "mean time between two faults of Redis")
)

func newPlan(t *testing.T) plan {
	p := plan{alerts: *alerts, duration: *duration, seed: *seed, between: 50, inside: 20}
	for p.seed == 0 {
		p.seed = rand.Uint64()
	}
	t.Logf("replay with -seed=%d", p.seed)
	return p
}

func TestChaos(t *testing.T) { soak(t, newPlan(t), "kills and freezes") }

// The same while Redis is broken, too.
func TestChaosRedis(t *testing.T) {
	p := newPlan(t)
	p.faults = *every
	soak(t, p, "kills, freezes and a broken Redis")
}

func soak(t *testing.T, p plan, fault string) {
	ctx, cancel := context.WithTimeout(t.Context(), p.duration*(longest+1)+patience)
	defer cancel()
	r := start(t, p)
	begun := time.Now()
	r.chaos(ctx)
	r.drain(ctx)
	t.Logf("took %v", time.Since(begun).Round(time.Millisecond))

	trial, verdict := r.judge()
	r.report(trial, verdict)
	for _, l := range verdict.Lost {
		t.Errorf("lost %s", l)
	}
	for _, d := range verdict.Doubled {
		t.Errorf("doubled: %s", d)
	}
	r.checkDecoys()
	r.checkLog(trial)
	r.checkScript()
	for _, c := range r.journal.contradictions() {
		t.Errorf("journal: %s", c)
	}
	r.audit(ctx)
	r.rows(fault, trial, verdict)
}

// Without the gate the same chaos must be found out.
func TestChaosWithoutGate(t *testing.T) {
	p := newPlan(t)
	p.tags, p.alerts, p.duration, p.between, p.inside = []string{"riposte_no_gate"}, 300, 5*time.Second, 0, 0
	ctx, cancel := context.WithTimeout(t.Context(), p.duration*(longest+1)+patience)
	defer cancel()
	r := start(t, p)
	r.chaos(ctx)
	r.drain(ctx)
	trial, verdict := r.judge()
	rules := map[judge.Rule]int{}
	for _, d := range verdict.Doubled {
		rules[d.Rule]++
	}
	t.Logf("without the gate: %d lines of trace, %d effects doubled: %v", len(trial.Events), len(verdict.Doubled), rules)
	if len(verdict.Doubled) == 0 {
		t.Error("no gate, and no doubled effect was found: this test proves nothing")
	}
}

// report shows the figures, and fails a run that does not count.
func (r *run) report(trial judge.Trial, v judge.Verdict) {
	r.t.Helper()
	bad := r.moments(trial)
	takeovers := r.takeovers(trial)
	// An alert that has lost two holders runs alone, and waits for its turn.
	first := slices.DeleteFunc(slices.Clone(takeovers), func(t takeover) bool { return t.before > 0 })
	quantile := func(of []takeover, q float64) time.Duration {
		if len(of) == 0 {
			return 0
		}
		return of[int(q*float64(len(of)-1))].after.Round(time.Millisecond)
	}
	load, _ := os.ReadFile("/proc/loadavg")
	figures := [][2]any{
		{"alerts", len(r.alerts)}, {"decoys", len(r.decoys)},
		{"kills", r.kills}, {"kills between Begin and Record", bad.between}, {"kills inside an effect", bad.inside},
		{"kills between closing an outcome and recording it", bad.closed},
		{"freezes", r.freezes}, {"ended by a peer at the gate", r.ended}, {"could not start", r.stillborn},
		{"dead letters", len(r.buried)}, {"lost", len(v.Lost)}, {"doubled", len(v.Doubled)},
		{"takeovers after a death, while Redis was well", len(takeovers)},
		{"takeover p50", quantile(takeovers, 0.5)}, {"takeover p99", quantile(takeovers, 0.99)},
		{"first takeovers of an alert", len(first)},
		{"first takeover p50", quantile(first, 0.5)}, {"first takeover p99", quantile(first, 0.99)},
		{"load of the machine", strings.TrimSpace(string(load))},
	}
	for _, kind := range r.faults.kinds {
		if n := r.faults.seen[kind.name]; r.plan.faults > 0 {
			figures = append(figures, [2]any{"Redis " + kind.name, n})
			if n == 0 {
				r.t.Errorf("the run does not count: Redis was never %s", kind.name)
			}
		}
	}
	var out strings.Builder
	out.WriteString("\n| figure | |\n|---|---:|\n")
	for _, row := range figures {
		fmt.Fprintf(&out, "| %v | %v |\n", row[0], row[1])
	}
	r.t.Log(out.String())
	if n := len(takeovers); n > 0 {
		slowest := takeovers[n-1]
		r.t.Logf("the slowest takeover, %v after the death of %s:%s", slowest.after, slowest.from, r.journal.history(slowest.id))
	}
	if !r.enough(bad) {
		r.t.Errorf("the run does not count: %d kills between Begin and Record, want %d; %d inside an effect, want %d",
			bad.between, r.plan.between, bad.inside, r.plan.inside)
	}
}

// takeovers are those that say something about riposte: Redis was there for them.
func (r *run) takeovers(trial judge.Trial) []takeover {
	return slices.DeleteFunc(r.journal.takeovers(trial.LastAlive), func(t takeover) bool {
		return !r.faults.well(t.died, t.at)
	})
}

// rows adds a row for each class to the table of all faults.
func (r *run) rows(fault string, trial judge.Trial, v judge.Verdict) {
	r.t.Helper()
	ended := map[string]map[string]string{} // by step, by alert
	for _, c := range r.journal.changes {
		if c.event == "record" {
			if ended[c.step] == nil {
				ended[c.step] = map[string]string{}
			}
			ended[c.step][c.id] = c.result
		}
	}
	doubled := map[action.Class]int{}
	for _, d := range v.Doubled {
		kind, _ := action.Lookup(d.Begin.Action)
		doubled[kind.Class]++
	}
	takeovers := r.takeovers(trial)
	for _, s := range steps {
		row := table.Row{
			Group: "chaos", Fault: fault, Class: string(s.class), Accepted: len(r.alerts), Doubled: doubled[s.class],
		}
		for _, a := range r.alerts {
			switch outcome := ended[playbookName+"/"+s.name][string(a.id)]; {
			case outcome == string(action.Unknown):
				row.Unknown++
				row.Settled++
			case outcome != "":
				row.Settled++
			case r.buried[string(a.id)]:
				row.Dead++
			default:
				row.Lost++
			}
		}
		for _, t := range takeovers {
			if t.class == s.class {
				row.Takeovers = append(row.Takeovers, t.after)
			}
		}
		table.Add(r.t, row)
	}
}

// checkDecoys looks at how the decoys died.
func (r *run) checkDecoys() {
	r.t.Helper()
	died := map[unix.Signal]int{}
	for _, d := range r.decoys {
		select {
		case <-d.gone:
			died[d.status.Signal()]++
			if !d.status.Signaled() || d.stubborn && d.status.Signal() != unix.SIGKILL {
				r.t.Errorf("%s (stubborn: %v) ended by wait status %#x", d.name, d.stubborn, d.status)
			}
		default: // the judge has said it
		}
	}
	r.t.Logf("decoys died of %v", died)
	if died[unix.SIGTERM] == 0 || died[unix.SIGKILL] == 0 {
		r.t.Error("want both, decoys that SIGTERM ended and decoys that it did not")
	}
	select {
	case <-r.nursery.mother.gone:
		r.t.Errorf("%s is dead, and no alert named it", r.nursery.mother.name)
	default:
	}
}

// checkLog wants a line for each alert, and a second one only where a replica died after
// it had begun to log, and before it closed the outcome.
func (r *run) checkLog(trial judge.Trial) {
	r.t.Helper()
	raw, err := os.ReadFile(r.logFile())
	if err != nil {
		r.t.Fatal(err)
	}
	lines := map[string]int{}
	for line := range bytes.Lines(raw) {
		var l struct{ Key string }
		if len(line) > 1 && !bytes.HasSuffix(line, []byte("}\n")) {
			continue // a replica was killed in the middle of it
		}
		if err := json.Unmarshal(line, &l); err != nil {
			r.t.Errorf("log: %v in %q", err, line)
		}
		lines[l.Key]++
	}
	excused := map[string]int{}
	for name, steps := range trial.Unclosed() {
		if _, died := trial.LastAlive[name]; died {
			for _, key := range steps {
				excused[key]++
			}
		}
	}
	repeated := 0
	for _, a := range r.alerts {
		key := a.key(logStep)
		if lines[key] == 0 && !r.buried[string(a.id)] {
			r.t.Errorf("lost: no line in the log for %s", key)
		}
		if lines[key] > 1 {
			repeated++
		}
		if lines[key] > 1+excused[key] {
			r.t.Errorf("doubled: %d lines in the log for %s, but only %d replicas died while they wrote one", lines[key], key, excused[key])
		}
		delete(lines, key)
	}
	for key, n := range lines {
		r.t.Errorf("%d lines in the log for %s, which nobody published", n, key)
	}
	r.t.Logf("%d lines repeated", repeated)
}

// checkScript wants a line for each alert, and never two. An alert whose script was in
// flight when its replica died may have none; then its outcome says that nobody knows.
func (r *run) checkScript() {
	r.t.Helper()
	raw, err := os.ReadFile(r.scriptFile())
	if err != nil {
		r.t.Fatal(err)
	}
	lines := map[string]int{}
	for line := range strings.Lines(string(raw)) {
		lines[strings.TrimSpace(line)]++
	}
	unknown := map[string]bool{}
	for _, c := range r.journal.changes {
		if c.event == "record" && c.result == string(action.Unknown) {
			unknown[c.id] = true
		}
	}
	for _, a := range r.alerts {
		key := a.key(scriptStep)
		if lines[key] == 0 && !r.buried[string(a.id)] && !unknown[string(a.id)] {
			r.t.Errorf("lost: the script of %s did not run", key)
		}
		if lines[key] > 1 {
			r.t.Errorf("doubled: the script of %s ran %d times", key, lines[key])
		}
		delete(lines, key)
	}
	for key, n := range lines {
		r.t.Errorf("the script ran %d times for %s, which nobody published", n, key)
	}
	r.t.Logf("%d outcomes are unknown", len(unknown))
}

// audit asks riposte itself.
func (r *run) audit(ctx context.Context) {
	r.t.Helper()
	cmd := exec.CommandContext(ctx, r.binary, "ledger", "audit", "--redis", r.redis.URL, "--host", host,
		"--runtime-dir", r.runtimeDir(), "--state-dir", r.stateDir())
	cmd.Env = []string{}
	out, err := cmd.CombinedOutput()
	if err != nil {
		r.t.Errorf("riposte ledger audit: %v\n%s", err, out)
	}
	r.t.Logf("riposte ledger audit:\n%s", out)
}
