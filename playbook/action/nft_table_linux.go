package action

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// nftTable is the part of the table that one block needs, as the library wants to see it.
type nftTable struct {
	table  *nftables.Table
	sets   []*nftables.Set
	chains []*nftables.Chain
	rules  []nftRule
	set    *nftables.Set // of sets, where the block is to stand
}

// nftRule is a rule that drops what is in a set, known by its tag.
type nftRule struct {
	tag    string
	chain  *nftables.Chain
	set    *nftables.Set
	family byte
	offset uint32 // of the address in the network header
	size   uint32 // of the address
}

// nftFamilies says of IPv4 and IPv6 where their source and destination are.
var nftFamilies = []struct {
	name     string
	number   byte
	key      nftables.SetDatatype
	bits     int
	from, to uint32
}{
	{"4", unix.NFPROTO_IPV4, nftables.TypeIPAddr, 32, 12, 16},
	{"6", unix.NFPROTO_IPV6, nftables.TypeIP6Addr, 128, 8, 24},
}

// newNFTTable describes the table, for a block of addresses of one of both families.
func newNFTTable(what netip.Prefix) nftTable {
	t := nftTable{table: &nftables.Table{Name: "riposte", Family: nftables.TableFamilyINet}}
	accept := nftables.ChainPolicyAccept
	for i, hook := range []*nftables.ChainHook{nftables.ChainHookInput, nftables.ChainHookOutput} {
		t.chains = append(t.chains, &nftables.Chain{Table: t.table, Name: []string{"input", "output"}[i], Type: nftables.ChainTypeFilter,
			Hooknum: hook, Priority: nftables.ChainPriorityRef(*nftables.ChainPriorityFilter - 10), Policy: &accept})
	}
	for i, f := range nftFamilies {
		// The ID is of the transaction; left at 0, the library takes one from a global counter
		// that it does not lock.
		set := &nftables.Set{Table: t.table, ID: uint32(i + 1), Name: "blocked" + f.name, KeyType: f.key,
			Interval: true, HasTimeout: true, KeyByteOrder: binaryutil.BigEndian}
		t.sets = append(t.sets, set)
		if what.Addr().Is4() == (f.bits == 32) {
			t.set = set
		}
		t.rules = append(t.rules,
			nftRule{"riposte:in" + f.name, t.chains[0], set, f.number, f.from, uint32(f.bits / 8)},
			nftRule{"riposte:out" + f.name, t.chains[1], set, f.number, f.to, uint32(f.bits / 8)})
	}
	return t
}

func (r nftRule) expressions() []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyNFPROTO, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{r.family}},
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: r.offset, Len: r.size},
		&expr.Lookup{SourceRegister: 1, SetName: r.set.Name, SetID: r.set.ID},
		&expr.Verdict{Kind: expr.VerdictDrop},
	}
}

// early is a set of the table that takes no intervals, because an earlier version has made it,
// or nil.
func (t nftTable) early(conn *nftables.Conn) (*nftables.Set, error) {
	for _, want := range t.sets {
		set, err := conn.GetSetByName(t.table, want.Name)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("read nftables set %s: %w", want.Name, needsNetAdmin(err))
		}
		if !set.Interval {
			early := *want
			early.Interval = false
			return &early, nil
		}
	}
	return nil, nil
}

// renew makes a table of an earlier version anew, with what is blocked in it, in one
// transaction. That had sets of single addresses, and for networks one more set a length, such as
// blocked4net24.
func (t nftTable) renew(conn *nftables.Conn, deadline time.Time) error {
	early, err := t.early(conn)
	if err != nil || early == nil {
		return err
	}
	sets, err := conn.GetSets(t.table)
	if err != nil {
		return fmt.Errorf("list the sets of nftables table inet %s: %w", t.table.Name, needsNetAdmin(err))
	}
	blocked := make([][]piece, len(t.sets))
	for _, set := range sets {
		for i, f := range nftFamilies {
			name, ok := strings.CutPrefix(set.Name, t.sets[i].Name)
			if !ok {
				continue
			}
			bits, single := f.bits, name == ""
			if _, err := fmt.Sscanf(name, "net%d", &bits); err != nil && !single || bits > f.bits {
				continue // an operator's own
			}
			elements, err := listElements(deadline, set)
			if err != nil {
				return err
			}
			for _, e := range elements {
				if what, err := e.addr.Prefix(bits); err == nil {
					blocked[i] = append(blocked[i], asPiece(what, e.standing))
				}
			}
		}
	}
	// Of two who are about to do so, the second must not undo what the first, or anybody since,
	// has done: the kernel refuses a set that is there with other flags.
	if err := conn.AddSet(early, nil); err != nil {
		return err
	}
	conn.DelTable(t.table)
	if err := t.create(conn); err != nil {
		return err
	}
	for i, set := range t.sets {
		if err := addPieces(conn, set, divide(blocked[i])); err != nil {
			return err
		}
	}
	if err := conn.Flush(); err != nil && !errors.Is(err, os.ErrExist) {
		return fmt.Errorf("make nftables table inet %s of an earlier version anew (by hand: nft delete table inet %s): %w", t.table.Name, t.table.Name, needsNetAdmin(err))
	}
	return nil
}
