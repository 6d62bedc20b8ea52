package model

import (
	"context"
	_ "embed"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"riposte/test/need"
)

var full = flag.Bool("model.full", false, "also search the larger configurations: for that pass -timeout, too")

var (
	//go:embed ledger.pml
	ledger string
	//go:embed renewal.pml
	renewal string
	//go:embed parking.pml
	parking string
)

// search is one run of spin.
type search struct {
	name   string
	model  string
	flags  string // defines, each without its -D
	breaks string // with a mutant: what of the promise may be broken without it
}

const everyFault = " FAILOVER CLEAN"

// intact are the configurations that a run of CI searches to the end.
var intact = []search{
	{name: "verifiable", model: ledger, flags: "VERIFIABLE" + everyFault},
	{name: "idempotent", model: ledger, flags: "IDEMPOTENT" + everyFault},
	{name: "at-most-once", model: ledger, flags: "ATMOSTONCE" + everyFault},
	{name: "two steps", model: ledger, flags: "IDEMPOTENT STEPS=2"},
	{name: "two alerts, one target", model: ledger, flags: "VERIFIABLE ALERTS=2"},
	{name: "two alerts, failover", model: ledger, flags: "IDEMPOTENT ALERTS=2 GRANTS=2 KILLS=0 FAILOVER"},
	{name: "renewal", model: renewal},
	{name: "parking, two grants", model: parking, flags: "GRANTS=2"},
}

// larger are those that take their time.
var larger = []search{
	{name: "verifiable, 2 kills", model: ledger, flags: "VERIFIABLE KILLS=2" + everyFault},
	{name: "idempotent, 2 kills", model: ledger, flags: "IDEMPOTENT KILLS=2" + everyFault},
	{name: "at-most-once, 2 kills", model: ledger, flags: "ATMOSTONCE KILLS=2" + everyFault},
	{name: "at-most-once, two steps, failover", model: ledger, flags: "ATMOSTONCE STEPS=2 GRANTS=2 FAILOVER"},
	{name: "two alerts, one target, failover", model: ledger, flags: "VERIFIABLE ALERTS=2 GRANTS=2 FAILOVER"},
	{name: "at-most-once, two alerts, failover", model: ledger, flags: "ATMOSTONCE ALERTS=2 GRANTS=2 FAILOVER"},
	{name: "parking, three grants", model: parking},
	{name: "parking, four grants", model: parking, flags: "GRANTS=4"},
}

// mutants each lack one protection, which the name says.
var mutants = []search{
	{"token in Record", ledger, "NO_TOKEN_IN_RECORD IDEMPOTENT STEPS=2", "recorded_twice"},
	{"nonce beside the epoch", ledger, "NO_NONCE IDEMPOTENT" + everyFault, "older_token"},
	{"gate lock", ledger, "NO_GATE_LOCK IDEMPOTENT", "after_closed older_token overlap"},
	{"gate token", ledger, "NO_GATE_TOKEN IDEMPOTENT", "older_token"},
	{"receipt read on run", ledger, "TRUST_RUN IDEMPOTENT" + everyFault, "after_closed"},
	{"close before Record", ledger, "CLOSE_AFTER_RECORD IDEMPOTENT" + everyFault, "after_recorded"},
	{"outcomes decided inside the gate", ledger, "DECIDE_OUTSIDE IDEMPOTENT", "after_recorded disagreement"},
	{"begun becomes unknown", ledger, "REPEAT_BEGUN ATMOSTONCE", "second"},
	{"probe", ledger, "NO_PROBE VERIFIABLE", "in_place"},
	{"ack inside the script", ledger, "CLIENT_ACK IDEMPOTENT FAILOVER", "acked_unsettled"},
	{"descriptor inherited by children", ledger, "NOT_INHERITED IDEMPOTENT", "overlap"},
	{"floor when cleaning", ledger, "NO_FLOOR IDEMPOTENT CLEAN", "after_closed"},

	{"target's descriptor inherited, too", ledger, "TARGET_NOT_INHERITED VERIFIABLE ALERTS=2", "overlap in_place"},
	{"the delivery is this history's", ledger, "ACK_BLIND IDEMPOTENT ALERTS=2 GRANTS=1 FAILOVER", "acked_unsettled"},
	{"publishing again after a failover", ledger, "NO_REPUBLISH IDEMPOTENT GRANTS=1 FAILOVER", "dropped"},

	{"renewal", renewal, "NO_RENEWAL", "superseded"},
	{"a missing life file proves nothing", renewal, "MISSING_MEANS_DEAD", "superseded"},

	{"parked: what had not begun is known", parking, "UNBEGUN_NEVER", "needless"},
	{"parked: what had begun is known", parking, "UNBEGUN_ALWAYS", "second"},
	{"who parks passes the gate", parking, "NO_FENCE", "second"},
	{"parked is what stands there", parking, "OLD_BODY", "forgotten"},
	{"an epoch of its own for each body", parking, "SAME_EPOCH", "forgotten"},
}

