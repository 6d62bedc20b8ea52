package action_test

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"riposte/playbook/action"
)

// TestNestedBlocks has two alerts block a network and an address in it for different times. One of
// the two blocks is undone, or its time is over: exactly the other is left.
func TestNestedBlocks(t *testing.T) {
	if !inside(t) {
		return
	}
	what := map[string]string{"network": "198.51.100.0/24", "address": "198.51.100.7"}
	for _, order := range [][2]string{{"network", "address"}, {"address", "network"}} {
		for _, goes := range order {
			for _, how := range []string{"undone", "expired"} {
				for _, longer := range order {
					if how == "expired" && goes == longer {
						continue // the other one is over before
					}
					t.Run(fmt.Sprintf("%s first, %s for longer, %s %s", order[0], longer, goes, how), func(t *testing.T) {
						needFirewalls(t)
						w := newWire(t, "198.51.101.1", "198.51.100.7", "198.51.101.3")
						command(t, "ip", "route", "add", "198.51.100.0/24", "dev", "v0")
						s := newSite(t)
						ttl := map[string]time.Duration{"network": time.Hour, "address": time.Hour, longer: 2 * time.Hour}
						if how == "expired" {
							ttl[goes] = 2 * time.Second
						}
						for _, one := range order {
							r := s.block(blockAll(action.NFTables, ttl[one], what[one]), one)
							if want := one == "address" && order[0] == "network" && longer == "network"; (r.Outcome == action.AlreadyBlocked) != want {
								t.Errorf("%s: %v", one, r)
							}
						}
						w.expect(true)
						stays := "network"
						if goes == stays {
							stays = "address"
						}
						if how == "undone" {
							s.undo(blockAll(action.NFTables, ttl[goes], what[goes]), goes)
						} else {
							until(t, "its time is over", func() bool {
								s.reassert(0)
								return s.claimedOn(what[goes]) == ""
							})
						}
						blocked(t, fmt.Sprintf("%s %s %v", what[stays], stays, ttl[stays]))
						w.expect(true)
						if got := s.claimed("address/198.51.100.0/24"); got != stays {
							t.Errorf("claims of %q", got)
						}
						s.undo(blockAll(action.NFTables, ttl[stays], what[stays]), stays)
						blocked(t, "")
						w.expect(false)
					})
				}
			}
		}
	}
}

// block carries a block out and wants it in place, whatever it is called.
func (s *site) block(e action.Effect, alert string) (r action.Receipt) {
	s.t.Helper()
	s.inside(e, alert, func(env action.Env) {
		r = apply(s.t, e, env)
		if again, inPlace, err := e.Probe(s.t.Context(), env); err != nil || !inPlace || again.Outcome != r.Outcome {
			s.t.Errorf("probe of %s for %s: got %v, %t, %v", e.Describe(), alert, again, inPlace, err)
		}
	})
	return r
}

// TestBlocksAtRandom blocks and undoes networks that overlap, and compares each of their addresses with
// what the claims say.
func TestBlocksAtRandom(t *testing.T) {
	if !inside(t) {
		return
	}
	needFirewalls(t)
	seed := uint64(time.Now().UnixNano())
	rnd := rand.New(rand.NewPCG(seed, 0))
	s := newSite(t)
	type ask struct {
		alert string
		nets  []netip.Prefix
		ttl   time.Duration
		block *action.BlockIP
	}
	var asks []ask
	for n := range 60 {
		what := fmt.Sprint(n)
		if len(asks) > 0 && rnd.IntN(5) < 2 {
			i := rnd.IntN(len(asks))
			what += " undo " + asks[i].block.Describe()
			s.undo(asks[i].block, asks[i].alert)
			asks = append(asks[:i], asks[i+1:]...)
		} else {
			a := ask{alert: fmt.Sprint("a", n), ttl: time.Duration(1+rnd.IntN(9)) * time.Hour}
			var names []string
			for range 1 + rnd.IntN(2) {
				p, _ := netip.AddrFrom4([4]byte{198, 51, 100, byte(16 + rnd.IntN(16))}).Prefix(28 + rnd.IntN(5))
				a.nets = append(a.nets, p)
				names = append(names, p.String())
			}
			a.block = blockAll(action.NFTables, a.ttl, names...)
			what += " " + a.block.Describe()
			s.block(a.block, a.alert)
			asks = append(asks, a)
		}
		got := make(map[netip.Addr]time.Duration)
		rules := dump(t, action.NFTables)
		for _, m := range nftEntry.FindAllStringSubmatch(rules, -1) {
			left, err := time.ParseDuration(m[2])
			if err != nil {
				t.Fatal(err)
			}
			for addr := range addressesOf(t, m[1]) {
				got[addr] = left.Round(time.Minute)
			}
		}
		for i := range 48 {
			addr := netip.AddrFrom4([4]byte{198, 51, 100, byte(i)})
			var want time.Duration
			for _, a := range asks {
				for _, p := range a.nets {
					if p.Contains(addr) {
						want = max(want, a.ttl)
					}
				}
			}
			if got[addr] != want {
				t.Fatalf("seed %d, %s: %s is blocked for %v, want %v:\n%s", seed, what, addr, got[addr], want, rules)
			}
		}
		if strings.Count(rules, "expires") > 16 {
			t.Fatalf("seed %d, %s: in too many pieces:\n%s", seed, what, rules)
		}
	}
}

// addressesOf are those of an element as nft writes it.
func addressesOf(t *testing.T, text string) map[netip.Addr]bool {
	t.Helper()
	all := make(map[netip.Addr]bool)
	from, to, found := strings.Cut(text, "-")
	if !found {
		if !strings.Contains(text, "/") {
			text += "/32"
		}
		what := netip.MustParsePrefix(text)
		for addr := what.Addr(); what.Contains(addr); addr = addr.Next() {
			all[addr] = true
		}
		return all
	}
	for addr := netip.MustParseAddr(from); addr.Compare(netip.MustParseAddr(to)) <= 0; addr = addr.Next() {
		all[addr] = true
	}
	return all
}

