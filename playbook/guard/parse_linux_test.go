package guard

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"strings"
	"testing"
)

const (
	routes6 = "00000000000000000000000000000000 00 00000000000000000000000000000000 00 20010db80001000000000000000000fe 00000400 00000001 00000000 00000003 v0\n" +
		"20010db8000100000000000000000000 40 00000000000000000000000000000000 00 00000000000000000000000000000000 00000100 00000001 00000000 00000001 v0\n"
	status = "Name:\tsh\nUmask:\t0022\nUid:\t1000\t0\t1000\t1000\nGid:\t1000\t1000\t1000\t1000\n"
)

// routes4 is as the kernel of this machine's byte order writes it.
func routes4() string {
	hex := func(a, b, c, d byte) string {
		return fmt.Sprintf("%08X", binary.NativeEndian.Uint32([]byte{a, b, c, d}))
	}
	return "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT   \n" +
		"v0\t00000000\t" + hex(192, 0, 2, 254) + "\t0003\t0\t0\t0\t00000000\t0\t0\t0  \n" +
		"v0\t" + hex(192, 0, 2, 0) + "\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0  \n"
}

func TestParsers(t *testing.T) {
	environ := "A=1\x00SSH_CONNECTION=203.0.113.22 50000 192.0.2.1 22\x00SSH_CLIENT=2001:db8::22 5 22\x00SSH_CLIENT=junk\x00SSH_TTY=/dev/pts/0\x00MY_SSH_CLIENT=192.0.2.9 1 2\x00"
	resolv := "# nameserver 192.0.2.1\nsearch example.org\nnameserver 198.51.100.53\n  nameserver\tfe80::1%eth0 # x\nnameserver\nnameserver junk\noptions edns0"
	for _, c := range []struct {
		name  string
		parse func([]byte) (addrs, error)
		in    string
		want  string // addresses, or "error"
	}{
		{"routes", parseRoutes4, routes4(), "192.0.2.254"},
		{"no routes", parseRoutes4, "Iface\tDestination\tGateway \tFlags\n", ""},
		{"empty", parseRoutes4, "", ""},
		{"short route", parseRoutes4, "head\nv0\t0\t0\n", "error"},
		{"bad gateway", parseRoutes4, "head\nv0\t00000000\tXX\t0003\n", "error"},
		{"bad flags", parseRoutes4, "head\nv0\t00000000\t00000000\tX\n", "error"},
		{"routes v6", parseRoutes6, routes6, "2001:db8:1::fe"},
		{"empty v6", parseRoutes6, "", ""},
		{"short route v6", parseRoutes6, "0 0 0\n", "error"},
		{"bad gateway v6", parseRoutes6, strings.Replace(routes6, "20010db80001000000000000000000fe", "fe", 1), "error"},
		{"bad flags v6", parseRoutes6, strings.Replace(routes6, "00000003", "-3", 1), "error"},
		{"resolvers", parseResolv, resolv, "198.51.100.53 fe80::1%eth0"},
		{"ssh", func(raw []byte) (addrs, error) { return parseSSH(raw), nil }, environ, "203.0.113.22 2001:db8::22"},
	} {
		list, err := c.parse([]byte(c.in))
		var words []string
		for _, a := range list {
			words = append(words, a.String())
		}
		got := strings.Join(words, " ")
		if err != nil {
			got = "error"
		}
		if got != c.want {
			t.Errorf("%s: got %q, %v; want %q", c.name, got, err, c.want)
		}
	}
	for in, want := range map[string]string{status: "0 <nil>", "Uid:\t7\t8\t9\n": "0 users", "Name:\tUid:\n": "0 no line", "Uid:\t1\tx\t1\t1": "0 strconv"} {
		if uid, err := parseUID([]byte(in)); !strings.HasPrefix(fmt.Sprint(uid, " ", err), want) {
			t.Errorf("%q: got %d, %v; want %s", in, uid, err, want)
		}
	}
	const info = "pos:\t0\nflags:\t012000000\nmnt_id:\t29\nino:\t3\n"
	mounts := "290 1 0:1 / / rw - fuse x rw,user_id=7\n29 1 8:1 / / rw,relatime shared:1 - "
	for in, want := range map[string]string{
		mounts + "ext4 /dev/vda1 rw\n": "true <nil>", mounts + "overlay rw\n": "true <nil>",
		mounts + "fuse.x user_id=0 rw,user_id=1000,group_id=0\n": "false <nil>",
		mounts + "fuseblk x rw,user_id=0,group_id=0\n":           "true <nil>",
		"30 1 8:1 / / rw - ext4 x rw\n":                          "false <nil>", "": "false <nil>",
		"29 1 8:1 / / rw\n": "false mount without", mounts + "ext4\n": "false mount without",
	} {
		if ok, err := parseMounted([]byte(info), []byte(in)); !strings.HasPrefix(fmt.Sprint(ok, " ", err), want) {
			t.Errorf("%q: got %t, %v; want %s", in, ok, err, want)
		}
	}
	if ok, err := parseMounted([]byte("pos:\t0\n"), []byte(mounts)); ok || err == nil {
		t.Errorf("a file without a mount: %t, %v", ok, err)
	}
	for in, want := range map[string]string{"192.0.2.10/24": "192.0.2.255", "10.1.2.3/8": "10.255.255.255", "192.0.2.130/26": "192.0.2.191", "192.0.2.1/30": "192.0.2.3"} {
		if got := broadcast(netip.MustParsePrefix(in)); got.String() != want {
			t.Errorf("broadcast of %s: got %s, want %s", in, got, want)
		}
	}
}

func FuzzParsers(f *testing.F) {
	for _, seed := range []string{routes4(), routes6, status, "nameserver 192.0.2.1\n", "SSH_CLIENT=192.0.2.1 1 2\x00", "29 1 8:1 / / rw - fuse x rw,user_id=0\n"} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		for name, parse := range map[string]func([]byte) (addrs, error){
			"routes4": parseRoutes4, "routes6": parseRoutes6, "resolv": parseResolv,
			"ssh": func(raw []byte) (addrs, error) { return parseSSH(raw), nil },
		} {
			list, err := parse(raw)
			if err != nil && list != nil {
				t.Errorf("%s: half a list with an error", name)
			}
			for _, a := range list {
				if !a.IsValid() {
					t.Errorf("%s: an invalid address", name)
				}
			}
		}
		if ok, err := parseMounted([]byte("mnt_id:\t29\n"), raw); ok && (err != nil || !strings.Contains(string(raw), "29 ")) {
			t.Errorf("a mount out of nowhere, %v", err)
		}
		if _, err := parseUID(raw); err == nil && !strings.Contains(string(raw), "Uid:") {
			t.Error("a user out of nowhere")
		}
	})
}
