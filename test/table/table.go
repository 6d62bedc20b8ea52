// Package table collects what the fault tests found, from several packages of one run of
// go test, into the one Markdown table that README.md links.
package table

import (
	"cmp"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"riposte/stream/proc"
)

// Row is what one fault did to alerts of one action class.
type Row struct {
	Group string // of faults: crash, command, redis, chaos
	Fault string // what was done, in a few words
	Class string // action class, or "all"

	Accepted, Settled, Unknown, Dead, Pending, Lost, Doubled int
	Takeovers                                                []time.Duration // from the death, or the loss of the lease, to the next Begin
	Cost                                                     string          // what it cost, where Redis lost acknowledged writes
}

// Add reports a row: to the test's log, and to the table of this run of go test. It fails
// the test where the row breaks the promise: something lost or doubled, or an alert that
// is neither settled, dead nor visibly pending.
func Add(t testing.TB, r Row) {
	t.Helper()
	t.Log(r.line())
	if wrong := r.broken(); wrong != "" {
		t.Errorf("%s, %s: %s", r.Fault, r.Class, wrong)
	}
	raw, err := json.Marshal(r)
	if err == nil {
		err = os.MkdirAll(folder(), 0o700)
	}
	if err == nil {
		name := strings.Map(func(c rune) rune {
			if c >= 'a' && c <= 'z' || c >= '0' && c <= '9' {
				return c
			}
			return '-'
		}, strings.ToLower(r.Group+" "+r.Fault+" "+r.Class))
		err = os.WriteFile(filepath.Join(folder(), name), raw, 0o600)
	}
	if err != nil {
		t.Fatalf("table: %v", err)
	}
}

// broken says in which way a row breaks the promise; empty if it does not.
func (r Row) broken() string {
	switch {
	case r.Lost != 0 || r.Doubled != 0:
		return fmt.Sprintf("lost %d, doubled %d", r.Lost, r.Doubled)
	case r.Accepted != r.Settled+r.Dead+r.Pending:
		return fmt.Sprintf("accepted %d, but settled %d + dead %d + pending %d", r.Accepted, r.Settled, r.Dead, r.Pending)
	}
	return ""
}

// folder is where the test processes of one run of go test leave their rows: they are all
// children of one go command, known by its PID and its start.
func folder() string {
	parent, _ := proc.ReadStat(os.Getppid())
	return filepath.Join(os.TempDir(), fmt.Sprintf("riposte-table-%d-%d", os.Getppid(), parent.StartTicks))
}

// groups are those of the faults, in the order of the table.
var groups = []string{"crash", "command", "redis", "chaos"}

// Collect reads the rows that this run has left so far, in the order of the table.
func Collect() ([]Row, error) {
	files, err := filepath.Glob(filepath.Join(folder(), "*"))
	if err != nil {
		return nil, err
	}
	rows := make([]Row, len(files))
	for i, file := range files {
		raw, err := os.ReadFile(file)
		if err == nil {
			err = json.Unmarshal(raw, &rows[i])
		}
		if err != nil {
			return nil, fmt.Errorf("table: %w", err)
		}
	}
	slices.SortFunc(rows, func(a, b Row) int {
		return cmp.Or(cmp.Compare(slices.Index(groups, a.Group), slices.Index(groups, b.Group)),
			cmp.Compare(a.Fault, b.Fault), cmp.Compare(a.Class, b.Class))
	})
	return rows, nil
}

const head = `| | fault | class | accepted | settled | unknown | dead | pending | lost | doubled | takeover p50 / p99 | cost |
|---|---|---|---:|---:|---:|---:|---:|---:|---:|---|---|
`

// Markdown is the table.
func Markdown(rows []Row) string {
	var out strings.Builder
	out.WriteString(head)
	for _, r := range rows {
		out.WriteString(r.line() + "\n")
	}
	return out.String()
}

func (r Row) line() string {
	takeover := "-"
	if n := len(r.Takeovers); n > 0 {
		sorted := slices.Sorted(slices.Values(r.Takeovers))
		at := func(q float64) time.Duration { return sorted[int(q*float64(n-1)+0.5)].Round(100 * time.Microsecond) }
		takeover = fmt.Sprintf("%v / %v (%d)", at(0.5), at(0.99), n)
	}
	return fmt.Sprintf("| %s | %s | %s | %d | %d | %d | %d | %d | %d | %d | %s | %s |", r.Group, r.Fault, r.Class,
		r.Accepted, r.Settled, r.Unknown, r.Dead, r.Pending, r.Lost, r.Doubled, takeover, r.Cost)
}
