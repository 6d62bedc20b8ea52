package guard_test

import (
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"testing"

	"riposte/playbook/guard"
	"riposte/stream/proc"
	"riposte/test/need"
)

// TestNetwork asks in a network of its own, below a process that an SSH session started.
func TestNetwork(t *testing.T) {
	const inside = "RIPOSTE_TEST_INSIDE"
	if os.Getenv(inside) == "" {
		need.Linux(t)
		need.Root(t)
		need.Binary(t, "ip")
		shell := `"$@"; exit $?`
		cmd := exec.CommandContext(t.Context(), need.Binary(t, "unshare"), "--fork", "--pid", "--mount-proc", "--net", "--kill-child",
			"sh", "-c", `SSH_CONNECTION="203.0.113.22 50000 192.0.2.1 22" "$@"; exit $?`, "init", "sh", "-c", `unset SSH_CONNECTION; `+shell, "parent",
			os.Args[0], "-test.run=^TestNetwork$", "-test.v", "-test.timeout=60s")
		cmd.Env = append(os.Environ(), inside+"=1", "GORACE=atexit_sleep_ms=0", "SSH_CLIENT=2001:db8::22 50000 22")
		if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), "--- PASS: TestNetwork") {
			t.Fatalf("%v\n%s", err, out)
		}
		return
	}
	for _, argv := range []string{
		"ip link set lo up",
		"ip link add v0 type veth peer name v1", "ip link set v0 up", "ip link set v1 up",
		"ip addr add 192.0.2.10/24 dev v0", "ip addr add 2001:db8:1::10/64 dev v0 nodad",
		"ip route add default via 192.0.2.254", "ip route add 198.18.0.0/15 via 192.0.2.253",
		"ip -6 route add default via 2001:db8:1::fe dev v0",
		// Other tables, several next hops, a gateway of the other family, a next hop with a number.
		"ip route add default table 100 nexthop via 192.0.2.251 nexthop via 192.0.2.252",
		"ip route add default via 192.0.2.250 table 101",
		"ip route add 198.18.0.0/16 table 102 via inet6 2001:db8:1::fd dev v0",
		"ip route add 198.19.0.0/16 table 103 nexthop via inet6 2001:db8:1::fc dev v0 nexthop via 192.0.2.249",
		"ip -6 route add default table 100 nexthop via 2001:db8:1::fa dev v0 nexthop via 2001:db8:1::fb dev v0",
		"ip -6 route add default via 2001:db8:1::f9 dev v0 table 101",
		"ip route change default nexthop via 192.0.2.254 nexthop via 192.0.2.248",
		"ip nexthop add id 7 via 192.0.2.247 dev v0", "ip route add default nhid 7 table 104",
		"ip nexthop add id 8 via 2001:db8:1::f8 dev v0", "ip -6 route add default nhid 8 table 104",
		"echo 0 >/proc/sys/net/ipv4/nexthop_compat_mode",
	} {
		if out, err := exec.Command("sh", "-c", argv).CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", argv, err, out)
		}
	}
	for addr, why := range map[string]string{
		"192.0.2.10": "this host's own", "2001:db8:1::10": "this host's own",
		"192.0.2.255": "broadcast",
		"192.0.2.254": "a gateway", "192.0.2.253": "a gateway", "2001:db8:1::fe": "a gateway",
		"192.0.2.252": "a gateway", "192.0.2.251": "a gateway", "192.0.2.250": "a gateway", "192.0.2.249": "a gateway",
		"192.0.2.248": "a gateway", "192.0.2.247": "a gateway",
		"2001:db8:1::fd": "a gateway", "2001:db8:1::fc": "a gateway", "2001:db8:1::fb": "a gateway",
		"2001:db8:1::fa": "a gateway", "2001:db8:1::f9": "a gateway", "2001:db8:1::f8": "a gateway",
		"203.0.113.22": "SSH", "2001:db8::22": "SSH",
		"192.0.2.11": "", "2001:db8:1::11": "", "198.18.0.1": "", "203.0.113.23": "",
		"64:ff9b::c000:2fe": "stands for 192.0.2.254",
	} {
		expect(t, addr, (&guard.Floor{}).Address(netip.MustParseAddr(addr)), why)
	}
	for network, why := range map[string]string{
		"192.0.2.0/28": "192.0.2.10 in it, which is this host's own", "192.0.2.252/30": "in it, which is", "192.0.2.16/28": "",
		"2001:db8:1::/64": "in it, which is", "2001:db8:1::f8/128": "a gateway", "203.0.113.0/24": "SSH", "192.0.2.0/23": "broader",
	} {
		expect(t, network, (&guard.Floor{}).Network(netip.MustParsePrefix(network)), why)
	}
	// /etc is the machine's own, so the test says what is in it, on a mount of its own.
	conf := t.TempDir() + "/resolv.conf"
	if err := os.WriteFile(conf, []byte("nameserver 198.51.100.53\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("mount", "--bind", conf, "/etc/resolv.conf").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	expect(t, "resolver", (&guard.Floor{}).Address(netip.MustParseAddr("198.51.100.53")), "a resolver")
	if out, err := exec.Command("mount", "-t", "tmpfs", "none", "/proc").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	expect(t, "without /proc", (&guard.Floor{}).Address(netip.MustParseAddr("192.0.2.11")), "the processes above this one")
	expect(t, "without /proc", (&guard.Floor{}).Process(proc.Stat{PID: os.Getpid() + 1}), "cannot be read")
}
