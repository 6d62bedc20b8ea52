package main

import (
	"testing"
	"time"

	"riposte/ledger"
	"riposte/playbook"
)

// What can still come must meet a ledger entry, and whatever can still meet an entry must
// meet a receipt. An alert may be as old as the highest --max-age, and its stream entry may
// stay for a day after that, or be published again within minutes.
func TestRetentions(t *testing.T) {
	if latest := playbook.OldestAlert + 24*time.Hour; ledger.DefaultRetention <= latest {
		t.Errorf("entries stay for %v; an alert can come again for %v", ledger.DefaultRetention, latest)
	}
	if receiptsStay <= ledger.DefaultRetention {
		t.Errorf("receipts stay for %v, entries for %v", receiptsStay, ledger.DefaultRetention)
	}
}
