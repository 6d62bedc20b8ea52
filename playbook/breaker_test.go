package playbook_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"riposte/ledger"
	"riposte/stream"
	"riposte/test/redistest"
)

// A burst on one host uses up no more of the fleet's places than that host may act on.
func TestOneHostDoesNotUseUpTheFleet(t *testing.T) {
	t.Parallel()
	srv := redistest.Start(t)
	rdb := srv.Client()
	book, file := noted(t, "limits:\n  breakers:\n    - {per: host, most: 3, within: 1h}\n    - {per: fleet, most: 8, within: 1h}\n")
	book = strings.Replace(book, `"true"`, `alert.source != "riposte"`, 1)
	for i := range 20 { // read in one batch
		publish(t, rdb, fresh(fmt.Sprint("a-", i)))
	}
	newReplica(t, srv, "h1-1-a", t.TempDir(), book, nil).start()
	waits(t, rdb, 17)
	if n := lines(t, file); n != 3 {
		t.Errorf("%d effects, want 3", n)
	}
	fleet := rdb.HGetAll(t.Context(), stream.FleetBreakerKey("note")).Val()
	if n := len(strings.Fields(fleet["window"])) / 2; n != 3 || fleet["tripped"] != "" {
		t.Errorf("the fleet's breaker has counted %d of 3, tripped %q", n, fleet["tripped"])
	}
	if _, err := ledger.HostSwitches(rdb, host).Reset(t.Context(), "note"); err != nil {
		t.Fatal(err)
	}
	waits(t, rdb, 14)
	audited(t, rdb)
}

// Alerts that are too old to be acted on, after a long pause say, trip no breaker.
func TestExpiredAlertsAreNotCounted(t *testing.T) {
	t.Parallel()
	for _, per := range []string{"host", "fleet"} {
		t.Run(per, func(t *testing.T) {
			t.Parallel()
			srv := redistest.Start(t)
			rdb := srv.Client()
			book, file := noted(t, fmt.Sprintf("limits:\n  breakers:\n    - {per: %s, most: 2, within: 1h}\n", per))
			old := time.Now().Add(-time.Hour).UTC().Format(time.RFC3339)
			for i := range 5 {
				publish(t, rdb, fmt.Sprintf(`{"id":"old-%d","level":"HIGH","timestamp":%q}`, i, old))
			}
			newReplica(t, srv, "h1-1-a", t.TempDir(), book, nil).start()
			for i := range 5 {
				if got, _ := outcome(t, rdb, stream.AlertID(fmt.Sprint("old-", i))); got != "expired" {
					t.Errorf("an old one: %s", got)
				}
			}
			for i := range 2 {
				publish(t, rdb, fresh(fmt.Sprint("a-", i)))
			}
			if got, _ := outcome(t, rdb, "a-1"); got != "logged" || lines(t, file) != 2 {
				t.Errorf("a new one: %s, %d effects", got, lines(t, file))
			}
			audited(t, rdb)
		})
	}
}
