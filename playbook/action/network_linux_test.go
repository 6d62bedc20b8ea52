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
		for _, c := range []struct{ own, attacker, bystander, wide, narrow, all, short string }{
			{"198.51.100.1", "198.51.100.130", "198.51.100.3", "198.51.100.128/26", "198.51.100.128/27",
				"198.51.100.128/31 narrow 2h0m0s, 198.51.100.130 single 3h0m0s, 198.51.100.131-198.51.100.159 narrow 2h0m0s, 198.51.100.160/27 wide 1h0m0s",
				"198.51.100.160/27 again 1m0s"},
			{"2001:db8::1", "2001:db8::5:2", "2001:db8::3", "2001:db8::5:0/112", "2001:db8::5:0/126",
				"2001:db8::5:0/127 narrow 2h0m0s, 2001:db8::5:2 single 3h0m0s, 2001:db8::5:3 narrow 2h0m0s, 2001:db8::5:4-2001:db8::5:ffff wide 1h0m0s",
				"2001:db8::5:4-2001:db8::5:ffff again 1m0s"},
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
					if backend == action.NFTables {
						blocked(t, c.all)
						return
					}
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
				if backend == action.NFTables {
					blocked(t, strings.Replace(c.all, c.all[strings.LastIndex(c.all, ", ")+2:], c.short, 1))
				} else {
					stands(t, backend, c.wide, "again", time.Minute)
				}
				s.undo(blockAll(backend, time.Minute, c.wide), "again")
				stands(t, backend, c.wide, "", 0)
				s.undo(single, "single")
				w.expect(true) // by the narrow one
				stands(t, backend, c.narrow, "narrow", 2*time.Hour)
				s.undo(narrow, "narrow")
				w.expect(false)
			})
		}
	}
}

// blocked wants exactly these elements in the sets, in the form of nft, with their alerts and
// times left.
func blocked(t *testing.T, want string) {
	t.Helper()
	rules := dump(t, action.NFTables)
	var got []string
	for _, m := range nftEntry.FindAllStringSubmatch(rules, -1) {
		left, err := time.ParseDuration(m[2])
		if err != nil {
			t.Fatal(m, err)
		}
		got = append(got, fmt.Sprintf("%s %s %v", m[1], m[3], left.Round(10*time.Second)))
	}
	if strings.Join(got, ", ") != want {
		t.Errorf("blocked are\n%s\nwant\n%s\nin\n%s", strings.Join(got, ", "), want, rules)
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

// TestBlockNetworksAtOnce has several replicas block networks of several lengths at once.
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
	for _, tag := range []string{"riposte:in4", "riposte:in6", "riposte:out4", "riposte:out6"} {
		if n := strings.Count(rules, tag); n != 1 {
			t.Errorf("%d rules %s:\n%s", n, tag, rules)
		}
	}
}
