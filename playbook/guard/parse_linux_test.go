package guard

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
)

const status = "Name:\tsh\nUmask:\t0022\nUid:\t1000\t0\t1000\t1000\nGid:\t1000\t1000\t1000\t1000\n"

func TestParsers(t *testing.T) {
	environ := "A=1\x00SSH_CONNECTION=203.0.113.22 50000 192.0.2.1 22\x00SSH_CLIENT=2001:db8::22 5 22\x00SSH_CLIENT=junk\x00SSH_TTY=/dev/pts/0\x00MY_SSH_CLIENT=192.0.2.9 1 2\x00"
	resolv := "# nameserver 192.0.2.1\nsearch example.org\nnameserver 198.51.100.53\n  nameserver\tfe80::1%eth0 # x\nnameserver\nnameserver junk\noptions edns0"
	for what, c := range map[string]struct {
		list addrs
		want string
	}{
		"resolvers": {parseResolv([]byte(resolv)), "198.51.100.53 fe80::1%eth0"},
		"ssh":       {parseSSH([]byte(environ)), "203.0.113.22 2001:db8::22"},
	} {
		if got := words(c.list); got != c.want {
			t.Errorf("%s: got %q, want %q", what, got, c.want)
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

func words(list addrs) string {
	var all []string
	for _, a := range list {
		all = append(all, a.String())
	}
	return strings.Join(all, " ")
}

func FuzzParsers(f *testing.F) {
	for _, seed := range []string{status, "nameserver 192.0.2.1\n", "SSH_CLIENT=192.0.2.1 1 2\x00", "29 1 8:1 / / rw - fuse x rw,user_id=0\n"} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		for _, a := range append(parseResolv(raw), parseSSH(raw)...) {
			if !a.IsValid() {
				t.Error("an invalid address")
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
