package action

import (
	"cmp"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// pieceIn is a piece as in "198.51.100.0-198.51.100.6 a 1h", or of one address or network.
func pieceIn(t testing.TB, text string) piece {
	t.Helper()
	f := strings.Fields(text)
	left, err := time.ParseDuration(f[2])
	if err != nil {
		t.Fatal(text, err)
	}
	s := standing{strings.Trim(f[1], "-"), left, left}
	from, to, found := strings.Cut(f[0], "-")
	if found {
		return piece{netip.MustParseAddr(from), netip.MustParseAddr(to), s}
	}
	what, err := parseNetwork(f[0])
	if err != nil {
		what = netip.MustParsePrefix(f[0])
	}
	return asPiece(what, s)
}

func piecesOf(t testing.TB, text string) (all []piece) {
	t.Helper()
	for s := range strings.SplitSeq(text, ", ") {
		if s != "" {
			all = append(all, pieceIn(t, s))
		}
	}
	return all
}

func listOf(all []piece) string {
	var out []string
	for _, p := range all {
		out = append(out, fmt.Sprintf("%s %s %v", p, cmp.Or(p.AlertID, "-"), p.Left))
	}
	return strings.Join(out, ", ")
}

func TestDivide(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ in, want string }{
		"nothing":           {"", ""},
		"one address":       {"198.51.100.7 a 1h", "198.51.100.7 a 1h"},
		"the same":          {"198.51.100.7 a 1h, 198.51.100.7 b 2h", "198.51.100.7 b 2h"},
		"one within":        {"198.51.100.0/24 a 1h, 198.51.100.7 b 2h", "198.51.100.0-198.51.100.6 a 1h, 198.51.100.7 b 2h, 198.51.100.8-198.51.100.255 a 1h"},
		"a shorter within":  {"198.51.100.7 b 1h, 198.51.100.0/24 a 2h", "198.51.100.0/24 a 2h"},
		"at the beginning":  {"198.51.100.0/24 a 1h, 198.51.100.0 b 2h", "198.51.100.0 b 2h, 198.51.100.1-198.51.100.255 a 1h"},
		"at the end":        {"198.51.100.0/24 a 1h, 198.51.100.255 b 2h", "198.51.100.0-198.51.100.254 a 1h, 198.51.100.255 b 2h"},
		"neighbours":        {"198.51.100.7 b 2h, 198.51.100.6 a 1h", "198.51.100.6 a 1h, 198.51.100.7 b 2h"},
		"a gap is filled":   {"198.51.100.0-198.51.100.6 a 1h, 198.51.100.8-198.51.100.255 a 1h, 198.51.100.7 a 59m59s", "198.51.100.0/24 a 1h"},
		"not as long":       {"198.51.100.6 a 1h, 198.51.100.7 a 59m57s", "198.51.100.6 a 1h, 198.51.100.7 a 59m57s"},
		"little by little":  {"198.51.100.6/31 a 62s, 198.51.100.8/31 a 61s, 198.51.100.10/31 a 60s, 198.51.100.12/31 a 59s", "198.51.100.6-198.51.100.11 a 62s, 198.51.100.12/31 a 59s"},
		"two by themselves": {"198.51.100.6 a 1h, 198.51.100.7 a 1h", "198.51.100.6 a 1h, 198.51.100.7 a 1h"},
		"an operator's":     {"198.51.100.0/24 a 1h, 198.51.100.6/31 - 2000h, 198.51.100.8 - 2000h", "198.51.100.0-198.51.100.5 a 1h, 198.51.100.6/31 - 2000h, 198.51.100.8 - 2000h, 198.51.100.9-198.51.100.255 a 1h"},
		"broader than /24":  {"198.51.0.0/16 - 2000h, 198.51.100.7 a 1h", "198.51.0.0/16 - 2000h"},
		"the last of IPv4":  {"255.255.255.255 a 1h, 255.255.255.0/24 b 2h, 255.255.255.254/31 c 3h", "255.255.255.0-255.255.255.253 b 2h, 255.255.255.254-255.255.255.255 c 3h"},
		"both families":     {"::1 b 1h, 255.255.255.255 a 1h", "255.255.255.255 a 1h, ::1 b 1h"},
		"IPv6, and its end": {"ffff:ffff:ffff:ffff::/64 a 1h, ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff b 2h", "ffff:ffff:ffff:ffff::-ffff:ffff:ffff:ffff:ffff:ffff:ffff:fffe a 1h, ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff b 2h"},
	} {
		got, want := listOf(divide(piecesOf(t, c.in))), listOf(piecesOf(t, c.want))
		if got != want {
			t.Errorf("%s:\n%s\nwant\n%s", name, got, want)
		}
		if again := listOf(divide(piecesOf(t, c.want))); again != want {
			t.Errorf("%s, again:\n%s\nwant\n%s", name, again, want)
		}
	}
}

