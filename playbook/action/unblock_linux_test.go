package action_test

import (
	"context"
	"encoding/json"
	"os"
	"strings"
	"testing"
	"time"

	"riposte/playbook/action"
	"riposte/stream"
)

// undo takes a block back, as it is read back from the plan, in a further step of its alert.
func (s *site) undo(b action.Reversible, alert string) action.Receipt {
	s.t.Helper()
	var r action.Receipt
	e := undoOf(s.t, b)
	s.insideStep(e, alert, stepOf(alert)+"-undo", func(env action.Env) {
		r = apply(s.t, e, env)
		if r.Outcome != action.Unblocked {
			s.t.Errorf("got %v", r)
		}
		if again, inPlace, err := e.Probe(s.t.Context(), env); err != nil || !inPlace || again.Outcome != action.Unblocked {
			s.t.Errorf("probe of %s for %s: %v, %t, %v", e.Describe(), alert, again, inPlace, err)
		}
		apply(s.t, e, env) // harmless
	})
	return r
}

func undoOf(t *testing.T, b action.Reversible) action.Effect {
	t.Helper()
	name, e := b.Undo()
	raw, err := json.Marshal(e)
	if err != nil {
		t.Fatal(err)
	}
	again, class, err := action.Decode(name, raw)
	if err != nil || class != action.Verifiable {
		t.Fatal(class, err)
	}
	return again
}

// TestUndoBlock has two alerts block one address for different times, and takes one of them
// back: each of them, whoever came first. What the other asked is left, with its time.
func TestUndoBlock(t *testing.T) {
	if !inside(t) {
		return
	}
	ttl := map[string]time.Duration{"short": time.Hour, "long": 2 * time.Hour}
	for _, backend := range backends {
		for _, address := range []string{"198.51.100.2", "2001:db8::2"} {
			for _, order := range [][2]string{{"short", "long"}, {"long", "short"}} {
				for _, back := range order {
					other := map[string]string{"short": "long", "long": "short"}[back]
					t.Run(strings.Join([]string{backend, address, order[0], "first", back, "undone"}, " "), func(t *testing.T) {
						needFirewalls(t)
						s := newSite(t)
						for _, alert := range order {
							s.apply(block(backend, address, ttl[alert]), alert, outcomeIn(order, alert, backend))
						}
						if back == "short" && order[0] == "short" {
							stands(t, backend, address, "long", ttl["long"])
						}
						if r := s.undo(block(backend, address, ttl[back]), back); !strings.Contains(r.Reason, "stays blocked") {
							t.Errorf("got %v", r)
						}
						stands(t, backend, address, other, ttl[other])
						if got := s.claimed(targetOf(address)); got != other {
							t.Errorf("claims of %q", got)
						}
						if r := s.undo(block(backend, address, ttl[other]), other); !strings.Contains(r.Reason, "is not blocked any more") {
							t.Errorf("got %v", r)
						}
						stands(t, backend, address, "", 0)
						if got := s.claimed(targetOf(address)); got != "" {
							t.Errorf("claims of %q", got)
						}
					})
				}
			}
		}
	}
}

func outcomeIn(order [2]string, alert, backend string) action.Outcome {
	if order == [2]string{"long", "short"} && alert == "short" {
		return action.AlreadyBlocked
	}
	return action.Blocked
}

// TestUndoBlockPasses looks at packets.
func TestUndoBlockPasses(t *testing.T) {
	if !inside(t) {
		return
	}
	for _, backend := range backends {
		t.Run(backend, func(t *testing.T) {
			needFirewalls(t)
			w := newWire(t, "198.51.100.1", "198.51.100.2", "198.51.100.3")
			s := newSite(t)
			b := block(backend, "198.51.100.2", time.Hour)
			s.apply(b, "a", action.Blocked)
			half := block(backend, "198.51.100.2", time.Hour/2)
			s.apply(half, "b", action.AlreadyBlocked)
			s.undo(b, "a")
			w.expect(true)
			s.undo(half, "b")
			w.expect(false)
		})
	}
}