// early makes a table as earlier versions did, with elements of theirs.
const early = `table inet riposte {
	set blocked4 { type ipv4_addr; flags timeout; elements = {
		198.51.100.7 timeout 2h comment "one", 198.51.100.8, 203.0.113.9 timeout 1h comment "two" } }
	set blocked6 { type ipv6_addr; flags timeout; elements = { 2001:db8::5 timeout 1h comment "six" } }
	set blocked4net24 { type ipv4_addr; flags timeout; elements = { 198.51.100.0 timeout 1h comment "net" } }
	chain input { type filter hook input priority filter - 10; policy accept;
		ip saddr @blocked4 drop comment "riposte:in4"
		ip6 saddr @blocked6 drop comment "riposte:in6"
	}
	chain output { type filter hook output priority filter - 10; policy accept;
		ip daddr @blocked4 drop comment "riposte:out4"
		ip6 daddr @blocked6 drop comment "riposte:out6"
	}
	chain input4net24 { type filter hook input priority filter - 10; policy accept;
		ip saddr & 255.255.255.0 @blocked4net24 drop comment "riposte:in4net24"
	}
}
`

// TestBlockInEarlyTable has several replicas block in the table of an earlier version: what is
// blocked in it stays.
func TestBlockInEarlyTable(t *testing.T) {
	if !inside(t) {
		return
	}
	needFirewalls(t)
	file := filepath.Join(t.TempDir(), "early")
	if err := os.WriteFile(file, []byte(early), 0o600); err != nil {
		t.Fatal(err)
	}
	const kept = "198.51.100.0-198.51.100.6 net 1h0m0s, 198.51.100.7 one 2h0m0s, 198.51.100.9-198.51.100.255 net 1h0m0s, 203.0.113.9 two 1h0m0s, 2001:db8::5 six 1h0m0s"
	for range 5 {
		needFirewalls(t)
		command(t, "nft", "-f", file)
		var wg sync.WaitGroup
		start := make(chan struct{})
		for i := range 8 {
			wg.Go(func() {
				<-start
				r, err := block(action.NFTables, fmt.Sprintf("192.0.2.%d", i), time.Hour).Apply(t.Context(), forAlert("a"))
				if err != nil || r.Outcome != action.Blocked {
					t.Errorf("%v, %v", r, err)
				}
			})
		}
		close(start)
		wg.Wait()
		want := ""
		for i := range 8 {
			want += fmt.Sprintf("192.0.2.%d a 1h0m0s, ", i)
		}
		blocked(t, want+kept)
		rules := dump(t, action.NFTables)
		if strings.Contains(rules, "net24") || !strings.Contains(rules, " 198.51.100.8,") || strings.Count(rules, "drop") != 4 {
			t.Errorf("made anew:\n%s", rules)
		}
	}
	// To take one back makes it anew as well.
	needFirewalls(t)
	command(t, "nft", "-f", file)
	s := newSite(t)
	s.undo(block(action.NFTables, "203.0.113.9", time.Hour), "two")
	blocked(t, strings.Replace(kept, "203.0.113.9 two 1h0m0s, ", "", 1))
	if _, ok := s.inPlace(block(action.NFTables, "198.51.100.9", time.Minute), "b"); ok {
		t.Error("in place without a claim")
	}
}

// TestBlockBesideOperators has an operator block what overlaps, in ways of his own.
func TestBlockBesideOperators(t *testing.T) {
	if !inside(t) {
		return
	}
	needFirewalls(t)
	s := newSite(t)
	s.apply(block(action.NFTables, "203.0.113.9", time.Hour), "a", action.Blocked)
	command(t, "nft", "add", "element", "inet", "riposte", "blocked4", "{ 198.51.100.6-198.51.100.8, 198.51.101.0/24, 255.255.255.0/24, 198.51.102.0/23 timeout 1m }")
	whole := blockAll(action.NFTables, time.Hour, "198.51.100.0/28")
	s.apply(whole, "whole", action.Blocked)
	s.apply(blockAll(action.NFTables, time.Hour, "198.51.101.0/24"), "b", action.AlreadyBlocked)
	s.apply(block(action.NFTables, "198.51.101.9", time.Hour), "c", action.AlreadyBlocked)
	s.apply(block(action.NFTables, "198.51.102.9", time.Hour), "d", action.Blocked)
	blocked(t, "198.51.100.0-198.51.100.5 whole 1h0m0s, 198.51.100.9-198.51.100.15 whole 1h0m0s, 198.51.102.9 d 1h0m0s, 203.0.113.9 a 1h0m0s")
	if rules := dump(t, action.NFTables); !strings.Contains(rules, "198.51.102.0-198.51.102.8 timeout") || !strings.Contains(rules, "198.51.102.10-198.51.103.255 timeout") {
		t.Errorf("the operator's is not divided:\n%s", rules)
	}
	if r := s.undo(whole, "whole"); !strings.Contains(r.Reason, "198.51.100.0/28 198.51.100.6-198.51.100.8 stays blocked by nftables: Riposte has not made that") {
		t.Errorf("got %v", r)
	}
	rules := dump(t, action.NFTables)
	if strings.Contains(rules, "whole") || !strings.Contains(rules, "198.51.100.6-198.51.100.8,") || !strings.Contains(rules, "198.51.101.0/24,") || !strings.Contains(rules, "255.255.255.0/24") {
		t.Errorf("undone:\n%s", rules)
	}
}
