package action_test

import (
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"riposte/playbook/action"
	"riposte/playbook/gate"
	"riposte/playbook/guard"
)

func (s *site) reassert(want int) {
	s.t.Helper()
	if n, err := action.Reassert(s.t.Context(), s.gate, action.Env{Guard: &guard.Floor{}}); n != want || err != nil {
		s.t.Errorf("put back %d, %v; want %d", n, err, want)
	}
}

// TestReassert loses the firewall, as a reboot does, and what a reboot leaves of the gate.
func TestReassert(t *testing.T) {
	if !inside(t) {
		return
	}
	for _, backend := range backends {
		t.Run(backend, func(t *testing.T) {
			needFirewalls(t)
			dir := t.TempDir()
			s := openSite(t, dir)
			s.reassert(0)
			const one, two, six = "198.51.100.2", "198.51.100.3", "2001:db8::2"
			s.apply(block(backend, one, time.Hour), "a", action.Blocked)
			s.apply(block(backend, one, 2*time.Hour), "b", action.Blocked)
			s.apply(block(backend, two, time.Hour), "c", action.Blocked)
			s.undo(block(backend, two, time.Hour), "c")
			s.apply(block(backend, six, 3*time.Hour), "d", action.Blocked)
			whole := stripTimes(dump(t, backend))
			s.reassert(0)
			if again := stripTimes(dump(t, backend)); again != whole {
				t.Errorf("changed by nothing:\n%s\nbefore:\n%s", again, whole)
			}

			command(t, "nft", "flush", "ruleset")
			if err := os.RemoveAll(filepath.Join(dir, "run")); err != nil {
				t.Fatal(err)
			}
			s = openSite(t, dir)
			s.reassert(2)
			stands(t, backend, one, "b", 2*time.Hour)
			stands(t, backend, two, "", 0)
			stands(t, backend, six, "d", 3*time.Hour)
			s.reassert(0)
			// What is left can be undone like any other.
			s.undo(block(backend, one, 2*time.Hour), "b")
			stands(t, backend, one, "a", time.Hour)

			// The claim says how much is left, and what is over is forgotten.
			s.inside(block(backend, one, time.Hour), "a", func(env action.Env) {
				for _, c := range []action.Claim{
					{Key: "a", AlertID: "a", Until: time.Now().Add(10 * time.Minute)},
					{Key: "over", AlertID: "over", Until: time.Now().Add(time.Second)},
					{Key: "begun", AlertID: "begun", Until: time.Now().Add(time.Hour), Begun: true},
					{Key: stepOf("a"), AlertID: "a", Until: time.Now().Add(5 * time.Minute)},
				} {
					c.Backend, c.Made, c.Nets = backend, action.Duration(time.Hour), []netip.Prefix{netip.MustParsePrefix(one + "/32")}
					if err := env.Claims.Put(targetOf(one), c); err != nil {
						t.Fatal(err)
					}
				}
			})
			command(t, "nft", "flush", "ruleset")
			s.reassert(2)
			stands(t, backend, one, "a", 10*time.Minute)
			until(t, "its time is over", func() bool {
				s.reassert(0)
				return s.claimed(targetOf(one)) == "a begun? a"
			})

			// Somebody has it in hand.
			command(t, "nft", "flush", "ruleset")
			s.inside(block(backend, one, time.Hour), "e", func(action.Env) {
				command(t, "nft", "flush", "ruleset")
				want := 1 // the other address
				if backend == action.IPTables {
					want = 0 // and the whole firewall
				}
				s.reassert(want)
				stands(t, backend, one, "", 0)
			})
			s.reassert(2 - map[string]int{action.NFTables: 1}[backend])
			stands(t, backend, one, "a", 10*time.Minute)

			// By now it is protected.
			command(t, "nft", "flush", "ruleset")
			own := &guard.Floor{RedisPeers: func() []netip.Addr { return []netip.Addr{netip.MustParseAddr(one)} }}
			if n, err := action.Reassert(t.Context(), s.gate, action.Env{Guard: own}); n != 1 || err == nil || !strings.Contains(err.Error(), one+" is a Redis server") {
				t.Errorf("put back %d, %v", n, err)
			}
			stands(t, backend, one, "", 0)
		})
	}
}

