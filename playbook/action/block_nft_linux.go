package action

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/userdata"
	"github.com/mdlayher/netlink"
)

// nft blocks by elements with a timeout in two nftables sets, over netlink. The kernel
// takes an element out when its time is over. What it makes looks like this:
//
//	table inet riposte {
//		set blocked4 { type ipv4_addr; flags timeout; }
//		set blocked6 { type ipv6_addr; flags timeout; }
//		chain input { type filter hook input priority filter - 10; policy accept;
//			ip saddr @blocked4 drop comment "riposte:in4"
//			ip6 saddr @blocked6 drop comment "riposte:in6" }
//		chain output { type filter hook output priority filter - 10; policy accept;
//			ip daddr @blocked4 drop comment "riposte:out4"
//			ip6 daddr @blocked6 drop comment "riposte:out6" }
//	}
//
// A drop is final and an accept is not: it ends one chain, and the next chain on the same
// hook is asked too. So nothing that other tables accept gets past this one.
//
// Networks have sets and chains of their own, one set and two chains a prefix length, which
// are made when the first network of that length is blocked:
//
//	set blocked4net24 { type ipv4_addr; flags timeout; }
//	chain input4net24 { type filter hook input priority filter - 10; policy accept;
//		ip saddr & 255.255.255.0 @blocked4net24 drop comment "riposte:in4net24" }
//	chain output4net24 { ... ip daddr ... comment "riposte:out4net24" }
//
// One interval set would take all lengths, but in it the kernel refuses an element that
// overlaps another (EEXIST), and with it the whole transaction: a /25 could not be blocked
// while its /24 is, nor be left standing when that is undone. In sets like these every network
// is an element by itself, with a time and an alert of its own, and a packet is dropped while
// any of them stands. It costs a packet one look a length in use.
type nft struct{}

// netlinkWait bounds one conversation with the kernel, which normally takes far less than
// a millisecond.
const netlinkWait = 5 * time.Second

func (nft) open(deadline time.Time) (*nftables.Conn, error) {
	return nftables.New(nftables.AsLasting(), nftables.WithSockOptions(func(c *netlink.Conn) error {
		return c.SetDeadline(deadline)
	}))
}

func netlinkDeadline(ctx context.Context) time.Time {
	deadline := time.Now().Add(netlinkWait)
	if d, ok := ctx.Deadline(); ok && d.Before(deadline) {
		return d
	}
	return deadline
}

func (n nft) standing(ctx context.Context, what netip.Prefix) (standing, error) {
	deadline := netlinkDeadline(ctx)
	conn, err := n.open(deadline)
	if err != nil {
		return standing{}, err
	}
	defer conn.CloseLasting()
	t := newNFTTable(what)
	if asleep, err := t.dormant(conn); err != nil || asleep {
		return standing{}, err
	}
	if whole, err := t.whole(conn); err != nil || !whole {
		return standing{}, err
	}
	return t.element(deadline, what)
}

// element is what the set says about an address.
func (t nftTable) element(deadline time.Time, what netip.Prefix) (standing, error) {
	s, err := readElement(deadline, t.set, what.Addr().AsSlice())
	if err != nil {
		return s, fmt.Errorf("read nftables set %s: %w", t.set.Name, needsNetAdmin(err))
	}
	return s, nil
}

// dormant says that somebody has taken the table out of force, as
// `nft add table inet riposte { flags dormant; }` does.
func (t nftTable) dormant(conn *nftables.Conn) (bool, error) {
	table, err := conn.ListTableOfFamily(t.table.Name, t.table.Family)
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("read nftables table inet %s: %w", t.table.Name, needsNetAdmin(err))
	}
	// The library takes the flags, which are big-endian, for this machine's byte order.
	const nftTableDormant = 0x1
	flags := binary.BigEndian.Uint32(binary.NativeEndian.AppendUint32(nil, table.Flags))
	return flags&nftTableDormant != 0, nil
}

// whole says that each chain begins with its rules: one before them could accept what
// they drop.
func (t nftTable) whole(conn *nftables.Conn) (bool, error) {
	for _, chain := range t.chains {
		rules, err := conn.GetRules(t.table, chain)
		if err != nil {
			return false, fmt.Errorf("list nftables chain %s: %w", chain.Name, needsNetAdmin(err))
		}
		for _, want := range t.rules {
			if want.chain != chain {
				continue
			}
			if len(rules) == 0 {
				return false, nil
			}
			if tag, _ := userdata.GetString(rules[0].UserData, userdata.TypeComment); tag != want.tag {
				return false, nil
			}
			rules = rules[1:]
		}
	}
	return true, nil
}

// block makes the table if it is not whole and puts the address into its set, in one
// transaction: nobody ever sees half of it.
func (n nft) block(ctx context.Context, what netip.Prefix, s standing) error {
	deadline := netlinkDeadline(ctx)
	conn, err := n.open(deadline)
	if err != nil {
		return err
	}
	defer conn.CloseLasting()
	t := newNFTTable(what)
	asleep, err := t.dormant(conn)
	if err != nil {
		return err
	}
	if asleep {
		return errors.New("nftables table inet riposte has the flag dormant and drops nothing; to wake it: nft add table inet riposte")
	}
	whole, err := t.whole(conn)
	if err != nil {
		return err
	}
	if !whole {
		if err := t.create(conn); err != nil {
			return err
		}
	}
	before, err := t.element(deadline, what)
	if err != nil {
		return err
	}
	if before.Left < s.Left {
		if err := t.put(conn, what, before, s); err != nil {
			return err
		}
	}
	if err := conn.Flush(); err != nil {
		return fmt.Errorf("change nftables table inet riposte (to have it made anew: nft delete table inet riposte): %w", needsNetAdmin(err))
	}
	return nil
}

