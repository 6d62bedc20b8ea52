package gate

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"
)

// FuzzLife wants of a life file what its owner wrote, or an error, and never somebody else:
// what it says is a proof of death.
func FuzzLife(f *testing.F) {
	whole, err := json.Marshal(Holder{Replica: "h-1-a", Role: "containment", PID: 7, Ticks: 9, PIDNS: 5, Until: time.Unix(1, 0).UTC()})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(whole)
	f.Add(append(whole, retired...))
	f.Add(append(whole, retired[:3]...))
	f.Add(whole[:9])
	f.Add([]byte(`{"replica":"h-2-b","pid":8}`))
	f.Add([]byte("null\nleft\n"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		m, err := parseLife("h-1-a", raw)
		if m.Replica != "h-1-a" || m.Left && !strings.HasSuffix(string(raw), retired) {
			t.Errorf("%q: %+v, %v", raw, m, err)
		}
		if err != nil && m.Holder != (Holder{Replica: "h-1-a"}) {
			t.Errorf("%q: half a holder with an error: %+v, %v", raw, m, err)
		}
	})
}

// FuzzFloor wants the number that was written, or an error: a floor that reads as a lower
// one lets stale tokens pass.
func FuzzFloor(f *testing.F) {
	f.Add([]byte("1800000000000000\n"))
	f.Add([]byte("18446744073709551616\n"))
	f.Add([]byte(" 007"))
	f.Add([]byte("18\x00"))
	f.Add([]byte("0x10"))
	f.Add([]byte(""))
	f.Fuzz(func(t *testing.T, raw []byte) {
		n, err := parseFloor(raw)
		if digits := strings.TrimLeft(strings.TrimSpace(string(raw)), "0"); err == nil && n != 0 && digits != fmt.Sprint(n) {
			t.Errorf("%q reads as %d", raw, n)
		}
	})
}
