package playbook_test

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"riposte/ledger"
	"riposte/playbook"
	"riposte/test/redistest"
)

// A stop in the middle of an at-most-once effect lets it end: cut short, nobody could tell
// how far it came. What comes after it is handed back, and not begun.
func TestStopLetsAScriptEnd(t *testing.T) {
	t.Parallel()
	srv, dir := redistest.Start(t), t.TempDir()
	begun, next, end := filepath.Join(dir, "begun"), filepath.Join(dir, "next"), filepath.Join(dir, "go on")
	script := filepath.Join(dir, "script")
	const text = "#!/bin/sh\n: >\"$1\"\nuntil [ -e \"$2\" ]; do sleep 0.01; done\n"
	if err := os.WriteFile(script, []byte(text), 0o700); err != nil {
		t.Fatal(err)
	}
	rdb := srv.Client()
	r := newReplica(t, srv, "h1-1-a", t.TempDir(), `
name: run
match: "true"
steps:
  - {name: once, action: run_script, with: {argv: [`+script+`, `+begun+`, "`+end+`"]}}
  - {name: next, action: run_script, with: {argv: [`+script+`, `+next+`, "`+end+`"]}}
`, func(cfg *playbook.Config) { cfg.Lease = 300 * time.Millisecond })
	ctx, stop := context.WithCancel(t.Context())
	stopped := make(chan error, 1)
	go func() { stopped <- r.run(ctx) }()
	publish(t, rdb, `{"id":"a-1","level":"HIGH"}`)
	until(t, "the script runs", func() bool { _, err := os.Stat(begun); return err == nil })
	stop()
	lease := func() time.Time {
		raw, err := rdb.Get(t.Context(), host.LedgerKey(group, "a-1")).Bytes()
		if err != nil {
			t.Fatal(err)
		}
		h, _, err := ledger.ParseEntry(raw)
		if err != nil || h.Settled() {
			t.Fatalf("settled while the script runs: %+v, %v", h, err)
		}
		return h.Lease
	}
	was, renewed := lease(), 0
	until(t, "the lease is renewed while the replica stops", func() bool {
		if is := lease(); is.After(was) {
			was = is
			renewed++
		}
		return renewed == 2
	})
	if err := os.WriteFile(end, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := <-stopped; err != nil {
		t.Error(err)
	}
	raw, err := rdb.Get(t.Context(), host.LedgerKey(group, "a-1")).Bytes()
	if err != nil {
		t.Fatal(err)
	}
	h, b, err := ledger.ParseEntry(raw)
	if err != nil || h.State != ledger.Held || h.Owner != "-" || b.Steps[0].Outcome != "ran" || b.Steps[1].Outcome != "" {
		t.Errorf("%+v: %+v, %v", h, b.Steps, err)
	}
	if _, err := os.Stat(next); err == nil {
		t.Error("the next script was begun after a stop was asked for")
	}
}
