package playbook_test

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"riposte/ledger"
	"riposte/playbook"
	"riposte/test/redistest"
)

// An at-most-once effect that waits for replicas of Redis waits for as long as the alert is
// young: nothing was tried, so nothing has failed.
func TestReplicationIsWaitedFor(t *testing.T) {
	t.Parallel()
	srv, file := redistest.Start(t), filepath.Join(t.TempDir(), "ran")
	rdb := srv.Client()
	r := newReplica(t, srv, "h1-1-a", t.TempDir(), `
name: run
match: "true"
steps:
  - {name: once, action: run_script, with: {argv: [/usr/bin/touch, `+file+`]}, retry: {attempts: 1, initial: 10ms, max: 10ms}}
`, func(cfg *playbook.Config) {
		cfg.MaxAge = 2 * time.Second
		cfg.Replication = ledger.Replication{Replicas: 1, Patience: 20 * time.Millisecond}
	})
	r.start()
	publish(t, rdb, `{"id":"a-1","level":"HIGH"}`)
	_, b := settled(t, rdb, "a-1")
	if _, err := os.Stat(file); b.Steps[0].Outcome != "expired" || err == nil || r.begun() != 0 {
		t.Errorf("%+v, the script ran: %v", b.Steps[0], err == nil)
	}
}
