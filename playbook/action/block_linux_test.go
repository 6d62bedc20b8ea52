package action_test

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"riposte/playbook/action"
	"riposte/playbook/guard"
	"riposte/test/need"
)

// wire is a network namespace of its own at the other end of a cable, with two hosts in
// it: the attacker and a bystander.
type wire struct {
	t                        *testing.T
	own, attacker, bystander *net.UDPConn
	peer                     int // the other namespace
}

// newWire joins this namespace, which has the first address, to one with the other two.
func newWire(t *testing.T, own, attacker, bystander string) wire {
	t.Helper()
	need.Binary(t, "ip")
	peer := newNetwork(t)
	const bits4, bits6 = "/24", "/64"
	bits := bits4
	if strings.Contains(own, ":") {
		bits = bits6
	}
	command(t, "ip", "link", "add", "v0", "type", "veth", "peer", "name", "v1", "netns", fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), peer))
	t.Cleanup(func() { exec.Command("ip", "link", "del", "v0").Run() })
	up := func(dev string, addrs ...string) {
		for _, a := range addrs {
			argv := []string{"ip", "addr", "add", a + bits, "dev", dev}
			if bits == bits6 {
				argv = append(argv, "nodad")
			}
			command(t, argv...)
		}
		command(t, "ip", "link", "set", dev, "up")
	}
	up("v0", own)
	w := wire{t: t, own: listen(t, own), peer: peer}
	within(t, peer, func() {
		up("v1", attacker, bystander)
		w.attacker, w.bystander = listen(t, attacker), listen(t, bystander)
	})
	return w
}

func listen(t *testing.T, addr string) *net.UDPConn {
	t.Helper()
	conn, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(netip.MustParseAddr(addr), 0)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

// newNetwork makes a network namespace and returns a descriptor of it.
func newNetwork(t *testing.T) int {
	t.Helper()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	open := func() int {
		fd, err := unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		return fd
	}
	own := open()
	defer unix.Close(own)
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		t.Fatal(err)
	}
	fd := open()
	t.Cleanup(func() { unix.Close(fd) })
	if err := unix.Setns(own, unix.CLONE_NEWNET); err != nil {
		t.Fatal(err)
	}
	return fd
}

// within runs f on a thread that is in another network namespace.
func within(t *testing.T, network int, f func()) {
	t.Helper()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	own, err := unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(own)
	if err := unix.Setns(network, unix.CLONE_NEWNET); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := unix.Setns(own, unix.CLONE_NEWNET); err != nil {
			panic(err)
		}
	}()
	f()
}

func send(from, to *net.UDPConn, text string) error {
	_, err := from.WriteTo([]byte(text), to.LocalAddr())
	return err
}

// receive is the next datagram.
func (w wire) receive(at *net.UDPConn) string {
	w.t.Helper()
	at.SetReadDeadline(time.Now().Add(5 * time.Second))
	buf := make([]byte, 64)
	n, err := at.Read(buf)
	if err != nil {
		w.t.Fatal(err)
	}
	return string(buf[:n])
}

// incoming says whether what the attacker sends arrives. What the bystander sends after
// it always does, and the cable keeps the order.
func (w wire) incoming() bool {
	w.t.Helper()
	if err := send(w.attacker, w.own, "attacker"); err != nil {
		w.t.Fatal(err)
	}
	if err := send(w.bystander, w.own, "bystander"); err != nil {
		w.t.Fatal(err)
	}
	if w.receive(w.own) == "bystander" {
		return false
	}
	return w.receive(w.own) == "bystander"
}

// outgoing says whether the attacker can be reached: a drop on the way out is an EPERM to
// the sender.
func (w wire) outgoing() bool {
	w.t.Helper()
	if err := send(w.own, w.bystander, "hello"); err != nil || w.receive(w.bystander) != "hello" {
		w.t.Fatalf("the bystander is cut off: %v", err)
	}
	if send(w.own, w.attacker, "hello") != nil {
		return false
	}
	return w.receive(w.attacker) == "hello"
}

func (w wire) expect(blocked bool) {
	w.t.Helper()
	if in, out := w.incoming(), w.outgoing(); in == blocked || out == blocked {
		w.t.Errorf("blocked should be %t: incoming passes %t, outgoing passes %t", blocked, in, out)
	}
}

func block(backend, address string, ttl time.Duration) *action.BlockIP {
	return &action.BlockIP{Address: address, TTL: action.Duration(ttl), Backend: backend}
}