// TestReassertPasses looks at packets, and at rules that somebody has flushed under the set.
func TestReassertPasses(t *testing.T) {
	if !inside(t) {
		return
	}
	needFirewalls(t)
	w := newWire(t, "198.51.100.1", "198.51.100.2", "198.51.100.3")
	s := newSite(t)
	s.apply(block(action.NFTables, "198.51.100.2", time.Hour), "a", action.Blocked)
	for _, flush := range []string{"flush ruleset", "flush chain inet riposte input", "delete element inet riposte blocked4 { 198.51.100.2 }"} {
		command(t, "nft", flush)
		s.reassert(1)
		w.expect(true)
	}
}

// TestReassertAtOnce has several replicas do it.
func TestReassertAtOnce(t *testing.T) {
	if !inside(t) {
		return
	}
	needFirewalls(t)
	dir := t.TempDir()
	s := openSite(t, dir)
	s.apply(block(action.NFTables, "198.51.100.2", time.Hour), "a", action.Blocked)
	command(t, "nft", "flush", "ruleset")
	done := make(chan int)
	for range 4 {
		g, err := gate.Open(filepath.Join(dir, "run"), filepath.Join(dir, "state"), "another", "")
		if err != nil {
			t.Fatal(err)
		}
		defer g.Close()
		go func() {
			n, err := action.Reassert(t.Context(), g, action.Env{Guard: &guard.Floor{}})
			if err != nil {
				t.Error(err)
			}
			done <- n
		}()
	}
	total := 0
	for range 4 {
		total += <-done
	}
	if total != 1 {
		t.Errorf("put back %d times", total)
	}
	stands(t, action.NFTables, "198.51.100.2", "a", time.Hour)
}

// TestReassertEarly has claims that an earlier version has left.
func TestReassertEarly(t *testing.T) {
	if !inside(t) {
		return
	}
	needFirewalls(t)
	s := newSite(t)
	const one, two, net = "198.51.100.2", "198.51.100.3", "198.51.100.0/24"
	for address, keys := range map[string][]string{one: {"list", "other"}, two: {"list"}, net: {"wide"}, "203.0.113.9": {"list"}} {
		held, ok, err := s.gate.TryHold(time.Minute, "address/"+address)
		if err != nil || !ok {
			t.Fatal(ok, err)
		}
		for _, alert := range keys {
			ttl := map[string]time.Duration{"list": time.Hour, "other": 2 * time.Hour, "wide": 30 * time.Minute}[alert]
			c := action.Claim{Key: stepOf(alert), AlertID: alert, Backend: action.NFTables, Made: action.Duration(ttl), Until: time.Now().Add(ttl)}
			if err := held.Put("address/"+address, c); err != nil {
				t.Fatal(err)
			}
		}
		held.Release()
	}
	s.reassert(4)
	s.reassert(0)
	blocked(t, "198.51.100.0/31 wide 30m0s, "+one+" other 2h0m0s, "+two+" list 1h0m0s, 198.51.100.4-198.51.100.255 wide 30m0s, 203.0.113.9 list 1h0m0s")
	if got := s.claimed("address/" + one); got != "" {
		t.Errorf("claims of %q are where they were", got)
	}
	for address, want := range map[string]string{one: "list other", two: "list", net: "wide", "203.0.113.9": "list"} {
		if got := s.claimedOn(address); got != want {
			t.Errorf("claims on %s of %q, want %q", address, got, want)
		}
	}
	s.undo(block(action.NFTables, one, 2*time.Hour), "other")
	s.undo(blockAll(action.NFTables, time.Hour, one, two, "203.0.113.9"), "list")
	blocked(t, net+" wide 30m0s")
}
