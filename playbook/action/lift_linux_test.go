package action_test

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"riposte/playbook/action"
	"riposte/playbook/guard"
)

// allowing is a new floor with an allow-list of networks.
func allowing(t *testing.T, networks ...string) *guard.Allowing {
	t.Helper()
	src := "allow: {networks: ["
	for _, n := range networks {
		src += "{network: '" + n + "', reason: 'our own'},"
	}
	list, err := guard.Decode("f.yaml", []byte(src+"]}"))
	if err != nil {
		t.Fatal(err)
	}
	g := &guard.Allowing{Floor: &guard.Floor{}}
	g.Set(list)
	return g
}

// lift wants these addresses to be lifted, in this order.
func (s *site) lift(g action.Guard, want ...string) []action.Lifted {
	s.t.Helper()
	all, err := action.LiftProtected(s.t.Context(), s.gate, action.Env{Guard: g})
	if err != nil {
		s.t.Error(err)
	}
	var got []string
	for _, l := range all {
		got = append(got, l.Address)
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		s.t.Errorf("lifted %v, want %v", all, want)
	}
	return all
}

// TestLift blocks addresses and then protects some of them.
func TestLift(t *testing.T) {
	if !inside(t) {
		return
	}
	for _, backend := range backends {
		t.Run(backend, func(t *testing.T) {
			needFirewalls(t)
			s := newSite(t)
			const one, two, three, six = "198.51.100.2", "198.51.100.3", "203.0.113.3", "2001:db8::2"
			s.lift(allowing(t, "0.0.0.0/0"))
			s.apply(block(backend, one, time.Hour), "a", action.Blocked)
			s.apply(block(backend, one, 2*time.Hour), "b", action.Blocked)
			for _, addr := range []string{two, three, six} {
				s.apply(block(backend, addr, time.Hour), "c", action.Blocked)
			}
			s.lift(allowing(t))
			s.lift(allowing(t, "198.51.100.4/30", "10.0.0.0/8"))
			stands(t, backend, one, "b", 2*time.Hour)

			l := s.lift(allowing(t, one), one)
			if len(l) == 1 && (fmt.Sprint(l[0].Alerts) != "[a b]" || l[0].Reason != one+" is allow-listed: our own ("+one+")" || !strings.Contains(l[0].Left, one+" is not blocked any more")) {
				t.Errorf("%+v", l)
			}
			gone := func(addr string) {
				t.Helper()
				stands(t, backend, addr, "", 0)
				if got := s.claimedOn(addr); got != "" {
					t.Errorf("%s is still claimed by %s", addr, got)
				}
			}
			gone(one)
			for _, addr := range []string{two, three, six} {
				stands(t, backend, addr, "c", time.Hour)
			}
			s.lift(allowing(t, one))
			s.reassert(0) // and nobody puts it back
			gone(one)

			// Somebody has it in hand: not now.
			s.inside(block(backend, two, time.Hour), "d", func(action.Env) {
				s.lift(allowing(t, "198.51.100.0/24"))
			})
			stands(t, backend, two, "c", time.Hour)
			s.lift(allowing(t, "198.51.100.0/24", "2001:db8::/32"), two, six)
			gone(two)
			gone(six)

			// Nor does who asks for it again get it.
			var g action.Guard = allowing(t, two)
			refused(t, block(backend, two, time.Hour), action.Env{Guard: g, AlertID: "e"}, "is allow-listed: our own")

			// The floor protects it by now; a guard that sees nothing does not.
			s.lift(blind{})
			stands(t, backend, three, "c", time.Hour)
			peer := netip.MustParseAddr(three)
			l = s.lift(&guard.Allowing{Floor: &guard.Floor{RedisPeers: func() []netip.Addr { return []netip.Addr{peer} }}}, three)
			if len(l) == 1 && l[0].Reason != three+" is a Redis server" {
				t.Errorf("%+v", l)
			}
			gone(three)
		})
	}
}