func forAlert(id string) action.Env {
	return action.Env{Guard: &guard.Floor{}, AlertID: id}
}

// dump is the firewall as its own tool shows it.
func dump(t *testing.T, backend string) string {
	if backend == action.NFTables {
		return command(t, "nft", "list", "ruleset")
	}
	return command(t, "iptables", "-S") + command(t, "ip6tables", "-S")
}

func TestBlock(t *testing.T) {
	if !inside(t) {
		return
	}
	for _, backend := range []string{action.NFTables, action.IPTables} {
		for _, family := range [][3]string{
			{"198.51.100.1", "198.51.100.2", "198.51.100.3"},
			{"2001:db8::1", "2001:db8::2", "2001:db8::3"},
		} {
			t.Run(backend+" "+family[0], func(t *testing.T) {
				need.Binary(t, "nft")
				need.Binary(t, "iptables")
				command(t, "nft", "flush", "ruleset")
				testBlock(t, backend, family[1], newWire(t, family[0], family[1], family[2]))
			})
		}
	}
}

func testBlock(t *testing.T, backend, address string, w wire) {
	before := descriptors(t)
	expect := func(e *action.BlockIP, alert string, want action.Outcome) {
		t.Helper()
		if r := apply(t, e, forAlert(alert)); r.Outcome != want {
			t.Errorf("%s for %s: got %v, want %s", e.Describe(), alert, r, want)
		}
		r, inPlace, err := e.Probe(t.Context(), forAlert(alert))
		if err != nil || !inPlace || r.Outcome != want {
			t.Errorf("probe of %s for %s: got %v, %t, %v, want %s", e.Describe(), alert, r, inPlace, err, want)
		}
	}
	w.expect(false)
	if _, inPlace, err := block(backend, address, time.Hour).Probe(t.Context(), forAlert("a")); inPlace || err != nil {
		t.Fatalf("probe before: %t, %v", inPlace, err)
	}

	expect(block(backend, address, time.Hour), "alert-1", action.Blocked)
	w.expect(true)
	first := dump(t, backend)
	if !strings.Contains(first, "alert-1") {
		t.Errorf("the alert's ID is not to be seen:\n%s", first)
	}

	// Shorter, or the same again: nothing is changed.
	expect(block(backend, address, time.Minute), "alert-2", action.AlreadyBlocked)
	expect(block(backend, address, time.Hour), "alert-1", action.Blocked)
	if again := dump(t, backend); stripTimes(again) != stripTimes(first) {
		t.Errorf("changed by a repetition:\n%s\nbefore:\n%s", again, first)
	}

	// Longer: the time grows, the number of rules does not.
	if _, inPlace, err := block(backend, address, 2*time.Hour).Probe(t.Context(), forAlert("alert-1")); inPlace || err != nil {
		t.Errorf("probe of a longer block for the same alert: %t, %v", inPlace, err)
	}
	expect(block(backend, address, 2*time.Hour), "alert-3", action.Blocked)
	expect(block(backend, address, 90*time.Minute), "alert-4", action.AlreadyBlocked)
	longer := dump(t, backend)
	if strings.Count(longer, "\n") != strings.Count(first, "\n") || strings.Contains(longer, "alert-1") {
		t.Errorf("after a longer block:\n%s\nbefore:\n%s", longer, first)
	}
	w.expect(true)

	// Somebody undoes half of it: not in place, and made whole again.
	if backend == action.NFTables {
		command(t, "nft", "flush", "chain", "inet", "riposte", "output")
	} else {
		tool := "iptables"
		if strings.Contains(address, ":") {
			tool = "ip6tables"
		}
		command(t, tool, "-I", "OUTPUT", "-j", "ACCEPT")
	}
	if w.outgoing() {
		if r, inPlace, err := block(backend, address, time.Hour).Probe(t.Context(), forAlert("alert-5")); inPlace || err != nil {
			t.Errorf("probe of half a block: %v, %t, %v", r, inPlace, err)
		}
	} else {
		t.Error("half of the block is undone and still drops")
	}
	expect(block(backend, address, time.Hour), "alert-5", action.AlreadyBlocked) // alert-3's two hours stand again
	if whole := dump(t, backend); strings.Count(whole, "alert-") != strings.Count(longer, "alert-") ||
		strings.Count(whole, "riposte:") != strings.Count(longer, "riposte:") ||
		strings.Count(whole, "-j RIPOSTE") != strings.Count(longer, "-j RIPOSTE") {
		t.Errorf("made whole:\n%s\nbefore:\n%s", whole, longer)
	}
	w.expect(true)
	if after := descriptors(t); after != before {
		t.Errorf("descriptors left open:\n%s\nbefore:\n%s", after, before)
	}
}