// survey lists the sets of single addresses. Networks are few, and looked up one by one.
func (n nft) survey(ctx context.Context) (survey, error) {
	conn, err := n.open(netlinkDeadline(ctx))
	if err != nil {
		return nil, err
	}
	defer conn.CloseLasting()
	t := newNFTTable(netip.PrefixFrom(netip.IPv4Unspecified(), 32))
	all := make(map[netip.Prefix]standing)
	lookup := func(ctx context.Context, what netip.Prefix) (standing, error) {
		if !what.IsSingleIP() {
			return n.standing(ctx, what)
		}
		return all[what], nil
	}
	if asleep, err := t.dormant(conn); err != nil || asleep {
		return lookup, err
	}
	if whole, err := t.whole(conn); err != nil || !whole {
		return lookup, err
	}
	for _, set := range t.sets {
		elements, err := conn.GetSetElements(set)
		if err != nil {
			return nil, fmt.Errorf("list nftables set %s: %w", set.Name, needsNetAdmin(err))
		}
		for _, e := range elements {
			addr, ok := netip.AddrFromSlice(e.Key)
			if !ok {
				continue
			}
			s := standing{e.Comment, e.Timeout, e.Expires}
			if e.Timeout == 0 { // an operator's, without end
				s.Made, s.Left = forever, forever
			}
			all[netip.PrefixFrom(addr, addr.BitLen())] = s
		}
	}
	return lookup, nil
}

func (n nft) entry(ctx context.Context, what netip.Prefix) (standing, error) {
	return newNFTTable(what).element(netlinkDeadline(ctx), what)
}

// shorten replaces or deletes the element in one transaction. An element that has just
// expired cannot be deleted, so it is added first: see put.
func (n nft) shorten(ctx context.Context, what netip.Prefix, s standing) error {
	deadline := netlinkDeadline(ctx)
	t := newNFTTable(what)
	before, err := t.element(deadline, what)
	if err != nil || before.Left <= 0 {
		return err
	}
	conn, err := n.open(deadline)
	if err != nil {
		return err
	}
	defer conn.CloseLasting()
	if s.Left > 0 {
		err = t.put(conn, what, before, s)
	} else {
		element := []nftables.SetElement{{Key: what.Addr().AsSlice()}}
		err = errors.Join(conn.SetAddElements(t.set, element), conn.SetDeleteElements(t.set, element))
	}
	if err != nil {
		return err
	}
	if err := conn.Flush(); err != nil {
		return fmt.Errorf("shorten a block in nftables set %s: %w", t.set.Name, needsNetAdmin(err))
	}
	return nil
}

// create adds what is idempotent to add, and the rules, which are not: so the chains are
// emptied first. Two replicas may do so at the same time; each transaction leaves every
// rule there once.
func (t nftTable) create(conn *nftables.Conn) error {
	conn.AddTable(t.table)
	for _, set := range t.sets {
		if err := conn.AddSet(set, nil); err != nil {
			return fmt.Errorf("nftables set %s: %w", set.Name, err)
		}
	}
	for _, chain := range t.chains {
		conn.AddChain(chain)
		conn.FlushChain(chain)
	}
	for _, r := range t.rules {
		conn.AddRule(&nftables.Rule{
			Table: t.table, Chain: r.chain,
			UserData: userdata.AppendString(nil, userdata.TypeComment, r.tag),
			Exprs:    r.expressions(),
		})
	}
	return nil
}

// put adds the element, or replaces a shorter one. Adding one that is there already
// renews its time on recent kernels only, and deleting one that has just expired fails the
// transaction: add, delete, add does the same everywhere. Where there is none yet one add
// does; after a deletion the kernel takes some 10 ms to close the socket.
func (t nftTable) put(conn *nftables.Conn, what netip.Prefix, before, s standing) error {
	set, key := t.set, what.Addr().AsSlice()
	element := []nftables.SetElement{{Key: key, Timeout: s.Left, Comment: clip(s.AlertID, maxComment)}}
	if before.Left <= 0 {
		return conn.SetAddElements(set, element)
	}
	return errors.Join(
		conn.SetAddElements(set, element),
		conn.SetDeleteElements(set, []nftables.SetElement{{Key: key}}),
		conn.SetAddElements(set, element),
	)
}

// maxComment is what fits into a comment: a length in one byte, and a closing zero. Alert
// IDs are shorter.
const maxComment = 250

// needsNetAdmin says what to do where the capability is missing; the errors of the library
// do not always tell.
func needsNetAdmin(err error) error {
	if missing, failed := Missing([]Capability{CapNetAdmin}); failed == nil && len(missing) > 0 {
		return fmt.Errorf("%w: grant %s", err, CapNetAdmin)
	}
	return err
}