// TestUndoBlockOfOthers takes back a block of an address that somebody else blocks too: an
// operator, another alert that left no claim, another step of the same alert.
func TestUndoBlockOfOthers(t *testing.T) {
	if !inside(t) {
		return
	}
	needFirewalls(t)
	s := newSite(t)
	b := block(action.NFTables, "198.51.100.8", time.Hour)
	s.apply(block(action.NFTables, "198.51.100.9", time.Hour), "first", action.Blocked)
	command(t, "nft", "add", "element", "inet", "riposte", "blocked4", "{ 198.51.100.8 }")
	s.apply(b, "a", action.AlreadyBlocked)
	if r := s.undo(b, "a"); !strings.Contains(r.Reason, "Riposte has not made that") {
		t.Errorf("got %v", r)
	}
	if rules := dump(t, action.NFTables); !strings.Contains(rules, "198.51.100.8") {
		t.Errorf("the operator's is gone:\n%s", rules)
	}
	command(t, "nft", "delete", "element", "inet", "riposte", "blocked4", "{ 198.51.100.8 }")

	if r := apply(t, b, forAlert("old")); r.Outcome != action.Blocked { // by a version without claims
		t.Fatal(r)
	}
	longer := block(action.NFTables, "198.51.100.8", 2*time.Hour)
	s.apply(longer, "a", action.Blocked)
	s.undo(longer, "a")
	stands(t, action.NFTables, "198.51.100.8", "", 0) // what old asked was not known

	apply(t, b, forAlert("old"))
	s.apply(block(action.NFTables, "198.51.100.8", time.Minute), "a", action.AlreadyBlocked)
	s.undo(block(action.NFTables, "198.51.100.8", time.Minute), "a")
	stands(t, action.NFTables, "198.51.100.8", "old", time.Hour)
	s.undo(b, "old") // by its ID: it is this alert's
	stands(t, action.NFTables, "198.51.100.8", "", 0)

	for _, step := range []string{"one", "two"} {
		s.insideStep(b, "a", "h/g/a/p/"+step, func(env action.Env) { s.check(b, env, action.Blocked) })
	}
	e := undoOf(t, b)
	s.insideStep(e, "a", "h/g/a/p/undo", func(env action.Env) {
		env.Undoes = "h/g/a/p/one"
		s.check(e, env, action.Unblocked)
		s.check(e, env, action.Unblocked)
	})
	stands(t, action.NFTables, "198.51.100.8", "a", time.Hour)
	if got := s.claimedOn("198.51.100.8"); got != "a" {
		t.Errorf("claims of %q", got)
	}
}

// TestUnblock lifts all blocks of an address.
func TestUnblock(t *testing.T) {
	if !inside(t) {
		return
	}
	needFirewalls(t)
	s := newSite(t)
	kind, _ := action.Lookup("unblock_ip")
	e := kind.Spec().Resolve(&stream.Alert{SourceIP: "198.51.100.2"}, action.Seen{})
	if kind.Spec().Resolve(&stream.Alert{}, action.Seen{}) != nil {
		t.Error("an alert without an address unblocks something")
	}
	if r, ok := s.inPlace(e, "u"); !ok || !strings.Contains(r.Reason, "was not blocked") {
		t.Errorf("nothing is blocked: %v, %t", r, ok)
	}
	s.apply(e, "u", action.Unblocked)
	for _, backend := range backends {
		s.apply(block(backend, "198.51.100.2", time.Hour), "a-"+backend, action.Blocked)
		s.apply(block(backend, "198.51.100.2", time.Minute), "b-"+backend, action.AlreadyBlocked)
		s.apply(block(backend, "198.51.100.3", time.Hour), "c-"+backend, action.Blocked)
	}
	s.apply(e, "u", action.Unblocked)
	for _, backend := range backends {
		stands(t, backend, "198.51.100.2", "", 0)
		stands(t, backend, "198.51.100.3", "c-"+backend, time.Hour)
	}
	if got := s.claimedOn("198.51.100.2"); got != "" {
		t.Errorf("claims of %q", got)
	}
	if got := s.claimedOn("198.51.100.3"); got != "c-iptables c-nftables" {
		t.Errorf("claims of %q", got)
	}
	// One of a version without claims.
	apply(t, block(action.NFTables, "198.51.100.2", time.Hour), forAlert("old"))
	s.apply(e, "u", action.Unblocked)
	stands(t, action.NFTables, "198.51.100.2", "", 0)
	// An operator's own stays, and is told of.
	command(t, "nft", "add", "element", "inet", "riposte", "blocked4", "{ 198.51.100.2 }")
	if r, ok := s.inPlace(e, "u"); !ok || !strings.Contains(r.Reason, "Riposte has not made that") {
		t.Errorf("got %v, %t", r, ok)
	}
	for address, why := range map[string]string{"$(reboot)": "is not an IP address", "0.0.0.0/0": "is a network", "fe80::1%eth0": "has a zone"} {
		refused(t, &action.UnblockIP{Address: address, Backend: action.NFTables}, action.Env{}, why)
	}
	refused(t, &action.UnblockIP{Address: "198.51.100.2", Backend: action.Netsh}, action.Env{}, "does not exist on Linux")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if r, err := e.Apply(ctx, action.Env{}); err == nil || r != (action.Receipt{}) {
		t.Errorf("cancelled: %v, %v", r, err)
	}
}

