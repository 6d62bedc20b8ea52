package playbook_test

import (
	"fmt"
	"strings"
	"testing"

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
