package guard

import (
	"encoding/binary"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// attributes are those of a route, as the kernel writes them.
func attributes(t testing.TB, list ...netlink.Attribute) []byte {
	t.Helper()
	raw, err := netlink.MarshalAttributes(list)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func gateway(kind uint16, addr string) netlink.Attribute {
	return netlink.Attribute{Type: kind, Data: netip.MustParseAddr(addr).AsSlice()}
}

// hop is one of several next hops.
func hop(t testing.TB, list ...netlink.Attribute) []byte {
	of := attributes(t, list...)
	head := binary.NativeEndian.AppendUint16(nil, uint16(unix.SizeofRtNexthop+len(of)))
	return append(append(head, make([]byte, unix.SizeofRtNexthop-len(head))...), of...)
}

// routes are what the kernel says of routes, by the gateways in it.
func routes(t testing.TB) map[string][]byte {
	via := netlink.Attribute{Type: unix.RTA_VIA, Data: append([]byte{unix.AF_INET6, 0}, netip.MustParseAddr("2001:db8::fe").AsSlice()...)}
	table := netlink.Attribute{Type: unix.RTA_TABLE, Data: []byte{100, 0, 0, 0}}
	several := slices.Concat(hop(t, gateway(unix.RTA_GATEWAY, "192.0.2.1")), hop(t), hop(t, via))
	return map[string][]byte{
		"":                       attributes(t, table),
		"192.0.2.254":            attributes(t, table, gateway(unix.RTA_GATEWAY, "192.0.2.254")),
		"2001:db8::1":            attributes(t, gateway(unix.RTA_GATEWAY, "2001:db8::1"), table),
		"2001:db8::fe":           attributes(t, via),
		"192.0.2.1 2001:db8::fe": attributes(t, netlink.Attribute{Type: unix.RTA_MULTIPATH, Data: several}),
	}
}

func TestRoutes(t *testing.T) {
	for want, raw := range routes(t) {
		if list, err := parseRoute(raw); err != nil || words(list) != want {
			t.Errorf("want %q, got %q, %v", want, words(list), err)
		}
	}
	whole := hop(t, gateway(unix.RTA_GATEWAY, "192.0.2.1"))
	for name, raw := range map[string][]byte{
		"no attribute":      {1, 2, 3},
		"no address":        attributes(t, netlink.Attribute{Type: unix.RTA_GATEWAY, Data: []byte{192, 0, 2}}),
		"no address at all": attributes(t, netlink.Attribute{Type: unix.RTA_VIA, Data: []byte{2}}),
		"half a hop":        attributes(t, netlink.Attribute{Type: unix.RTA_MULTIPATH, Data: whole[:len(whole)-4]}),
		"half a head":       attributes(t, netlink.Attribute{Type: unix.RTA_MULTIPATH, Data: whole[:7]}),
		"an endless hop":    attributes(t, netlink.Attribute{Type: unix.RTA_MULTIPATH, Data: make([]byte, 8)}),
	} {
		if list, err := parseRoute(raw); err == nil || list != nil {
			t.Errorf("%s: got %v, %v", name, list, err)
		}
	}
	numbered := attributes(t, netlink.Attribute{Type: unix.NHA_ID, Data: []byte{1, 0, 0, 0}}, gateway(unix.NHA_GATEWAY, "192.0.2.7"))
	if list, err := parseNexthop(numbered); err != nil || words(list) != "192.0.2.7" {
		t.Errorf("a next hop with a number: %v, %v", list, err)
	}
}

func FuzzRoutes(f *testing.F) {
	for _, raw := range routes(f) {
		f.Add(raw)
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		for name, parse := range map[string]func([]byte) (addrs, error){"route": parseRoute, "next hops": parseMultipath, "next hop": parseNexthop} {
			list, err := parse(raw)
			if err != nil && list != nil {
				t.Errorf("%s: half a list with an error", name)
			}
			for _, a := range list {
				if !a.IsValid() || !strings.Contains(string(raw), string(a.AsSlice())) {
					t.Errorf("%s: %v out of nowhere", name, a)
				}
			}
		}
	})
}