// Intact, the protocol keeps its promise wherever the search goes, and it goes everywhere.
func TestIntact(t *testing.T) {
	run := intact
	if *full {
		run = append(run, larger...)
	}
	table := []string{fmt.Sprintf("%-36s %11s %6s %8s  verdict", "configuration", "states", "depth", "seconds")}
	for _, s := range run {
		t.Run(s.name, func(t *testing.T) {
			r := s.run(t)
			verdict := "keeps the promise"
			if r.broken != "" {
				verdict = "breaks it: " + r.broken
				t.Errorf("with nothing taken out, %s. The steps that lead there:\n%s", r.broken, r.trail)
			} else if !r.exhausted {
				verdict = "not searched to the end"
				t.Errorf("the search was not exhaustive:\n%s", r.output)
			}
			table = append(table, fmt.Sprintf("%-36s %11d %6d %8.1f  %s", s.name, r.states, r.depth, r.took.Seconds(), verdict))
		})
	}
	t.Log("\n" + strings.Join(table, "\n"))
}

// With any one protection taken out there is a way to break the promise, and the search
// finds it.
func TestMutants(t *testing.T) {
	table := []string{fmt.Sprintf("%-36s %-16s %s", "without", "broken", "steps")}
	for _, s := range mutants {
		t.Run(s.name, func(t *testing.T) {
			r := s.run(t)
			if r.broken == "" {
				t.Fatalf("found no way to break the promise; is this protection needed?\n%s", r.output)
			}
			if !strings.Contains(" "+s.breaks+" ", " "+r.broken+" ") {
				t.Errorf("broken is %s, want one of %s. The steps that lead there:\n%s", r.broken, s.breaks, r.trail)
			}
			table = append(table, fmt.Sprintf("%-36s %-16s %d", s.name, r.broken, r.steps))
		})
	}
	t.Log("\n" + strings.Join(table, "\n"))
}

// result is what spin found.
type result struct {
	states    int
	depth     int
	took      time.Duration
	exhausted bool
	broken    string // the promise of the model that does not hold; empty if none was seen
	steps     int    // of the way there
	trail     string
	output    string
}

var (
	assertion = regexp.MustCompile(`assertion violated +!\((\w+)\) \(at depth (\d+)\)`)
	finding   = regexp.MustCompile(`(?m)^pan:\d+: (.*)`)
	counts    = regexp.MustCompile(`depth reached (\d+), errors: (\d+)`)
	stored    = regexp.MustCompile(`(?m)^ *(\d+) states, stored`)
)

const (
	maxDepth  = 20_000 // far more than any path is long
	maxMemory = 6000   // MB
)

// run searches one configuration. It fails the test where there is no answer: a model that
// does not compile, a process that got stuck, a search cut off by depth, memory or time.
func (s search) run(t *testing.T) result {
	t.Helper()
	spin, gcc := need.Binary(t, "spin"), need.Binary(t, "gcc")
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "model.pml"), []byte(s.model), 0o600); err != nil {
		t.Fatal(err)
	}
	var defines []string
	for _, d := range strings.Fields(s.flags) {
		defines = append(defines, "-D"+d)
	}
	do(t, dir, spin, append(append([]string{"-a"}, defines...), "model.pml")...)
	compile, table := []string{"-O2"}, "-w25"
	switch {
	case s.breaks != "": // what a mutant breaks is found faster than compiled
		compile, table = []string{"-O0"}, "-w20"
	case *full:
		compile, table = []string{"-O2", "-DCOLLAPSE"}, "-w27"
	}
	do(t, dir, gcc, append(compile, "-w", "-DSAFETY", fmt.Sprintf("-DMEMLIM=%d", maxMemory), "-o", "pan", "pan.c")...)

	begun := time.Now()
	r := result{output: do(t, dir, "./pan", table, fmt.Sprintf("-m%d", maxDepth))}
	r.took = time.Since(begun)
	count, states := counts.FindStringSubmatch(r.output), stored.FindStringSubmatch(r.output)
	if count == nil || states == nil {
		t.Fatalf("spin gave no result:\n%s", r.output)
	}
	r.depth, r.states = number(count[1]), number(states[1])
	if a := assertion.FindStringSubmatch(r.output); a != nil {
		r.broken = a[1]
		r.trail = do(t, dir, spin, append(append([]string{"-t", "-p"}, defines...), "model.pml")...)
		r.steps = number(a[2])
		return r
	}
	if f := finding.FindStringSubmatch(r.output); f != nil {
		t.Fatalf("the search ended with something else than a broken promise: %s", f[1])
	}
	cut := strings.Contains(r.output, "Search not completed") || strings.Contains(r.output, "max search depth too small") || strings.Contains(r.output, "memory bound")
	r.exhausted = count[2] == "0" && !cut && strings.Contains(r.output, "Full statespace search")
	return r
}

// do runs a command to its end and returns its output. That pan has found something is no
// error of the command.
func do(t *testing.T, dir, name string, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience())
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	if ctx.Err() != nil {
		t.Fatalf("%v is not through after %v:\n%s", cmd, patience(), out)
	}
	var exit *exec.ExitError
	if err != nil && !(errors.As(err, &exit) && name == "./pan") {
		t.Fatalf("%v: %v\n%s", cmd, err, out)
	}
	return string(out)
}

// patience is how long one search may take.
func patience() time.Duration {
	if *full {
		return 2 * time.Hour
	}
	return 10 * time.Minute
}

func number(s string) int {
	n, err := strconv.Atoi(s)
	if err != nil {
		panic(err) // it matched \d+
	}
	return n
}
