package action

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/google/nftables/userdata"
	"golang.org/x/sys/unix"
)

func newIsolator() (isolator, error) { return nftIsolator{}, nil }

// nftIsolator isolates by a table of its own:
//
//	table inet riposte_isolation {
//		set active { type nf_proto; flags timeout; elements = { ipv4 timeout 1h, ipv6 timeout 1h } }
//		chain input { type filter hook input priority filter - 20; policy accept;
//			iifname "lo" accept
//			ip saddr REDIS meta l4proto tcp tcp flags & (syn | ack) != syn accept
//			ip saddr ALLOWED accept
//			... answers of resolvers, DHCP, neighbour discovery, "packet too big" ...
//			meta nfproto @active drop }
//		chain output { ... the same the other way round ... }
//	}
//
// The policy is accept and the drop asks a set whose elements the kernel takes out when
// their time is over: so the isolation ends even if nobody is left to end it.
type nftIsolator struct{}

const (
	letTag  = "riposte:isolate"       // of what lets through
	dropTag = "riposte:isolate:drop:" // of the last rule of each chain, and its isolation.mark
)

// activeKeys are the elements of the set: whatever the packet, one of them is its protocol.
var activeKeys = [][]byte{{unix.NFPROTO_IPV4}, {unix.NFPROTO_IPV6}}

type isolationTable struct {
	table  *nftables.Table
	active *nftables.Set
	chains []*nftables.Chain // input, output
}

func newIsolationTable() isolationTable {
	t := isolationTable{table: &nftables.Table{Name: "riposte_isolation", Family: nftables.TableFamilyINet}}
	t.active = &nftables.Set{Table: t.table, ID: 1, Name: "active", KeyType: nftables.TypeNFProto, HasTimeout: true}
	accept := nftables.ChainPolicyAccept
	for i, hook := range []*nftables.ChainHook{nftables.ChainHookInput, nftables.ChainHookOutput} {
		t.chains = append(t.chains, &nftables.Chain{Table: t.table, Name: []string{"input", "output"}[i], Type: nftables.ChainTypeFilter,
			Hooknum: hook, Priority: nftables.ChainPriorityRef(*nftables.ChainPriorityFilter - 20), Policy: &accept})
	}
	return t
}

func (t isolationTable) elements(s standing) (all []nftables.SetElement) {
	for _, key := range activeKeys {
		all = append(all, nftables.SetElement{Key: key, Timeout: s.timeout(), Comment: clip(s.AlertID, maxComment)})
	}
	return all
}

// entry is what the set says: as long as its longer element, for each drops by itself.
func (nftIsolator) entry(ctx context.Context) (standing, error) {
	all, err := readActive(ctx)
	return slices.MaxFunc(all, byLeft), err
}

func byLeft(a, b standing) int { return cmp.Compare(a.Left, b.Left) }

// readActive reads the elements of the set, one of each protocol.
func readActive(ctx context.Context) ([]standing, error) {
	t, deadline := newIsolationTable(), netlinkDeadline(ctx)
	all := make([]standing, len(activeKeys))
	for i, key := range activeKeys {
		var err error
		if all[i], err = readElement(deadline, t.active, key); err != nil {
			return make([]standing, 1), fmt.Errorf("nftables table inet %s: %w", t.table.Name, err)
		}
		if all[i].Left == forever { // nobody's: riposte_isolation is made by Riposte alone, with an end
			all[i].AlertID = ""
		}
	}
	return all, nil
}

func (nftIsolator) standing(ctx context.Context) (s standing, mark string, err error) {
	conn, err := nft{}.open(netlinkDeadline(ctx))
	if err != nil {
		return standing{}, "", err
	}
	defer conn.CloseLasting()
	t := newIsolationTable()
	if asleep, err := (nftTable{table: t.table}).dormant(conn); err != nil || asleep {
		return standing{}, "", err
	}
	mark, err = t.whole(conn)
	if err != nil || mark == "" {
		return standing{}, "", err
	}
	all, err := readActive(ctx)
	return slices.MinFunc(all, byLeft), mark, err // both must drop
}

