package guard

import (
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"
	"time"

	"riposte/playbook/action"
)

// freshness is how old facts about addresses may be. Reading them takes about as long as
// blocking an address does.
const freshness = time.Second

// Address implements action.Guard.
func (f *Floor) Address(addr netip.Addr) error {
	addr = addr.WithZone("").Unmap()
	if !addr.IsValid() {
		return action.Refuse("no address")
	}
	meanings := append([]netip.Addr{addr}, embedded(addr)...)
	for _, a := range meanings {
		if what := special(a); what != "" {
			return protected(addr, a, what)
		}
	}
	facts, err := f.host()
	if err != nil {
		return action.RefuseUnread("what %s is to this host cannot be read: %v", addr, err)
	}
	for _, a := range meanings {
		if what := facts[a]; what != "" {
			return protected(addr, a, what)
		}
	}
	return nil
}

func protected(addr, meaning netip.Addr, what string) error {
	if addr != meaning {
		return action.Refuse("%s stands for %s, which is %s", addr, meaning, what)
	}
	return action.Refuse("%s is %s", addr, what)
}

// special says what an address is to every host.
func special(addr netip.Addr) string {
	switch {
	case addr.IsUnspecified():
		return "unspecified"
	case addr.IsLoopback():
		return "loopback"
	case addr.IsLinkLocalUnicast():
		return "link-local"
	case addr.IsMulticast():
		return "multicast"
	case addr == netip.AddrFrom4([4]byte{255, 255, 255, 255}):
		return "broadcast"
	case addr.Is4() && addr.As4()[0] == 0:
		return "of this network, 0.0.0.0/8"
	}
	return ""
}

var (
	nat64      = netip.MustParsePrefix("64:ff9b::/96") // RFC 6052
	sixToFour  = netip.MustParsePrefix("2002::/16")    // RFC 3056
	compatible = netip.MustParsePrefix("::/96")        // RFC 4291, deprecated
)

// specials are the networks of special.
var specials = map[string]netip.Prefix{
	"unspecified":                netip.MustParsePrefix("::/128"),
	"loopback":                   netip.MustParsePrefix("::1/128"),
	"loopback, 127.0.0.0/8":      netip.MustParsePrefix("127.0.0.0/8"),
	"link-local, fe80::/10":      netip.MustParsePrefix("fe80::/10"),
	"link-local, 169.254.0.0/16": netip.MustParsePrefix("169.254.0.0/16"),
	"multicast, ff00::/8":        netip.MustParsePrefix("ff00::/8"),
	"multicast, 224.0.0.0/4":     netip.MustParsePrefix("224.0.0.0/4"),
	"broadcast":                  netip.MustParsePrefix("255.255.255.255/32"),
	"of this network, 0.0.0.0/8": netip.MustParsePrefix("0.0.0.0/8"),
}

// Network implements action.Guard. It refuses a network that is broader than /24 (IPv4) or
// /64 (IPv6) or has a protected address in it.
func (f *Floor) Network(what netip.Prefix) error {
	if !what.IsValid() || what.Addr().Is4In6() {
		return action.Refuse("%s is no network", what)
	}
	if err := action.TooBroad(what); err != nil {
		return err
	}
	facts, err := f.host()
	if err != nil {
		return action.RefuseUnread("what %s is to this host cannot be read: %v", what, err)
	}
	what = what.Masked()
	for _, p := range append([]netip.Prefix{what}, embeddedNetwork(what)...) {
		meaning := ""
		if p != what {
			meaning = fmt.Sprintf(" stands for %s, which", p)
		}
		for name, s := range specials {
			if p.Overlaps(s) {
				return action.Refuse("%s%s has addresses in it that are %s", what, meaning, name)
			}
		}
		for addr, name := range facts {
			if p.Contains(addr) {
				return action.Refuse("%s%s has %s in it, which is %s", what, meaning, addr, name)
			}
		}
	}
	return nil
}

