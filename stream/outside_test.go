package stream

import (
	"encoding/json"
	"math"
	"slices"
	"strings"
	"testing"
	"time"
)

// FuzzGates holds the gates in a control hash to what is written there.
func FuzzGates(f *testing.F) {
	f.Add("gate:h-1-a", "g1 1800000001000000 fenced containment", "gate:h-2-b", "g1 1800000001000000 unfenced forensics")
	f.Add("gate:h-1-a", "g1 1800000001000000 fenced", "gate:", "g2 9223372036854775808 fenced")
	f.Add("gate:h-1-a", "g1", "gate:h-2-b", "g2 1800000001000000")
	f.Add("pause", "1", "gate:x", "\x1b[2J\u2028 -1 unfenced")
	now := time.Unix(1_800_000_000, 0)
	f.Fuzz(func(t *testing.T, field1, value1, field2, value2 string) {
		control := map[string]string{field1: value1, field2: value2}
		all := gates(control, now)
		replicas := 0
		for _, g := range all {
			if g.ID == "" || len(g.Replicas) == 0 || !slices.IsSorted(g.Replicas) {
				t.Errorf("%+v", g)
			}
			for _, r := range g.Replicas {
				if !strings.HasPrefix(strings.TrimSpace(control["gate:"+r]), g.ID) {
					t.Errorf("gate %q of %q out of nowhere", g.ID, r)
				}
			}
			replicas += len(g.Replicas)
		}
		if len(gateWords(all)) > 1 || len(all) > 1 && len(gateWords(all)) == 0 || replicas > len(control) {
			t.Errorf("%+v: %q", all, gateWords(all))
		}
	})
}

// FuzzHead counts what an entry's first bytes say, and nothing that they do not.
func FuzzHead(f *testing.F) {
	f.Add("held 1 2 h-1-a nonce 0 0 0 d 1-0 g\n{\"unresolved\":2,\"level\":\"HIGH\"}")
	f.Add("done 1\n{\"unresolved\":999999999}")
	f.Add("\n{\"unresolved\":-1}")
	f.Add("unreadable")
	f.Fuzz(func(t *testing.T, head string) {
		state, unresolved := parseHead(head)
		if state != "unreadable" && !strings.HasPrefix(head, state) || len(state) > 16 || state == "" {
			t.Errorf("%q: state %q", head, state)
		}
		if unresolved < 0 || unresolved > 999_999_999 || unresolved > 0 && !strings.Contains(head, "\n{\"unresolved\":") {
			t.Errorf("%q: %d unresolved", head, unresolved)
		}
	})
}

// FuzzHistory wants the ID alone, however an answer of INFO ends its lines: with anything
// that changes from look to look, everything would be published again each time.
func FuzzHistory(f *testing.F) {
	f.Add("# Replication\r\nrole:master\r\nmaster_replid:8c8e6b1a\r\nmaster_repl_offset:14\r\n")
	f.Add("role:master\nmaster_replid:8c8e6b1a\nmaster_repl_offset:14\n")
	f.Add("master_replid:\r\nmaster_replid2:0\r\n")
	f.Add("master_replid:")
	f.Fuzz(func(t *testing.T, info string) {
		id := history(info)
		if strings.Contains(id, "\n") || strings.TrimSpace(id) != id {
			t.Errorf("%q: %q", info, id)
		}
		if id != "" && !strings.Contains(info, id) {
			t.Errorf("%q: %q out of nowhere", info, id)
		}
	})
}

// FuzzTimes has JSON write what stream IDs and scores say. An answer with one time that it
// cannot write would be none.
func FuzzTimes(f *testing.F) {
	f.Add("1800000000000-0", 1.8e12)
	f.Add("9223372036854775807-18446744073709551615", 1e300)
	f.Add("18446744073709551615-0", math.Inf(1))
	f.Add("-1", -1e300)
	f.Fuzz(func(t *testing.T, id string, score float64) {
		east, west := time.FixedZone("", 14*3600), time.FixedZone("", -12*3600)
		for _, at := range []time.Time{entryTime(id), Delivery{StreamID: id}.When(), fromScore(score)} {
			for _, zone := range []*time.Location{time.UTC, east, west} {
				if _, err := json.Marshal(at.In(zone)); err != nil && !at.IsZero() {
					t.Errorf("%q, %v: %v", id, score, err)
				}
			}
		}
	})
}