// whole returns the mark of both chains. It is empty where one does not end with its drop, or
// has somebody else's rule before it.
func (t isolationTable) whole(conn *nftables.Conn) (mark string, err error) {
	for i, chain := range t.chains {
		rules, err := conn.GetRules(t.table, chain)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return "", fmt.Errorf("list nftables chain %s: %w", chain.Name, needsNetAdmin(err))
		}
		found := ""
		for _, r := range rules {
			tag, _ := userdata.GetString(r.UserData, userdata.TypeComment)
			if !strings.HasPrefix(tag, letTag) {
				return "", nil
			}
			if found, _ = strings.CutPrefix(tag, dropTag); found != tag {
				break
			}
			found = ""
		}
		if found == "" || i > 0 && found != mark {
			return "", nil
		}
		mark = found
	}
	return mark, nil
}

func (nftIsolator) build(ctx context.Context, i isolation, s standing) error {
	conn, err := nft{}.open(netlinkDeadline(ctx))
	if err != nil {
		return err
	}
	defer conn.CloseLasting()
	t := newIsolationTable()
	conn.AddTable(t.table) // deleting one that is not there fails
	conn.DelTable(t.table)
	conn.AddTable(t.table)
	if err := conn.AddSet(t.active, t.elements(s)); err != nil {
		return err
	}
	for _, chain := range t.chains {
		conn.AddChain(chain)
		add := func(tag string, verdict expr.VerdictKind, match ...expr.Any) {
			conn.AddRule(&nftables.Rule{Table: t.table, Chain: chain, Exprs: append(match, &expr.Verdict{Kind: verdict}),
				UserData: userdata.AppendString(nil, userdata.TypeComment, tag)})
		}
		for _, match := range i.let(chain.Name == "input") {
			add(letTag, expr.VerdictAccept, match...)
		}
		add(dropTag+i.mark(), expr.VerdictDrop,
			&expr.Meta{Key: expr.MetaKeyNFPROTO, Register: 1},
			&expr.Lookup{SourceRegister: 1, SetName: t.active.Name, SetID: t.active.ID})
	}
	if err := conn.Flush(); err != nil {
		return fmt.Errorf("make nftables table inet %s: %w", t.table.Name, needsNetAdmin(err))
	}
	return nil
}

// extend replaces the elements in one transaction: see nftTable.put.
func (nftIsolator) extend(ctx context.Context, s standing) error {
	conn, err := nft{}.open(netlinkDeadline(ctx))
	if err != nil {
		return err
	}
	defer conn.CloseLasting()
	t := newIsolationTable()
	var keys []nftables.SetElement
	for _, key := range activeKeys {
		keys = append(keys, nftables.SetElement{Key: key})
	}
	if err := errors.Join(conn.SetAddElements(t.active, t.elements(s)), conn.SetDeleteElements(t.active, keys),
		conn.SetAddElements(t.active, t.elements(s))); err != nil {
		return err
	}
	if err := conn.Flush(); err != nil {
		return fmt.Errorf("change nftables table inet %s: %w", t.table.Name, needsNetAdmin(err))
	}
	return nil
}

func (nftIsolator) remove(ctx context.Context) error {
	conn, err := nft{}.open(netlinkDeadline(ctx))
	if err != nil {
		return err
	}
	defer conn.CloseLasting()
	t := newIsolationTable()
	conn.AddTable(t.table)
	conn.DelTable(t.table)
	if err := conn.Flush(); err != nil {
		return fmt.Errorf("delete nftables table inet %s: %w", t.table.Name, needsNetAdmin(err))
	}
	return nil
}