// stripTimes leaves out the time that nft shows to be left.
func stripTimes(s string) string {
	var out strings.Builder
	for line := range strings.Lines(s) {
		before, after, found := strings.Cut(line, " expires ")
		out.WriteString(before)
		if found {
			_, after, _ = strings.Cut(after, " ")
			out.WriteString(" " + after)
		}
	}
	return out.String()
}

func TestBlockExpires(t *testing.T) {
	if !inside(t) {
		return
	}
	need.Binary(t, "iptables")
	if n, err := action.SweepExpired(t.Context()); n != 0 || err != nil {
		t.Fatalf("sweep of nothing: %d, %v", n, err)
	}
	w := newWire(t, "198.51.100.1", "198.51.100.2", "198.51.100.3")
	gone := func() bool {
		r, inPlace, err := block(action.NFTables, "198.51.100.2", 2*time.Second).Probe(t.Context(), forAlert("brief"))
		if err != nil {
			t.Fatal(r, err)
		}
		return !inPlace
	}
	if r := apply(t, block(action.NFTables, "198.51.100.2", 2*time.Second), forAlert("brief")); r.Outcome != action.Blocked {
		t.Errorf("got %v", r)
	}
	until(t, "the kernel forgets the element", gone)
	if r := apply(t, block(action.NFTables, "198.51.100.2", 2*time.Second), forAlert("brief")); r.Outcome != action.Blocked {
		t.Errorf("right after it has expired: got %v", r)
	}
	until(t, "the kernel forgets the element", gone)
	w.expect(false)

	apply(t, block(action.IPTables, "198.51.100.2", 2*time.Second), forAlert("brief"))
	apply(t, block(action.IPTables, "198.51.100.4", time.Hour), forAlert("long"))
	w.expect(true)
	removed := 0
	until(t, "two rules have expired", func() bool {
		var wg sync.WaitGroup
		counts := make([]int, 3)
		for i := range counts { // as three replicas do
			wg.Go(func() {
				n, err := action.SweepExpired(t.Context())
				if err != nil {
					t.Error(err)
				}
				counts[i] = n
			})
		}
		wg.Wait()
		for _, n := range counts {
			removed += n
		}
		return removed >= 2
	})
	w.expect(false)
	if rules := dump(t, action.IPTables); strings.Contains(rules, "brief") || strings.Count(rules, "riposte/long/3600s/") != 2 {
		t.Errorf("after the sweep:\n%s", rules)
	}
}

// TestBlockAtOnce has several replicas make the table at the same time.
func TestBlockAtOnce(t *testing.T) {
	if !inside(t) {
		return
	}
	need.Binary(t, "nft")
	var wg sync.WaitGroup
	start := make(chan struct{})
	for i := range 20 {
		wg.Go(func() {
			<-start
			r, err := block(action.NFTables, fmt.Sprintf("198.51.100.%d", i+1), time.Hour).Apply(t.Context(), forAlert(fmt.Sprint("alert-", i)))
			if err != nil || r.Outcome != action.Blocked {
				t.Errorf("%v, %v", r, err)
			}
		})
	}
	close(start)
	wg.Wait()
	rules := dump(t, action.NFTables)
	for _, tag := range []string{"riposte:in4", "riposte:in6", "riposte:out4", "riposte:out6"} {
		if n := strings.Count(rules, tag); n != 1 {
			t.Errorf("%d rules %s:\n%s", n, tag, rules)
		}
	}
	if n := strings.Count(rules, "expires"); n != 20 {
		t.Errorf("%d elements:\n%s", n, rules)
	}
}

