package table

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"riposte/stream/proc"
)

// TestTable prints the table of this run of go test, once the other packages are through,
// and writes it to the file that RIPOSTE_TABLE names, seen from the module's root. A table
// without all its groups of faults is not written: go test may have taken a package's result
// from its cache, or it may have failed.
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
	path := os.Getenv("RIPOSTE_TABLE")
	if path == "" {
		return
	}
	for _, g := range groups {
		if !slices.ContainsFunc(rows, func(r Row) bool { return r.Group == g }) {
			t.Fatalf("%s is not written: no row of the group %s; run the whole of ./test/... with -count=1", path, g)
		}
	}
	if !filepath.IsAbs(path) {
		path = filepath.Join("..", "..", path) // the module's root, from this package's folder
	}
	if err := os.WriteFile(path, []byte(page(text)), 0o644); err != nil {
		t.Error(err)
	}
}

// page is the table as a file that stands by itself.
func page(table string) string {
	var kernel unix.Utsname
	_ = unix.Uname(&kernel)
	redis, _ := exec.Command("redis-server", "--version").Output()
	return fmt.Sprintf(`# What each fault cost

Real replicas on a real Redis; every effect is counted outside Redis, and a doubled one is what
package playbook/judge says it is. Made on %s with %d cores, Linux %s, %s
and

    %s

by

    %s

%s
Lost and doubled are 0 in every row, or the test that adds the row fails. Pending is what stays
visible in the pending list, for a person to see. The last column says what it cost where Redis
lost writes that it had acknowledged. The promise holds there all the same: the publisher kept the
alerts and published them again, and an effect whose record was lost had its outcome closed in the
host's receipt, which was recorded again and not begun again.
`, time.Now().UTC().Format("2006-01-02"), runtime.NumCPU(), unix.ByteSliceToString(kernel.Release[:]), runtime.Version(),
		strings.TrimSpace(string(redis)), "RIPOSTE_TEST_ALL=1 RIPOSTE_TABLE=test/FAULTS.md go test -count=1 -p=1 -timeout=30m -v ./test/...", table)
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