// TestLiftOfFew has what is only partly Riposte's own, or not of one address.
func TestLiftOfFew(t *testing.T) {
	if !inside(t) {
		return
	}
	needFirewalls(t)
	s := newSite(t)
	// An address of the list is in a network that is blocked.
	net := blockAll(action.NFTables, time.Hour, "198.51.100.0/28", "203.0.113.0/24")
	s.apply(net, "a", action.Blocked)
	s.lift(allowing(t, "198.51.100.7"), "198.51.100.0/28")
	stands(t, action.NFTables, "198.51.100.0/28", "", 0)
	stands(t, action.NFTables, "203.0.113.0/24", "a", time.Hour)

	// Of blocks that overlap those are lifted that have it in them.
	s.apply(blockAll(action.NFTables, time.Hour, "198.51.100.0/28"), "a", action.Blocked)
	s.apply(blockAll(action.NFTables, 2*time.Hour, "198.51.100.7", "198.51.100.8"), "b", action.Blocked)
	s.lift(allowing(t, "198.51.100.7"), "198.51.100.0/28", "198.51.100.7")
	blocked(t, "198.51.100.8 b 2h0m0s, 203.0.113.0/24 a 1h0m0s")
	s.undo(blockAll(action.NFTables, 2*time.Hour, "198.51.100.7", "198.51.100.8"), "b")

	// What an operator has blocked by himself stays, and it is said.
	const one = "198.51.100.2"
	s.apply(block(action.NFTables, one, time.Hour), "a", action.Blocked)
	command(t, "nft", "delete element inet riposte blocked4 { "+one+" }")
	command(t, "nft", "add element inet riposte blocked4 { "+one+" }")
	l := s.lift(allowing(t, one), one)
	if len(l) == 1 && !strings.Contains(l[0].Left, "Riposte has not made that") {
		t.Errorf("%+v", l)
	}
	if rules := dump(t, action.NFTables); !strings.Contains(rules, one) {
		t.Errorf("gone from\n%s", rules)
	}
	command(t, "nft", "delete element inet riposte blocked4 { "+one+" }")

	// Both firewalls have it.
	s.apply(block(action.NFTables, one, time.Hour), "a", action.Blocked)
	s.apply(block(action.IPTables, one, time.Hour), "b", action.Blocked)
	s.lift(allowing(t, one), one)
	stands(t, action.NFTables, one, "", 0)
	stands(t, action.IPTables, one, "", 0)

	// The floor cannot read the resolvers: that is no reason to lift anything.
	s.apply(block(action.NFTables, one, time.Hour), "a", action.Blocked)
	const resolv = "/etc/resolv.conf"
	if err := unix.Mount("/proc/1/mem", resolv, "", unix.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
	s.lift(allowing(t, one))
	refused(t, block(action.NFTables, "198.51.100.9", time.Hour), action.Env{Guard: &guard.Floor{}}, "cannot be read")
	stands(t, action.NFTables, one, "a", time.Hour)
	if err := unix.Unmount(resolv, unix.MNT_DETACH); err != nil {
		t.Fatal(err)
	}
	s.lift(allowing(t, one), one)
}

// TestLiftPasses looks at packets.
func TestLiftPasses(t *testing.T) {
	if !inside(t) {
		return
	}
	needFirewalls(t)
	w := newWire(t, "198.51.100.1", "198.51.100.2", "198.51.100.3")
	s := newSite(t)
	s.apply(block(action.NFTables, "198.51.100.2", time.Hour), "a", action.Blocked)
	w.expect(true)
	s.lift(allowing(t, "198.51.100.2"), "198.51.100.2")
	w.expect(false)
}

// blind is a guard that can read nothing.
type blind struct{ action.Guard }

func (blind) Address(addr netip.Addr) error {
	return action.RefuseUnread("no right to look at %s", addr)
}