// TestUnblockKilled kills a process when the firewall is changed and the claim still there.
func TestUnblockKilled(t *testing.T) {
	if os.Getenv(helperEnv) != "" {
		s := openSite(t, os.Getenv("RIPOSTE_TEST_SITE"))
		e := undoOf(t, block(action.NFTables, "198.51.100.2", 2*time.Hour))
		s.insideStep(e, "long", "h/g/long/p/undo", func(env action.Env) {
			env.Claims = dying{env.Claims}
			e.Apply(t.Context(), env)
		})
		t.Fatal("it has survived")
	}
	if !inside(t) {
		return
	}
	needFirewalls(t)
	dir := t.TempDir()
	s := openSite(t, dir)
	s.apply(block(action.NFTables, "198.51.100.2", time.Hour), "short", action.Blocked)
	s.apply(block(action.NFTables, "198.51.100.2", 2*time.Hour), "long", action.Blocked)
	killed(t, "TestUnblockKilled", "undo", "RIPOSTE_TEST_SITE="+dir)
	stands(t, action.NFTables, "198.51.100.2", "short", time.Hour)
	if got := s.claimed("address/198.51.100.0/24"); got != "long short" {
		t.Errorf("left behind: claims of %q", got)
	}
	e := undoOf(t, block(action.NFTables, "198.51.100.2", 2*time.Hour))
	if r, ok := s.inPlace(e, "long"); ok {
		t.Errorf("undone with its claim still there: %v", r)
	}
	s.epoch += 1 << 20
	s.undo(block(action.NFTables, "198.51.100.2", 2*time.Hour), "long")
	stands(t, action.NFTables, "198.51.100.2", "short", time.Hour)
	if got := s.claimed("address/198.51.100.0/24"); got != "short" {
		t.Errorf("completed: claims of %q", got)
	}
}

// dying are claims whose user dies before he drops one.
type dying struct{ action.Claims }

func (dying) Drop(string, ...string) error { die(); return nil }

// TestUnblockPart lifts some of what one step has blocked in one network, and leaves what others
// ask of the same addresses.
func TestUnblockPart(t *testing.T) {
	if !inside(t) {
		return
	}
	needFirewalls(t)
	s := newSite(t)
	s.apply(blockAll(action.NFTables, time.Hour, "198.51.100.2", "198.51.100.3", "198.51.100.0/28"), "a", action.Blocked)
	s.apply(blockAll(action.NFTables, 2*time.Hour, "198.51.100.2", "198.51.100.16/28"), "b", action.Blocked)
	unblock := func(address string) {
		t.Helper()
		s.apply(&action.UnblockIP{Addresses: []string{address}, Backend: action.NFTables}, "u", action.Unblocked)
	}
	unblock("198.51.100.4") // which is blocked in a network only
	blocked(t, "198.51.100.0/31 a 1h0m0s, 198.51.100.2 b 2h0m0s, 198.51.100.3-198.51.100.15 a 1h0m0s, 198.51.100.16/28 b 2h0m0s")
	unblock("198.51.100.2")
	blocked(t, "198.51.100.0/28 a 1h0m0s, 198.51.100.16/28 b 2h0m0s")
	unblock("198.51.100.0/28")
	blocked(t, "198.51.100.3 a 1h0m0s, 198.51.100.16/28 b 2h0m0s")
	for address, want := range map[string]string{"198.51.100.2": "", "198.51.100.0/28": "", "198.51.100.3": "a", "198.51.100.16/28": "b"} {
		if got := s.claimedOn(address); got != want {
			t.Errorf("claims on %s of %q, want %q", address, got, want)
		}
	}
	s.undo(blockAll(action.NFTables, 2*time.Hour, "198.51.100.2", "198.51.100.16/28"), "b")
	unblock("198.51.100.3")
	blocked(t, "")
	if got := s.claimed("address/198.51.100.0/24"); got != "" {
		t.Errorf("claims of %q", got)
	}
}
