package main

import (
	"context"
	"encoding/json"
	"strconv"
	"strings"
	"testing"

	"riposte/ledger"
)

// A finding is told once when it appears and once when it is gone, whatever Redis does in
// between.
func TestLedgerAuditWatch(t *testing.T) {
	f := newFleet(t)
	f.must(2, "ledger", "audit", "--watch", "--every", "1ms")
	if err := f.rdb.XGroupCreateMkStream(f.ctx, "riposte:{h1}:alerts", "containment", "0").Err(); err != nil {
		t.Fatal(err)
	}
	watch := func(ctx context.Context, args ...string) (out, errw *lockedBuffer, ended chan int) {
		out, errw, ended = new(lockedBuffer), new(lockedBuffer), make(chan int, 1)
		args = append(append([]string{"ledger", "audit", "--watch", "--every", "100ms", "--log-level", "debug"}, args...), f.args...)
		go func() {
			ended <- run(ctx, args, func(string) (string, bool) { return "", false }, strings.NewReader(""), out, errw)
		}()
		return out, errw, ended
	}
	ctx, cancel := context.WithCancel(f.ctx)
	defer cancel()
	out, errw, ended := watch(ctx, "-o", "json")
	beats := func() int { return strings.Count(errw.String(), "msg=audited") }
	audits := func(n int) {
		t.Helper()
		upto := beats() + n
		f.eventually("more audits", func() bool { return beats() >= upto })
	}
	audits(2)
	if out.String() != "" {
		t.Errorf("found %s", out.String())
	}

	key := "riposte:{h1}:ledger:containment:x"
	if err := f.rdb.Set(f.ctx, key, "bad", 0).Err(); err != nil {
		t.Fatal(err)
	}
	f.eventually("a finding", func() bool { return strings.Contains(out.String(), "\n") })
	// Redis answers nobody for a while; then it is the same finding.
	if err := f.rdb.Do(f.ctx, "CONFIG", "SET", "requirepass", "secret").Err(); err != nil {
		t.Fatal(err)
	}
	other := f.rdb
	if err := other.Do(f.ctx, "CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes").Err(); err != nil {
		t.Fatal(err)
	}
	f.eventually("it notices", func() bool { return strings.Contains(errw.String(), "cannot audit") })
	refusals := func() (n int) {
		_, rest, _ := strings.Cut(other.Info(f.ctx, "errorstats").Val(), "errorstat_NOAUTH:count=")
		number, _, _ := strings.Cut(rest, "\r")
		n, _ = strconv.Atoi(number)
		return n
	}
	before := refusals()
	f.eventually("it tries again", func() bool { return refusals() >= before+10 })
	if err := other.Do(f.ctx, "CONFIG", "SET", "requirepass", "").Err(); err != nil {
		t.Fatal(err)
	}
	f.eventually("it recovers", func() bool { return strings.Contains(errw.String(), "auditing again") })
	audits(2)
	if n := strings.Count(errw.String(), "cannot audit"); n != 1 {
		t.Errorf("told %d times that Redis is away:\n%s", n, errw.String())
	}
	if err := f.rdb.Del(f.ctx, key).Err(); err != nil {
		t.Fatal(err)
	}
	f.eventually("it is gone", func() bool { return strings.Count(out.String(), "\n") >= 2 })
	audits(2)
	cancel()
	if code := <-ended; code != 1 || !strings.Contains(errw.String(), "the audit found 1 violation") {
		t.Errorf("exit %d\n%s", code, errw.String())
	}
	var events []string
	for line := range strings.Lines(out.String()) {
		var told struct {
			At, Event string
			ledger.Finding
		}
		if err := json.Unmarshal([]byte(line), &told); err != nil || told.Kind != ledger.Unreadable || told.Key != key || told.Text == "" || told.At == "" {
			t.Errorf("%v: %s", err, line)
		}
		events = append(events, told.Event)
	}
	if got := strings.Join(events, " "); got != "found gone" {
		t.Errorf("told %q:\n%s", got, out.String())
	}

	// Nothing found: nothing said.
	ctx, cancel = context.WithCancel(f.ctx)
	defer cancel()
	out, errw, ended = watch(ctx)
	audits(1)
	cancel()
	if code := <-ended; code != 0 || out.String() != "" {
		t.Errorf("exit %d, %s%s", code, out.String(), errw.String())
	}
}
