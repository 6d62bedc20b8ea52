package action

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/userdata"
	"github.com/mdlayher/netlink"
)

// nft blocks by elements with a timeout in two nftables sets of intervals, over netlink. The
// kernel takes an element out when its time is over. What it makes looks like this:
//
//	table inet riposte {
//		set blocked4 { type ipv4_addr; flags interval,timeout;
//			elements = { 198.51.100.0-198.51.100.6 timeout 1h expires 59m58s comment "alert-1",
//				198.51.100.7 timeout 2h expires 1h59m59s comment "alert-2",
//				198.51.100.8-198.51.100.255 timeout 59m59s expires 59m58s comment "alert-1" } }
//		set blocked6 { type ipv6_addr; flags interval,timeout; }
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
// In a set of intervals the kernel refuses an element that overlaps another, and with it the
// whole transaction. So blocks that overlap are divided, as above where alert-1 has the /24
// blocked for an hour and alert-2 one address in it for two: each element has the addresses for
// which one alert asks longest. Whoever comes or goes has those divided anew that are in the
// same /24 or /64, in one transaction; nothing else overlaps them, see coverOf. A
// single address that nothing overlaps is looked up and added, however much there is.
type nft struct{ alertID string }

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
	there, err := t.inside(deadline, what)
	return least(there, what.Addr(), lastOf(what), n.alertID), err
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

// whole says that each chain begins with its rules, for one before them could accept what
// they drop, and that the sets take intervals.
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
	early, err := t.early(conn)
	return early == nil && err == nil, err
}

// block makes the table if it is not whole and changes the set, in one transaction: nobody
// ever sees half of it.
func (n nft) block(ctx context.Context, what netip.Prefix, asked []piece) error {
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
		if err := t.renew(conn, deadline); err != nil {
			return err
		}
		if err := t.create(conn); err != nil {
			return err
		}
	}
	before, err := t.around(deadline, what, true)
	if err != nil {
		return err
	}
	return t.change(conn, before, divide(slices.Concat(before, asked)))
}

// survey lists both sets.
func (n nft) survey(ctx context.Context) (survey, error) {
	deadline := netlinkDeadline(ctx)
	conn, err := n.open(deadline)
	if err != nil {
		return nil, err
	}
	defer conn.CloseLasting()
	t := newNFTTable(netip.PrefixFrom(netip.IPv4Unspecified(), 32))
	var all []piece
	lookup := func(_ context.Context, what netip.Prefix) (standing, error) {
		return least(all, what.Addr(), lastOf(what), n.alertID), nil
	}
	if asleep, err := t.dormant(conn); err != nil || asleep {
		return lookup, err
	}
	if whole, err := t.whole(conn); err != nil || !whole {
		return lookup, err
	}
	for _, set := range t.sets { // IPv4 is before IPv6, here and in the order of addresses
		there, err := listSet(deadline, set)
		if err != nil {
			return nil, err
		}
		all = append(all, there...)
	}
	return lookup, nil
}

func (n nft) entries(ctx context.Context, what netip.Prefix) ([]piece, error) {
	return newNFTTable(what).inside(netlinkDeadline(ctx), what)
}

func (n nft) shorten(ctx context.Context, what netip.Prefix, stay []piece) error {
	deadline := netlinkDeadline(ctx)
	conn, err := n.open(deadline)
	if err != nil {
		return err
	}
	defer conn.CloseLasting()
	t := newNFTTable(what)
	if err := t.renew(conn, deadline); err != nil {
		return err
	}
	before, err := t.around(deadline, what, len(stay) == 0)
	if err != nil || len(before) == 0 {
		return err
	}
	after := slices.Clone(stay)
	for _, p := range before {
		after = append(after, p.outside(what)...)
	}
	return t.change(conn, before, divide(after))
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
