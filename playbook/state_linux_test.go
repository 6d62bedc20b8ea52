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
			a, streamID, plan := taken(t, rdb, "h1-1-gone", book)
			body, err := json.Marshal(plan)
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
			entry := fmt.Sprintf("held 5 0 h1-1-gone n 0 0 0 %s %s %s\n%s", a.Digest(), streamID, before, body)
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
