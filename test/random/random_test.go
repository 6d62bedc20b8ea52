package random

import (
	"flag"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"riposte/test/need"
	"riposte/test/redistest"
)

// The length of a run, where nobody asks for another one: some 10 s on an idle machine.
var usual = map[string]string{"rapid.checks": "150", "rapid.steps": "150"}

// asked is set where somebody has said how long to go on.
var asked bool

func TestMain(m *testing.M) {
	flag.Parse()
	flag.Visit(func(f *flag.Flag) {
		if _, ok := usual[f.Name]; ok {
			asked = true
		}
		delete(usual, f.Name)
	})
	if f := flag.Lookup("rapid.seed"); f.Value.String() == "0" {
		usual[f.Name] = fmt.Sprint(time.Now().UnixNano())
	}
	if need.All() {
		usual["test.short"] = "false" // nothing is to be left out, and rapid would leave out four runs of five
	}
	for name, value := range usual {
		if err := flag.Set(name, value); err != nil {
			panic(err) // there are these flags
		}
	}
	os.Exit(m.Run())
}

// must happen in a run of the usual length, or it has not looked at much.
var mustHappen = []string{
	"verdict run", "verdict resume", "verdict poison", "verdict settled", "verdict busy", "verdict conflict",
	"event run", "event resume", "event poison", "event record", "event retry", "event late", "event release", "event bury", "event park",
	"verdict paused", "verdict wait", "verdict parked", "pause", "freed",
	"event wake", "event revive", "event purge", "event resolve", "event undo", "reply lost", "begin again", "write again", "refused", "alerts trimmed", "flush scripts",
	"begin of what was delivered before", "deliveries taken over", "consumer removed", "renew refused",
	"several gates", "registration refused", "registrations cleared away", "unregister", "the gate runs out", "garbage",
	"left by the abandoned", "abandoned by nobody", "others leave", "buried for others", "trimmed after its burial",
}

func TestLedgerIsAsTheModelSays(t *testing.T) {
	t.Parallel()
	// Redis trims whole nodes of a stream; with one entry a node, each that may go does go.
	rdb := redistest.Start(t, "--appendonly", "no", "--stream-node-max-entries", "1").Client()
	f := &fault{}
	rdb.AddHook(f)
	seed := flag.Lookup("rapid.seed").Value
	tally, runs, start := map[string]int{}, 0, time.Now()
	defer func() {
		var all []string
		for _, what := range slices.Sorted(maps.Keys(tally)) {
			all = append(all, fmt.Sprintf("%s %d", what, tally[what]))
		}
		t.Logf("%d runs, %d steps in %v, -rapid.seed=%v\n%s", runs, tally["steps"], time.Since(start).Round(time.Millisecond), seed,
			strings.Join(all, ", "))
	}()
	rapid.Check(t, func(r *rapid.T) {
		runs++
		m := newMachine(t.Context(), r, rdb, f, tally)
		r.Repeat(m.actions())
		m.audit(r)
	})
	for _, what := range mustHappen {
		if tally[what] == 0 && !asked && !testing.Short() {
			t.Errorf("it never happened: %s", what)
		}
	}
}

// Without the token in Record the very same test must fail, or it proves nothing.
func TestLedgerWithoutTheTokenIsCaught(t *testing.T) {
	t.Parallel()
	cmd := exec.Command("go", "test", "-count=1", "-tags=riposte_no_token", "-run=^TestLedgerIsAsTheModelSays$", ".",
		"-rapid.nofailfile", "-rapid.shrinktime=2s", "-rapid.seed="+flag.Lookup("rapid.seed").Value.String())
	out, err := cmd.CombinedOutput()
	if err == nil {
		t.Fatalf("a ledger whose Record does not look at the token passes:\n%s", out)
	}
	// It shows in the answer or, where that was lost, in what then stands in Redis.
	shows := []string{"is accepted, but the token does not stand", "event=late", ", after epoch ", "a second record of "}
	if !slices.ContainsFunc(shows, func(how string) bool { return strings.Contains(string(out), how) }) {
		t.Fatalf("it failed for another reason than one of %q: %v\n%s", shows, err, out)
	}
	t.Logf("%s", out)
}
