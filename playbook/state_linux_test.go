package playbook_test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"riposte/ledger"
	"riposte/playbook"
	"riposte/playbook/gate"
	"riposte/stream"
	"riposte/test/redistest"
)

// Where the ledger survives and the host's folders do not, nobody can tell whether an
// at-most-once effect had begun, so it is not begun again. Where the folders are the ones
// the holder had, and hold no receipt, it had not.
func TestStateFolderLost(t *testing.T) {
	t.Parallel()
	for what, c := range map[string]struct {
		same    bool
		outcome string
	}{
		"other folders":    {false, "unknown"},
		"the same folders": {true, "ran"},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			srv, runtime, dir := redistest.Start(t), t.TempDir(), t.TempDir()
			rdb := srv.Client()
			file := filepath.Join(dir, "ran")
			book := `
name: run
match: "true"
steps:
  - {name: once, action: run_script, with: {argv: [/usr/bin/touch, ` + file + `]}}
`
			publish(t, rdb, `{"id":"a-1","level":"HIGH"}`)
			consumer := stream.NewConsumer(rdb, host, group, "h1-1-gone")
			if err := consumer.Ensure(t.Context()); err != nil {
				t.Fatal(err)
			}
			ds, err := consumer.Read(t.Context(), 1)
			if err != nil || len(ds) != 1 {
				t.Fatal(ds, err)
			}
			a, _, err := ds[0].Alert()
			if err != nil {
				t.Fatal(err)
			}
			planner := &playbook.Planner{Host: host, Playbooks: decode(t, book), Mode: playbook.Enforce, MaxAge: time.Hour, Zone: time.UTC}
			body, err := json.Marshal(planner.Plan(a, ds[0].When(), time.Now()))
			if err != nil {
				t.Fatal(err)
			}
			second := newReplica(t, srv, "h1-2-second", runtime, book, func(cfg *playbook.Config) { cfg.Lease = 200 * time.Millisecond })
			before := "another-gate"
			if c.same {
				g, err := gate.Open(runtime, "", "h1-1-gone", string(group))
				if err != nil {
					t.Fatal(err)
				}
				before = g.ID()
				g.Close()
			}
			entry := fmt.Sprintf("held 5 0 h1-1-gone n 0 0 0 %s %s %s\n%s", a.Digest(), ds[0].StreamID, before, body)
			if err := rdb.Set(t.Context(), host.LedgerKey(group, "a-1"), entry, 0).Err(); err != nil {
				t.Fatal(err)
			}
			second.start()
			h, b := settled(t, rdb, "a-1")
			_, missing := os.Stat(file)
			if h.State != ledger.Done || b.Steps[0].Outcome != c.outcome || (missing == nil) != (c.outcome == "ran") {
				t.Errorf("%s: %+v; the script has left its file: %v", h.State, b.Steps[0], missing == nil)
			}
		})
	}
}
