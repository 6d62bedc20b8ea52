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
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"github.com/google/nftables/userdata"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
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
type nft struct{}

// netlinkWait bounds one conversation with the kernel, which normally takes far less than
// a millisecond.
const netlinkWait = 5 * time.Second

// nftRules are the rules, known by their tags. offset and size say where in the network
// header the address is.
var nftRules = []struct {
	tag, chain, set string
	family          byte
	offset, size    uint32
}{
	{"riposte:in4", "input", "blocked4", unix.NFPROTO_IPV4, 12, 4},
	{"riposte:in6", "input", "blocked6", unix.NFPROTO_IPV6, 8, 16},
	{"riposte:out4", "output", "blocked4", unix.NFPROTO_IPV4, 16, 4},
	{"riposte:out6", "output", "blocked6", unix.NFPROTO_IPV6, 24, 16},
}

// nftTable is the table and what hangs on it, as the library wants to see it.
type nftTable struct {
	table              *nftables.Table
	blocked4, blocked6 *nftables.Set
	input, output      *nftables.Chain
}

func newNFTTable() nftTable {
	t := nftTable{table: &nftables.Table{Name: "riposte", Family: nftables.TableFamilyINet}}
	// The ID is of the transaction; left at 0, the library takes one from a global counter
	// that it does not lock.
	set := func(id uint32, name string, key nftables.SetDatatype) *nftables.Set {
		return &nftables.Set{Table: t.table, ID: id, Name: name, KeyType: key, HasTimeout: true, KeyByteOrder: binaryutil.BigEndian}
	}
	t.blocked4, t.blocked6 = set(1, "blocked4", nftables.TypeIPAddr), set(2, "blocked6", nftables.TypeIP6Addr)
	accept := nftables.ChainPolicyAccept
	chain := func(name string, hook *nftables.ChainHook) *nftables.Chain {
		return &nftables.Chain{Table: t.table, Name: name, Type: nftables.ChainTypeFilter,
			Hooknum: hook, Priority: nftables.ChainPriorityRef(*nftables.ChainPriorityFilter - 10), Policy: &accept}
	}
	t.input, t.output = chain("input", nftables.ChainHookInput), chain("output", nftables.ChainHookOutput)
	return t
}

func (t nftTable) setOf(what netip.Prefix) *nftables.Set {
	if what.Addr().Is4() {
		return t.blocked4
	}
	return t.blocked6
}

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
	t := newNFTTable()
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
	s, err := readElement(deadline, t.setOf(what), what.Addr())
	if err != nil {
		return s, fmt.Errorf("read nftables set %s: %w", t.setOf(what).Name, needsNetAdmin(err))
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
	for _, chain := range []*nftables.Chain{t.input, t.output} {
		rules, err := conn.GetRules(t.table, chain)
		if err != nil {
			return false, fmt.Errorf("list nftables chain %s: %w", chain.Name, needsNetAdmin(err))
		}
		for _, want := range nftRules {
			if want.chain != chain.Name {
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
	t := newNFTTable()
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

// survey lists the sets.
func (n nft) survey(ctx context.Context) (survey, error) {
	conn, err := n.open(netlinkDeadline(ctx))
	if err != nil {
		return nil, err
	}
	defer conn.CloseLasting()
	t := newNFTTable()
	all := make(map[netip.Prefix]standing)
	lookup := func(_ context.Context, what netip.Prefix) (standing, error) { return all[what], nil }
	if asleep, err := t.dormant(conn); err != nil || asleep {
		return lookup, err
	}
	if whole, err := t.whole(conn); err != nil || !whole {
		return lookup, err
	}
	for _, set := range []*nftables.Set{t.blocked4, t.blocked6} {
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
	return newNFTTable().element(netlinkDeadline(ctx), what)
}

// shorten replaces or deletes the element in one transaction. An element that has just
// expired cannot be deleted, so it is added first: see put.
func (n nft) shorten(ctx context.Context, what netip.Prefix, s standing) error {
	deadline := netlinkDeadline(ctx)
	t := newNFTTable()
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
		err = errors.Join(conn.SetAddElements(t.setOf(what), element), conn.SetDeleteElements(t.setOf(what), element))
	}
	if err != nil {
		return err
	}
	if err := conn.Flush(); err != nil {
		return fmt.Errorf("shorten a block in nftables set %s: %w", t.setOf(what).Name, needsNetAdmin(err))
	}
	return nil
}

// create adds what is idempotent to add, and the rules, which are not: so the chains are
// emptied first. Two replicas may do so at the same time; each transaction leaves every
// rule there once.
func (t nftTable) create(conn *nftables.Conn) error {
	conn.AddTable(t.table)
	for _, set := range []*nftables.Set{t.blocked4, t.blocked6} {
		if err := conn.AddSet(set, nil); err != nil {
			return fmt.Errorf("nftables set %s: %w", set.Name, err)
		}
	}
	chains := map[string]*nftables.Chain{"input": t.input, "output": t.output}
	for _, name := range []string{"input", "output"} {
		conn.AddChain(chains[name])
		conn.FlushChain(chains[name])
	}
	sets := map[string]*nftables.Set{"blocked4": t.blocked4, "blocked6": t.blocked6}
	for _, r := range nftRules {
		conn.AddRule(&nftables.Rule{
			Table: t.table, Chain: chains[r.chain],
			UserData: userdata.AppendString(nil, userdata.TypeComment, r.tag),
			Exprs: []expr.Any{
				&expr.Meta{Key: expr.MetaKeyNFPROTO, Register: 1},
				&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{r.family}},
				&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: r.offset, Len: r.size},
				&expr.Lookup{SourceRegister: 1, SetName: r.set, SetID: sets[r.set].ID},
				&expr.Verdict{Kind: expr.VerdictDrop},
			},
		})
	}
	return nil
}

// put adds the element, or replaces a shorter one. Adding one that is there already
// renews its time on recent kernels only, and deleting one that has just expired fails the
// transaction: add, delete, add does the same everywhere. Where there is none yet one add
// does; after a deletion the kernel takes some 10 ms to close the socket.
func (t nftTable) put(conn *nftables.Conn, what netip.Prefix, before, s standing) error {
	set, key := t.setOf(what), what.Addr().AsSlice()
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
