package action

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
)

// TestNetshCommands is all there is to check of netsh on other systems.
func TestNetshCommands(t *testing.T) {
	var got []string
	for _, match := range []string{netshAddresses(netip.MustParsePrefix("198.51.100.2/32")), netshAddresses(netip.MustParsePrefix("2001:db8::/64")),
		netshProgram(`C:\Program Files\Office\WINWORD.EXE`)} {
		for _, argv := range append(netshAdd("a-1", match), netshDelete("a-1", match)) {
			got = append(got, fmt.Sprintf("%q", argv[3:]))
		}
	}
	got = append(got, strings.Join(netshShow("a-1"), " "), strings.Join(netshShowPrograms("a-1"), " "))
	want := []string{
		`["add" "rule" "name=riposte-a-1" "dir=in" "action=block" "remoteip=198.51.100.2"]`,
		`["add" "rule" "name=riposte-a-1" "dir=out" "action=block" "remoteip=198.51.100.2"]`,
		`["delete" "rule" "name=riposte-a-1" "remoteip=198.51.100.2"]`,
		`["add" "rule" "name=riposte-a-1" "dir=in" "action=block" "remoteip=2001:db8::/64"]`,
		`["add" "rule" "name=riposte-a-1" "dir=out" "action=block" "remoteip=2001:db8::/64"]`,
		`["delete" "rule" "name=riposte-a-1" "remoteip=2001:db8::/64"]`,
		`["add" "rule" "name=riposte-a-1" "dir=in" "action=block" "program=C:\\Program Files\\Office\\WINWORD.EXE"]`,
		`["add" "rule" "name=riposte-a-1" "dir=out" "action=block" "program=C:\\Program Files\\Office\\WINWORD.EXE"]`,
		`["delete" "rule" "name=riposte-a-1" "program=C:\\Program Files\\Office\\WINWORD.EXE"]`,
		"netsh advfirewall firewall show rule name=riposte-a-1",
		"netsh advfirewall firewall show rule name=riposte-a-1 verbose",
	}
	if g, w := strings.Join(got, "\n"), strings.Join(want, "\n"); g != w {
		t.Errorf("got\n%s\nwant\n%s", g, w)
	}
}

func TestText(t *testing.T) {
	for in, want := range map[string]string{
		"plain text":      "plain text",
		"\x1b[31m\a\x7f":  `\u001b[31m\u0007\u007f`,
		"\u202etxt.exe 雪": `\u202etxt.exe 雪`,
		"\U000e0001":      `\udb40\udc01`,
		"a\nb":            `a\u000ab`,
	} {
		if got := printable(in); got != want {
			t.Errorf("%q: got %q, want %q", in, got, want)
		}
	}
	for n, want := range map[int]string{0: "...", 1: "a...", 2: "a...", 3: "a...", 4: "a雪...", 5: "a雪b"} {
		if got := clip("a雪b", n); got != want {
			t.Errorf("clip to %d: got %q, want %q", n, got, want)
		}
	}
	for d, want := range map[Duration]string{0: "0s", 1e9: "1s", 60e9: "1m", 90e9: "1m30s", 3600e9: "1h", 3660e9: "1h1m", 24 * 3600e9: "24h", 36e11 + 1e9: "1h0m1s", 600e9: "10m"} {
		if got := d.String(); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
		var back Duration
		if err := back.UnmarshalText([]byte(want)); err != nil || back != d {
			t.Errorf("%s reads back as %d, %v", want, back, err)
		}
	}
}

// FuzzAddress holds what is parsed to what the firewall is given.
func FuzzAddress(f *testing.F) {
	for _, seed := range []string{"198.51.100.2", "::ffff:127.0.0.1", "0.0.0.0/0", "fe80::1%eth0", "1.2.3.4; rm -rf /", "::1", "", "0x7f.1", "1.2.3"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, s string) {
		addr, err := parseAddress(s)
		if err != nil {
			if _, ok := Reason(err); !ok {
				t.Errorf("%q: not a refusal: %v", s, err)
			}
			return
		}
		if what, err := parseNetwork(s); err != nil || !what.IsSingleIP() || what.Addr() != addr || text(what) != addr.String() {
			t.Errorf("%q: as a network %v, %v", s, what, err)
		}
		if again, err := parseAddress(addr.String()); err != nil || again != addr || addr.Is4In6() || addr.Zone() != "" {
			t.Errorf("%q: %v, again %v, %v", s, addr, again, err)
		}
	})
}

// FuzzNetwork holds what is parsed to what the firewall is given, and to the bounds.
func FuzzNetwork(f *testing.F) {
	for _, seed := range []string{"198.51.100.2", "198.51.100.0/24", "198.51.100.1/24", "0.0.0.0/0", "::ffff:1.2.3.0/120", "2001:db8::/64", "fe80::%1/64", "/", "1.2.3.4/32", "1.2.3.4/032"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, s string) {
		what, err := parseNetwork(s)
		if err != nil {
			if _, ok := Reason(err); !ok {
				t.Errorf("%q: not a refusal: %v", s, err)
			}
			return
		}
		if cover, ok := blockedBy(blockTarget(what)); !ok || cover != coverOf(what) || !cover.Contains(what.Addr()) || !cover.Contains(lastOf(what)) || what != what.Masked() || TooBroad(what) != nil || what.Addr().Is4In6() {
			t.Errorf("%q: %v in %v", s, what, cover)
		}
	})
}
