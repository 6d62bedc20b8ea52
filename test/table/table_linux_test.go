package table

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"riposte/stream/proc"
)

// TestTable prints the table of this run of go test, once the other packages are through,
// and writes it to the file that RIPOSTE_TABLE names. Where no other package has left
// rows there is nothing to print.
func TestTable(t *testing.T) {
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for siblings(t) {
		select {
		case <-tick.C:
		case <-t.Context().Done():
			t.Fatal("the other packages do not end")
		}
	}
	rows, err := Collect()
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(folder())
	text := Markdown(rows)
	t.Log("\n" + text)
	if path := os.Getenv("RIPOSTE_TABLE"); path != "" {
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Error(err)
		}
	}
}

// siblings says whether other test binaries of this run of go test are at work, or about
// to be: go test starts the next package when one has ended.
func siblings(t *testing.T) bool {
	t.Helper()
	dirs, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		t.Fatal(err)
	}
	for _, dir := range dirs {
		pid, err := strconv.Atoi(filepath.Base(dir))
		if err != nil || pid == os.Getpid() {
			continue
		}
		if st, err := proc.ReadStat(pid); err == nil && st.PPID == os.Getppid() && !st.Zombie() {
			return true
		}
	}
	return false
}

// A row that breaks the promise fails the test that adds it, and the quantiles of the
// takeovers are those of the sorted times.
func TestRow(t *testing.T) {
	r := Row{Group: "crash", Fault: "kill", Class: "idempotent", Accepted: 4, Settled: 2, Dead: 1, Pending: 1, Unknown: 1,
		Takeovers: []time.Duration{30 * time.Millisecond, 10 * time.Millisecond, 20 * time.Millisecond}, Cost: "none"}
	const want = "| crash | kill | idempotent | 4 | 2 | 1 | 1 | 1 | 0 | 0 | 20ms / 30ms (3) | none |"
	if got := r.line(); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if columns := strings.Count(want, "|"); strings.Count(strings.SplitN(head, "\n", 2)[0], "|") != columns {
		t.Error("the head has other columns")
	}
	for name, broken := range map[string]Row{
		"lost": {Accepted: 1, Settled: 1, Lost: 1}, "doubled": {Accepted: 1, Settled: 1, Doubled: 1}, "open": {Accepted: 1},
	} {
		if broken.broken() == "" {
			t.Errorf("%s: nothing is wrong with it", name)
		}
	}
	if wrong := r.broken(); wrong != "" {
		t.Error(wrong)
	}
}
