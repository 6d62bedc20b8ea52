package action

import (
	"fmt"
	"net"
	"net/netip"

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
	mask   []byte // what of the address is looked up, as long as it is
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

// newNFTTable describes what a block of these addresses needs: for single addresses of both
// families two sets and two chains in common, for a network a set and two chains of its
// length and family. What belongs to one length is made and repaired without touching the
// rest, so that replicas that block networks of several lengths at once do not undo each
// other's rules.
func newNFTTable(what netip.Prefix) nftTable {
	t := nftTable{table: &nftables.Table{Name: "riposte", Family: nftables.TableFamilyINet}}
	suffix := ""
	if !what.IsSingleIP() {
		suffix = fmt.Sprintf("net%d", what.Bits())
	}
	accept := nftables.ChainPolicyAccept
	chain := func(name string, hook *nftables.ChainHook) *nftables.Chain {
		c := &nftables.Chain{Table: t.table, Name: name, Type: nftables.ChainTypeFilter,
			Hooknum: hook, Priority: nftables.ChainPriorityRef(*nftables.ChainPriorityFilter - 10), Policy: &accept}
		t.chains = append(t.chains, c)
		return c
	}
	var input, output *nftables.Chain
	for i, f := range nftFamilies {
		its := what.Addr().Is4() == (f.bits == 32)
		if suffix != "" && !its {
			continue
		}
		if suffix != "" {
			input, output = chain("input"+f.name+suffix, nftables.ChainHookInput), chain("output"+f.name+suffix, nftables.ChainHookOutput)
		} else if input == nil {
			input, output = chain("input", nftables.ChainHookInput), chain("output", nftables.ChainHookOutput)
		}
		// The ID is of the transaction; left at 0, the library takes one from a global counter
		// that it does not lock.
		set := &nftables.Set{Table: t.table, ID: uint32(i + 1), Name: "blocked" + f.name + suffix, KeyType: f.key,
			HasTimeout: true, KeyByteOrder: binaryutil.BigEndian}
		t.sets = append(t.sets, set)
		if its {
			t.set = set
		}
		mask := net.CIDRMask(f.bits, f.bits)
		if suffix != "" {
			mask = net.CIDRMask(what.Bits(), f.bits)
		}
		t.rules = append(t.rules,
			nftRule{"riposte:in" + f.name + suffix, input, set, f.number, f.from, mask},
			nftRule{"riposte:out" + f.name + suffix, output, set, f.number, f.to, mask})
	}
	return t
}

func (r nftRule) expressions() []expr.Any {
	size := uint32(len(r.mask))
	all := []expr.Any{
		&expr.Meta{Key: expr.MetaKeyNFPROTO, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{r.family}},
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: r.offset, Len: size},
	}
	if ones, bits := net.IPMask(r.mask).Size(); ones < bits {
		all = append(all, &expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: size, Mask: r.mask, Xor: make([]byte, size)})
	}
	return append(all,
		&expr.Lookup{SourceRegister: 1, SetName: r.set.Name, SetID: r.set.ID},
		&expr.Verdict{Kind: expr.VerdictDrop})
}
