package action

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"riposte/stream"
)

// sourceIP is the entry of Addresses that means the alert's own.
const sourceIP = "alert.source_ip"

// remotes is the entry of Addresses that means those which the alert's process talks to, as seen
// when the step begins: best while it is suspended.
const remotes = "process.remotes"

// mostAddresses is how many one step may name: each of them is looked at and written down by
// itself, within the step's timeout.
const mostAddresses = 64

// The broadest networks that may be blocked, in bits.
const (
	broadest4 = 24
	broadest6 = 64
)

// Addresses is one address or network, or a list of them: IPv4 or IPv6 addresses, networks in
// CIDR form no broader than /24 or /64, alert.source_ip, and process.remotes: those that the
// alert's process talks to when the step begins, without the protected ones.
type Addresses []string

// UnmarshalYAML reads a single one as a list of one.
func (a *Addresses) UnmarshalYAML(unmarshal func(any) error) error {
	var one string
	if err := unmarshal(&one); err == nil {
		*a = Addresses{one}
		return nil
	}
	return unmarshal((*[]string)(a))
}

func (a Addresses) validate() error {
	if len(a) < 1 || len(a) > mostAddresses {
		return fmt.Errorf("address: %d of them; want 1 to %d", len(a), mostAddresses)
	}
	for _, s := range a {
		if s == sourceIP || s == remotes {
			continue
		}
		if _, err := parseNetwork(s); err != nil {
			reason, _ := Reason(err)
			return fmt.Errorf("address: %s; want one address or network, %s, %s, or a list of those", reason, sourceIP, remotes)
		}
	}
	return nil
}

// oneAddress is all that an alert may fill in: no network, and none of the words that mean
// something to a playbook.
func oneAddress(text string) error {
	_, err := parseAddress(text)
	return err
}

// resolve binds the addresses to an alert. It returns the alert's own apart, which must be a
// single address, because anybody may have written it. ok is false where nothing is left.
func (a Addresses) resolve(alert *stream.Alert) (address string, more []string, ok bool) {
	for _, s := range a {
		if s == sourceIP {
			address = clip(alert.SourceIP, maxField)
		} else if s != remotes {
			more = append(more, clip(s, maxField))
		}
	}
	if len(a) == 1 && len(more) == 1 && !strings.Contains(more[0], "/") {
		address, more = more[0], nil // as it was before there were lists
	}
	return address, more, address != "" || more != nil
}

// parseAll reads back what was resolved, in no particular order and each once.
func parseAll(address string, more []string) ([]netip.Prefix, error) {
	var all []netip.Prefix
	if address != "" || len(more) == 0 {
		addr, err := parseAddress(address)
		if err != nil {
			return nil, err
		}
		all = append(all, netip.PrefixFrom(addr, addr.BitLen()))
	}
	if len(more) > mostAddresses {
		return nil, Refuse("%d addresses are more than %d", len(more), mostAddresses)
	}
	for _, s := range more {
		what, err := parseNetwork(s)
		if err != nil {
			return nil, err
		}
		if !slices.Contains(all, what) {
			all = append(all, what)
		}
	}
	return all, nil
}

// coverOf is the broadest network that may be blocked with an address or network in it. Networks
// have one another in them or nothing in common, so whatever overlaps has one cover.
func coverOf(what netip.Prefix) netip.Prefix {
	bits := broadest6
	if what.Addr().Is4() {
		bits = broadest4
	}
	return netip.PrefixFrom(what.Addr(), bits).Masked()
}

// blockTarget is what blocks take turns at that may overlap.
func blockTarget(what netip.Prefix) string { return addressTarget + coverOf(what).String() }

// byTarget parts addresses and networks by their targets.
func byTarget(all []netip.Prefix) (parts [][]netip.Prefix) {
	for _, what := range all {
		i := slices.IndexFunc(parts, func(p []netip.Prefix) bool { return coverOf(p[0]) == coverOf(what) })
		if i < 0 {
			i, parts = len(parts), append(parts, nil)
		}
		parts[i] = append(parts[i], what)
	}
	return parts
}

// addressTargets are what effects on addresses take turns at. What cannot be parsed is refused
// later, by all who name it.
func addressTargets(address string, more []string) (targets []string) {
	add := func(what netip.Prefix, err error, text string) {
		target := addressTarget + text
		if err == nil {
			target = blockTarget(what)
		}
		if !slices.Contains(targets, target) {
			targets = append(targets, target)
		}
	}
	if address != "" || len(more) == 0 {
		addr, err := parseAddress(address)
		add(netip.PrefixFrom(addr, addr.BitLen()), err, address)
	}
	for _, s := range more {
		what, err := parseNetwork(s)
		add(what, err, s)
	}
	return targets
}

// listed writes addresses for people.
func listed(address string, more []string) string {
	if address == "" || len(more) == 0 {
		return printable(clip(address+strings.Join(more, ", "), 200))
	}
	return printable(clip(address, 80) + ", " + clip(strings.Join(more, ", "), 200))
}

// parseAddress accepts one address in its usual form and nothing else. An IPv4 address
// written as IPv6 is the IPv4 address: that is what the packets carry.
func parseAddress(s string) (netip.Addr, error) {
	if _, err := netip.ParsePrefix(s); err == nil {
		return netip.Addr{}, Refuse("%s is a network; only single addresses are blocked for an alert", s)
	}
	addr, err := netip.ParseAddr(s)
	if err != nil {
		return netip.Addr{}, Refuse("%q is not an IP address", clip(s, 80))
	}
	if addr.Zone() != "" {
		return netip.Addr{}, Refuse("%q has a zone, which means nothing on another host", clip(s, 80))
	}
	return addr.Unmap(), nil
}

// parseNetwork accepts what parseAddress does, and networks in CIDR form that are no broader
// than may be blocked.
func parseNetwork(s string) (netip.Prefix, error) {
	what, err := netip.ParsePrefix(s)
	if err != nil {
		addr, err := parseAddress(s)
		if err != nil {
			return netip.Prefix{}, err
		}
		return netip.PrefixFrom(addr, addr.BitLen()), nil
	}
	if what.Addr().Is4In6() {
		return netip.Prefix{}, Refuse("%s is a network of IPv4 written as IPv6; write it as IPv4", s)
	}
	if err := TooBroad(what); err != nil {
		return netip.Prefix{}, err
	}
	if what != what.Masked() {
		return netip.Prefix{}, Refuse("%s is an address in the network %s; write one or the other", s, what.Masked())
	}
	return what, nil
}

// TooBroad refuses a network that is broader than may be blocked: /24 for IPv4, /64 for IPv6.
func TooBroad(what netip.Prefix) error {
	most := broadest6
	if what.Addr().Is4() {
		most = broadest4
	}
	if what.Bits() < most {
		return Refuse("%s is a network broader than /%d", what, most)
	}
	return nil
}