func TestLeast(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ all, what, own, want string }{
		{"", "198.51.100.7/32", "a", "- 0s"},
		{"198.51.100.7 a 1h", "198.51.100.7/32", "a", "a 1h0m0s"},
		{"198.51.100.7 a 1h", "198.51.100.6/32", "a", "- 0s"},
		{"198.51.100.7 a 1h", "198.51.100.8/32", "a", "- 0s"},
		{"198.51.100.0/24 a 1h", "198.51.100.8/32", "b", "a 1h0m0s"},
		{"198.51.100.0-198.51.100.6 a 1h, 198.51.100.7 b 30m, 198.51.100.8-198.51.100.255 c 2h", "198.51.100.0/24", "x", "b 30m0s"},
		{"198.51.100.0-198.51.100.6 a 1h, 198.51.100.7 b 30m, 198.51.100.8-198.51.100.255 c 2h", "198.51.100.0/24", "c", "c 30m0s"},
		{"198.51.100.0-198.51.100.6 a 1h, 198.51.100.8-198.51.100.255 c 2h", "198.51.100.0/24", "c", "- 0s"},
		{"198.51.100.0-198.51.100.254 a 1h", "198.51.100.0/24", "c", "- 0s"},
		{"198.51.100.1-198.51.100.255 a 1h", "198.51.100.0/24", "c", "- 0s"},
		{"255.255.255.0/24 a 1h", "255.255.255.0/24", "c", "a 1h0m0s"},
	} {
		what := netip.MustParsePrefix(c.what)
		s := least(piecesOf(t, c.all), what.Addr(), lastOf(what), c.own)
		if got := fmt.Sprintf("%s %v", cmp.Or(s.AlertID, "-"), s.Left); got != c.want {
			t.Errorf("%s of %s: got %s, want %s", c.what, c.all, got, c.want)
		}
	}
}

// TestDivideAll compares with a look at each of the 256 addresses.
func TestDivideAll(t *testing.T) {
	t.Parallel()
	network := rapid.Custom(func(t *rapid.T) netip.Prefix {
		addr := netip.AddrFrom4([4]byte{198, 51, 100, rapid.Byte().Draw(t, "last")})
		what, _ := addr.Prefix(rapid.IntRange(24, 32).Draw(t, "bits"))
		return what
	})
	rapid.Check(t, func(t *rapid.T) {
		var all []piece
		for range rapid.IntRange(0, 12).Draw(t, "pieces") {
			// Far enough from each other not to be taken for the same.
			left := time.Duration(rapid.IntRange(1, 9).Draw(t, "left")) * time.Minute
			all = append(all, asPiece(network.Draw(t, "what"), standing{rapid.SampledFrom([]string{"", "a", "b", "c"}).Draw(t, "alert"), left, left}))
		}
		out := divide(all)
		for i, p := range out {
			if p.to.Less(p.from) || i > 0 && !out[i-1].to.Less(p.from) {
				t.Fatalf("%v of %v", listOf(out), listOf(all))
			}
			if i > 0 && p.standing == out[i-1].standing && p.from == out[i-1].to.Next() && out[i-1].joins(p) {
				t.Fatalf("two that are one: %v of %v", listOf(out), listOf(all))
			}
		}
		want := func(addr netip.Addr) (s standing) {
			for _, p := range all {
				if addr.Compare(p.from) >= 0 && addr.Compare(p.to) <= 0 && p.Left > s.Left {
					s = p.standing
				}
			}
			return s
		}
		what := network.Draw(t, "asked")
		shortest, holes, named := forever, false, false
		for i := range 256 {
			addr := netip.AddrFrom4([4]byte{198, 51, 100, byte(i)})
			got := least(out, addr, addr, "")
			if got.Left != want(addr).Left {
				t.Fatalf("%s: got %v, want %v: %v of %v", addr, got, want(addr), listOf(out), listOf(all))
			}
			if !ownedBy(all, addr, got) {
				t.Fatalf("%s: %v is nobody's: %v of %v", addr, got, listOf(out), listOf(all))
			}
			if what.Contains(addr) {
				holes = holes || got.Left == 0
				shortest = min(shortest, got.Left)
				named = named || got.AlertID == "a"
			}
		}
		got := least(out, what.Addr(), lastOf(what), "a")
		if holes && got != (standing{}) || !holes && (got.Left != shortest || (got.AlertID == "a") != named) {
			t.Fatalf("%s: got %v of %v", what, got, listOf(out))
		}
	})
}

// ownedBy says that one of the pieces with the address in it asks for this.
func ownedBy(all []piece, addr netip.Addr, s standing) bool {
	if s.Left == 0 {
		return true
	}
	for _, p := range all {
		if addr.Compare(p.from) >= 0 && addr.Compare(p.to) <= 0 && p.standing == s {
			return true
		}
	}
	return false
}
