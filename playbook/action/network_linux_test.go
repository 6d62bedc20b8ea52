package action_test

import (
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"riposte/playbook/action"
	"riposte/playbook/guard"
	"riposte/test/need"
)

func blockAll(backend string, ttl time.Duration, addresses ...string) *action.BlockIP {
	return &action.BlockIP{Addresses: addresses, TTL: action.Duration(ttl), Backend: backend}
}

// TestBlockNetwork blocks networks that overlap, and takes them back one by one.
func TestBlockNetwork(t *testing.T) {
	if !inside(t) {
		return
	}
	for _, backend := range backends {
		for _, c := range []struct{ own, attacker, bystander, wide, narrow string }{
			{"198.51.100.1", "198.51.100.130", "198.51.100.3", "198.51.100.128/26", "198.51.100.128/27"},
			{"2001:db8::1", "2001:db8::5:2", "2001:db8::3", "2001:db8::5:0/112", "2001:db8::5:0/126"},
		} {
			t.Run(backend+" "+c.wide, func(t *testing.T) {
				needFirewalls(t)
				w := newWire(t, c.own, c.attacker, c.bystander)
				s := newSite(t)
				wide, narrow := blockAll(backend, time.Hour, c.wide), blockAll(backend, 2*time.Hour, c.narrow)
				single := block(backend, c.attacker, 3*time.Hour)
				s.apply(wide, "wide", action.Blocked)
				w.expect(true)
				s.apply(blockAll(backend, time.Minute, c.wide), "again", action.AlreadyBlocked)
				s.apply(narrow, "narrow", action.Blocked)
				s.apply(single, "single", action.Blocked)
				everything := func() {
					t.Helper()
					stands(t, backend, c.wide, "wide", time.Hour)
					stands(t, backend, c.narrow, "narrow", 2*time.Hour)
					stands(t, backend, c.attacker, "single", 3*time.Hour)
				}
				everything()
				command(t, "nft", "flush", "ruleset")
				w.expect(false)
				s.reassert(3)
				s.reassert(0)
				everything()

				s.undo(wide, "wide")
				stands(t, backend, c.wide, "again", time.Minute)
				s.undo(blockAll(backend, time.Minute, c.wide), "again")
				stands(t, backend, c.wide, "", 0)
				s.undo(single, "single")
				w.expect(true) // by the narrow one
				s.undo(narrow, "narrow")
				w.expect(false)
			})
		}
	}
}

// TestBlockList blocks several at once: all, or none.
func TestBlockList(t *testing.T) {
	if !inside(t) {
		return
	}
	for _, backend := range backends {
		t.Run(backend, func(t *testing.T) {
			needFirewalls(t)
			s := newSite(t)
			all := blockAll(backend, time.Hour, "198.51.100.3", "203.0.113.0/24", "2001:db8::/64", "198.51.100.3")
			all.Address = "198.51.100.2"
			s.apply(block(backend, "198.51.100.2", 2*time.Hour), "a", action.Blocked)
			if r, ok := s.inPlace(all, "b"); ok {
				t.Errorf("one of them is: %v", r)
			}
			s.apply(all, "b", action.Blocked)
			stands(t, backend, "198.51.100.2", "a", 2*time.Hour)
			for _, address := range []string{"198.51.100.3", "203.0.113.0/24", "2001:db8::/64"} {
				stands(t, backend, address, "b", time.Hour)
			}
			s.apply(blockAll(backend, time.Minute, "198.51.100.3", "2001:db8::/64"), "c", action.AlreadyBlocked)
			s.undo(blockAll(backend, time.Minute, "198.51.100.3", "2001:db8::/64"), "c")
			s.undo(all, "b")
			stands(t, backend, "198.51.100.2", "a", 2*time.Hour)
			for _, address := range []string{"198.51.100.3", "203.0.113.0/24", "2001:db8::/64"} {
				stands(t, backend, address, "", 0)
			}

			before := dump(t, backend)
			peer := &guard.Floor{RedisPeers: func() []netip.Addr { return []netip.Addr{netip.MustParseAddr("203.0.113.7")} }}
			for why, list := range map[string][]string{
				"which is a Redis server":                 {"198.51.100.9", "203.0.113.0/24"},
				"127.0.0.1 is loopback":                   {"198.51.100.9", "127.0.0.1"},
				"is a network broader than /24":           {"198.51.100.9", "0.0.0.0/0"},
				"is a network broader than /64":           {"198.51.100.9", "2001:db8::/32"},
				"is an address in the network":            {"198.51.100.9", "198.51.100.9/24"},
				"is not an IP address":                    {"198.51.100.9", "$(reboot)/24"},
				"has addresses in it that are multicast":  {"198.51.100.9", "224.0.0.0/24"},
				"has addresses in it that are link-local": {"198.51.100.9", "fe80::/64"},
				"more than 64":                            make([]string, 65),
				"\"\" is not an IP address":               nil,
			} {
				refused(t, blockAll(backend, time.Hour, list...), action.Env{Guard: peer, AlertID: "a"}, why)
			}
			// A network that an alert names is refused: only an operator may mean so many.
			refused(t, block(backend, "198.51.100.0/24", time.Hour), forAlert("a"), "198.51.100.0/24 is a network")
			if after := dump(t, backend); stripTimes(after) != stripTimes(before) {
				t.Errorf("changed by what was refused:\n%s\nbefore:\n%s", after, before)
			}
		})
	}
}

// TestBlockNetworksAtOnce has several replicas make the chains of several lengths at once.
func TestBlockNetworksAtOnce(t *testing.T) {
	if !inside(t) {
		return
	}
	need.Binary(t, "nft")
	var wg sync.WaitGroup
	start := make(chan struct{})
	for i := range 16 {
		wg.Go(func() {
			<-start
			r, err := blockAll(action.NFTables, time.Hour, fmt.Sprintf("198.51.%d.0/%d", i, 24+i%4)).Apply(t.Context(), forAlert(fmt.Sprint("alert-", i)))
			if err != nil || r.Outcome != action.Blocked {
				t.Errorf("%v, %v", r, err)
			}
		})
	}
	close(start)
	wg.Wait()
	rules := dump(t, action.NFTables)
	for i := range 16 {
		stands(t, action.NFTables, fmt.Sprintf("198.51.%d.0/%d", i, 24+i%4), fmt.Sprint("alert-", i), time.Hour)
	}
	for bits := 24; bits < 28; bits++ {
		for _, dir := range []string{"in", "out"} {
			if n := strings.Count(rules, fmt.Sprintf("%q", fmt.Sprintf("riposte:%s4net%d", dir, bits))); n != 1 {
				t.Errorf("%d rules %s of /%d:\n%s", n, dir, bits, rules)
			}
		}
	}
}
