package action

import (
	"cmp"
	"net/netip"
	"slices"
	"time"
)

// piece is a range of addresses that one block stands for, or is to stand for.
type piece struct {
	from, to netip.Addr // both are in it
	standing
}

func asPiece(what netip.Prefix, s standing) piece { return piece{what.Addr(), lastOf(what), s} }

// String writes a range for people.
func (p piece) String() string {
	if p.from == p.to {
		return p.from.String()
	}
	return p.from.String() + "-" + p.to.String()
}

// lastOf is the last address of a network.
func lastOf(what netip.Prefix) netip.Addr {
	b := what.Addr().AsSlice()
	for i := what.Bits(); i < 8*len(b); i++ {
		b[i/8] |= 0x80 >> (i % 8)
	}
	last, _ := netip.AddrFromSlice(b)
	return last
}

// overlaps says that a network has addresses of the piece in it.
func (p piece) overlaps(what netip.Prefix) bool {
	return p.from.Compare(lastOf(what)) <= 0 && p.to.Compare(what.Addr()) >= 0
}

// inside is what of a piece is in a network.
func (p piece) inside(what netip.Prefix) (piece, bool) {
	if !p.overlaps(what) {
		return piece{}, false
	}
	if p.from.Less(what.Addr()) {
		p.from = what.Addr()
	}
	if last := lastOf(what); last.Less(p.to) {
		p.to = last
	}
	return p, true
}

// outside is what of a piece is not in a network: one before it, one behind it, or none.
func (p piece) outside(what netip.Prefix) (all []piece) {
	if !p.overlaps(what) {
		return []piece{p}
	}
	if p.from.Less(what.Addr()) {
		all = append(all, piece{p.from, what.Addr().Prev(), p.standing})
	}
	if last := lastOf(what); last.Less(p.to) {
		all = append(all, piece{last.Next(), p.to, p.standing})
	}
	return all
}

// joins says that two neighbours may be parts of one, looking at them whole as they were asked for.
// Two single addresses have been blocked as such, and an operator's elements, which are for no
// alert, stay as they are.
func (p piece) joins(next piece) bool {
	return p.AlertID != "" && p.AlertID == next.AlertID && (p.from != p.to || next.from != next.to)
}

// divide makes of pieces that may overlap such as do not, in the order of their addresses:
// each address goes to the piece that stands longest for it. Neighbours that join become one, if
// they end at about the same time: that is what is left when somebody else's piece between
// them has gone.
func divide(all []piece) (out []piece) {
	var starts []netip.Addr
	for _, p := range all {
		starts = append(starts, p.from)
		if next := p.to.Next(); next.IsValid() { // the very last address has none
			starts = append(starts, next)
		}
	}
	slices.SortFunc(starts, netip.Addr.Compare)
	starts = slices.Compact(starts)
	coming := slices.SortedStableFunc(slices.Values(all), func(a, b piece) int { return a.from.Compare(b.from) })
	var here []*piece       // those that have the address in them
	var last *piece         // of which the end of out was made
	var first time.Duration // time left of the first of the neighbours that are one
	for i, from := range starts {
		for len(coming) > 0 && coming[0].from == from {
			here, coming = append(here, &coming[0]), coming[1:]
		}
		here = slices.DeleteFunc(here, func(p *piece) bool { return p.to.Less(from) })
		if len(here) == 0 {
			continue
		}
		best := slices.MaxFunc(here, func(a, b *piece) int { return cmp.Compare(a.Left, b.Left) })
		next := piece{from, best.to, best.standing}
		if i+1 < len(starts) && starts[i+1].Compare(best.to) <= 0 {
			next.to = starts[i+1].Prev()
		}
		if n := len(out) - 1; n >= 0 && out[n].to.Next() == from && (best == last || (out[n].joins(*best) || last.joins(*best)) && (next.Left-first).Abs() <= leeway) {
			out[n].to = next.to
			if out[n].Left < next.Left {
				out[n].standing = next.standing
			}
		} else {
			out, first = append(out, next), next.Left
		}
		last = best
	}
	return out
}

// least is what stands on every address of a range: as long as the shortest of its pieces,
// which do not overlap and are in order, or not at all where one address has none. It bears the
// name of the shortest, or of an alert in particular where that has any of them.
func least(all []piece, from, to netip.Addr, alertID string) (s standing) {
	var own *piece
	i, _ := slices.BinarySearchFunc(all, from, func(p piece, a netip.Addr) int { return p.to.Compare(a) })
	for ; i < len(all) && all[i].from.Compare(from) <= 0; i++ {
		p := &all[i]
		if s.Left == 0 || p.Left < s.Left {
			s = p.standing
		}
		if p.AlertID == alertID {
			own = p
		}
		if p.to.Less(to) {
			from = p.to.Next()
			continue
		}
		if own != nil {
			s.AlertID, s.Made = own.AlertID, own.Made
		}
		return s
	}
	return standing{}
}