// embeddedNetwork are the IPv4 addresses for which a network of IPv6 stands, if it does.
func embeddedNetwork(what netip.Prefix) []netip.Prefix {
	for _, p := range []netip.Prefix{nat64, compatible} {
		switch b := what.Addr().As16(); {
		case what.Addr().Is4() || !what.Overlaps(p):
		case what.Bits() <= p.Bits():
			return []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0")}
		default:
			return []netip.Prefix{netip.PrefixFrom(netip.AddrFrom4([4]byte(b[12:16])), what.Bits()-p.Bits())}
		}
	}
	var all []netip.Prefix
	if what.Addr().Is6() {
		for _, addr := range embedded(what.Addr()) { // 6to4, whose IPv4 address ends before any /64 does
			all = append(all, netip.PrefixFrom(addr, addr.BitLen()))
		}
	}
	return all
}

// embedded is the IPv4 address for which an IPv6 address stands, if there is one.
func embedded(addr netip.Addr) []netip.Addr {
	b := addr.As16()
	switch {
	case nat64.Contains(addr), compatible.Contains(addr):
		return []netip.Addr{netip.AddrFrom4([4]byte(b[12:16]))}
	case sixToFour.Contains(addr):
		return []netip.Addr{netip.AddrFrom4([4]byte(b[2:6]))}
	}
	return nil
}

// host returns what is known of addresses that matter to this host.
func (f *Floor) host() (map[netip.Addr]string, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.facts != nil && time.Since(f.read) < freshness {
		return f.facts, nil
	}
	facts := make(facts)
	if f.RedisPeers != nil {
		facts.add(redisServer, f.RedisPeers()...)
	}
	if err := facts.addSystem(); err != nil {
		return nil, err
	}
	if err := facts.addOwn(); err != nil {
		return nil, err
	}
	f.facts, f.read = facts, time.Now()
	return facts, nil
}

// What an address may be to this host.
const (
	redisServer = "a Redis server"
	resolver    = "a resolver"
	sshClient   = "the client of the SSH session that Riposte runs in"
)

// Lifelines implements action.Guard.
func (f *Floor) Lifelines() (lines action.Lifelines, err error) {
	if f.RedisPeers != nil {
		lines.Redis = f.RedisPeers()
	}
	facts := make(facts)
	if err := facts.addSystem(); err != nil {
		return lines, action.RefuseUnread("what this host cannot do without cannot be read: %v", err)
	}
	for _, addr := range slices.SortedFunc(maps.Keys(facts), netip.Addr.Compare) {
		switch facts[addr] {
		case resolver:
			lines.Resolvers = append(lines.Resolvers, addr)
		case sshClient:
			lines.Operators = append(lines.Operators, addr)
		}
	}
	return lines, nil
}

// facts says what an address is to this host.
type facts map[netip.Addr]string

func (f facts) add(what string, addrs ...netip.Addr) {
	for _, a := range addrs {
		f[a.WithZone("").Unmap()] = what
	}
}

// addOwn adds the addresses of this host's interfaces and the broadcast addresses of
// their networks.
func (f facts) addOwn() error {
	all, err := net.InterfaceAddrs()
	if err != nil {
		return err
	}
	for _, a := range all {
		prefix, err := netip.ParsePrefix(a.String())
		if err != nil {
			continue // not an IP network
		}
		if addr := prefix.Addr(); addr.Is4() && prefix.Bits() < 31 {
			f.add("the broadcast address of a network of this host", broadcast(prefix))
		}
		f.add("this host's own", prefix.Addr())
	}
	return nil
}

// broadcast is the last address of an IPv4 network.
func broadcast(p netip.Prefix) netip.Addr {
	b := p.Addr().As4()
	for i := p.Bits(); i < 32; i++ {
		b[i/8] |= 1 << (7 - i%8)
	}
	return netip.AddrFrom4(b)
}