// let are the matches of what is accepted on the way in or out.
func (i isolation) let(in bool) (all [][]expr.Any) {
	lo := &expr.Meta{Key: expr.MetaKeyOIFNAME, Register: 1}
	if in {
		lo.Key = expr.MetaKeyIIFNAME
	}
	name := make([]byte, unix.IFNAMSIZ)
	copy(name, "lo")
	all = append(all, []expr.Any{lo, equal(name)})
	for _, addr := range i.Redis {
		match := append(peer(single(addr), in), protocol(unix.IPPROTO_TCP)...)
		if in { // answers only
			match = append(match, noNewTCP()...)
		}
		all = append(all, match)
	}
	for _, addr := range i.Operators {
		all = append(all, peer(single(addr), in))
	}
	for _, what := range i.allow {
		all = append(all, peer(what, in))
	}
	if i.dns {
		for _, addr := range i.Resolvers {
			for _, number := range []byte{unix.IPPROTO_UDP, unix.IPPROTO_TCP} {
				match := append(peer(single(addr), in), protocol(number)...)
				match = append(match, port(!in, 53)...)
				if in && number == unix.IPPROTO_TCP {
					match = append(match, noNewTCP()...)
				}
				all = append(all, match)
			}
		}
	}
	for _, dhcp := range []struct {
		version      byte
		own, servers uint16
	}{{unix.NFPROTO_IPV4, 68, 67}, {unix.NFPROTO_IPV6, 546, 547}} {
		match := append(ipVersion(dhcp.version), protocol(unix.IPPROTO_UDP)...)
		match = append(match, port(in, dhcp.own)...)
		all = append(all, append(match, port(!in, dhcp.servers)...))
	}
	// That a packet was too big for a link on the way: else nothing large reaches Redis over one.
	if in {
		for _, said := range []struct{ version, protocol, kind, code byte }{{unix.NFPROTO_IPV4, unix.IPPROTO_ICMP, 3, 4}, {unix.NFPROTO_IPV6, unix.IPPROTO_ICMPV6, 2, 0}} {
			match := append(ipVersion(said.version), protocol(said.protocol)...)
			all = append(all, append(match,
				&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: 0, Len: 2}, equal([]byte{said.kind, said.code})))
		}
	}
	// Multicast listeners (130 to 132, 143), routers and neighbours (133 to 136).
	for _, types := range [][2]byte{{130, 136}, {143, 143}} {
		match := append(ipVersion(unix.NFPROTO_IPV6), protocol(unix.IPPROTO_ICMPV6)...)
		all = append(all, append(match,
			&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: 0, Len: 1},
			&expr.Range{Op: expr.CmpOpEq, Register: 1, FromData: []byte{types[0]}, ToData: []byte{types[1]}}))
	}
	return all
}

func single(addr netip.Addr) netip.Prefix {
	addr = addr.WithZone("").Unmap()
	return netip.PrefixFrom(addr, addr.BitLen())
}

func equal(data []byte) expr.Any { return &expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: data} }

func ipVersion(number byte) []expr.Any {
	return []expr.Any{&expr.Meta{Key: expr.MetaKeyNFPROTO, Register: 1}, equal([]byte{number})}
}

func protocol(number byte) []expr.Any {
	return []expr.Any{&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1}, equal([]byte{number})}
}

// peer matches the other side's address: the source of what comes in.
func peer(what netip.Prefix, in bool) []expr.Any {
	f := nftFamilies[0]
	if !what.Addr().Is4() {
		f = nftFamilies[1]
	}
	load := &expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: f.to, Len: uint32(f.bits / 8)}
	if in {
		load.Offset = f.from
	}
	match := append(ipVersion(f.number), load)
	if !what.IsSingleIP() {
		match = append(match, &expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: load.Len, Mask: net.CIDRMask(what.Bits(), f.bits), Xor: make([]byte, load.Len)})
	}
	return append(match, equal(what.Masked().Addr().AsSlice()))
}

// port matches a port of TCP or UDP: of the destination, or of the source.
func port(destination bool, number uint16) []expr.Any {
	load := &expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: 0, Len: 2}
	if destination {
		load.Offset = 2
	}
	return []expr.Any{load, equal([]byte{byte(number >> 8), byte(number)})}
}

// noNewTCP matches all but the segment that opens a connection: SYN without ACK.
func noNewTCP() []expr.Any {
	const flags, syn, ack = 13, 0x02, 0x10
	return []expr.Any{
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: flags, Len: 1},
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 1, Mask: []byte{syn | ack}, Xor: []byte{0}},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: []byte{syn}},
	}
}