// TestBlockOutOfForce has an operator take the table out of force in the two ways that leave
// everything in it.
func TestBlockOutOfForce(t *testing.T) {
	if !inside(t) {
		return
	}
	need.Binary(t, "nft")
	w := newWire(t, "198.51.100.1", "198.51.100.2", "198.51.100.3")
	b := block(action.NFTables, "198.51.100.2", time.Hour)
	apply(t, b, forAlert("a"))
	outOfForce := func() {
		t.Helper()
		w.expect(false)
		if r, inPlace, err := b.Probe(t.Context(), forAlert("a")); inPlace || err != nil {
			t.Errorf("probe: %v, %t, %v", r, inPlace, err)
		}
	}
	wake := "nft add table inet riposte"
	command(t, "nft", "add table inet riposte { flags dormant; }")
	outOfForce()
	if r, err := b.Apply(t.Context(), forAlert("a")); err == nil || !strings.Contains(err.Error(), "dormant") || !strings.HasSuffix(err.Error(), wake) {
		t.Errorf("got %v, %v", r, err)
	}
	command(t, strings.Fields(wake)...)
	w.expect(true)
	command(t, "nft", "insert", "rule", "inet", "riposte", "input", "accept")
	command(t, "nft", "insert", "rule", "inet", "riposte", "output", "accept")
	outOfForce()
	apply(t, b, forAlert("a"))
	w.expect(true)
}

// TestBlockForGood keeps an element without a timeout, which an operator has put there.
func TestBlockForGood(t *testing.T) {
	if !inside(t) {
		return
	}
	need.Binary(t, "nft")
	apply(t, block(action.NFTables, "198.51.100.9", time.Hour), forAlert("first"))
	command(t, "nft", "add", "element", "inet", "riposte", "blocked4", "{ 198.51.100.8 }")
	if r := apply(t, block(action.NFTables, "198.51.100.8", time.Hour), forAlert("second")); r.Outcome != action.AlreadyBlocked {
		t.Errorf("got %v", r)
	}
}

// TestBlockUnprivileged has a user without capabilities try.
func TestBlockUnprivileged(t *testing.T) {
	if os.Getenv(helperEnv) == "unprivileged" {
		_, err := block(action.NFTables, "198.51.100.2", time.Hour).Apply(t.Context(), forAlert("a"))
		if err == nil || !strings.Contains(err.Error(), "CAP_NET_ADMIN") {
			t.Errorf("got %v", err)
		}
		all := []action.Capability{action.CapNetAdmin, action.CapKill}
		if missing, err := action.Missing(all); err != nil || len(missing) != 2 || missing[0] != action.CapNetAdmin {
			t.Errorf("missing: %v, %v", missing, err)
		}
		return
	}
	if !inside(t) {
		return
	}
	if missing, err := action.Missing([]action.Capability{action.CapNetAdmin, action.CapKill, action.CapSysPtrace}); err != nil || missing != nil {
		t.Errorf("root misses %v, %v", missing, err)
	}
	asNobody(t, "/proc/self/exe", "unprivileged")
}

// TestBlockRefused refuses before it looks at any firewall.
func TestBlockRefused(t *testing.T) {
	if !inside(t) { // should the code be broken, this machine must not pay for it
		return
	}
	for address, why := range map[string]string{
		"1.2.3.4; rm -rf /":      "is not an IP address",
		"$(reboot)":              "is not an IP address",
		"01.2.3.4":               "is not an IP address",
		" 1.2.3.4":               "is not an IP address",
		"1.2.3.4\n":              "is not an IP address",
		"example.org":            "is not an IP address",
		"-1.2.3.4":               "is not an IP address",
		"0.0.0.0/0":              "is a network",
		"192.0.2.0/24":           "is a network",
		"fe80::1%eth0":           "has a zone",
		"::ffff:1.2.3.4%eth0":    "has a zone",
		"::ffff:127.0.0.1":       "127.0.0.1 is loopback",
		"127.1.2.3":              "is loopback",
		"0.0.0.0":                "is unspecified",
		"255.255.255.255":        "is broadcast",
		"224.0.0.1":              "is multicast",
		"169.254.169.254":        "is link-local",
		strings.Repeat("1", 1e6): "is not an IP address",
	} {
		refused(t, block(action.NFTables, address, time.Hour), forAlert("a"), why)
	}
	refused(t, block(action.Netsh, "198.51.100.2", time.Hour), forAlert("a"), "does not exist on Linux")
	refused(t, block(action.NFTables, "198.51.100.2", 25*time.Hour), forAlert("a"), "within 1s to 24h")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if r, err := block(action.NFTables, "198.51.100.2", time.Hour).Apply(ctx, forAlert("a")); err == nil || r != (action.Receipt{}) {
		t.Errorf("cancelled: %v, %v", r, err)
	}
}
