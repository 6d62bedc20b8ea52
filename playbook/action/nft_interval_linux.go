package action

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"time"

	"github.com/google/nftables"
)

// listSet reads a set of intervals.
func listSet(deadline time.Time, set *nftables.Set) ([]piece, error) {
	all, err := listElements(deadline, set)
	return intervals(all), err
}

// intervals joins beginnings and ends. There are ends that end nothing: nft begins with one, and
// the kernel keeps those of what has just expired. What has no end goes to the last address.
func intervals(all []element) (out []piece) {
	slices.SortFunc(all, func(a, b element) int {
		if c := a.addr.Compare(b.addr); c != 0 || a.end == b.end {
			return c
		}
		if a.end {
			return -1
		}
		return 1
	})
	open := false
	for _, e := range all {
		if open {
			out[len(out)-1].to = e.addr.Prev()
		}
		if open = !e.end; open {
			out = append(out, piece{e.addr, lastOf(netip.PrefixFrom(e.addr, 0)), e.standing})
		}
	}
	return out
}

// inside are the blocks in the set of these addresses.
func (t nftTable) inside(deadline time.Time, what netip.Prefix) (all []piece, err error) {
	if what.IsSingleIP() {
		e, ok, err := findElement(deadline, t.set, what.Addr().AsSlice(), false)
		if err != nil || !ok {
			return nil, err
		}
		return []piece{asPiece(what, e.standing)}, nil
	}
	there, err := listSet(deadline, t.set)
	for _, p := range there {
		if p, ok := p.inside(what); ok {
			all = append(all, p)
		}
	}
	return all, err
}

// around are the elements that may have to be divided when blocks of these addresses change.
// quick says that a single address with an element of its own, or none, need not have its
// neighbours joined to it: that takes no listing of the set, which may be large.
func (t nftTable) around(deadline time.Time, what netip.Prefix, quick bool) (all []piece, err error) {
	if quick && what.IsSingleIP() {
		e, ok, err := findElement(deadline, t.set, what.Addr().AsSlice(), false)
		if err != nil || !ok {
			return nil, err
		}
		alone, err := t.alone(deadline, what.Addr(), e)
		if err != nil || alone {
			return []piece{asPiece(what, e.standing)}, err
		}
	}
	there, err := listSet(deadline, t.set)
	for _, p := range there {
		if p.overlaps(coverOf(what)) {
			all = append(all, p)
		}
	}
	return all, err
}

// alone says that an element has one address only: that which comes next is where it ends.
func (t nftTable) alone(deadline time.Time, addr netip.Addr, e element) (bool, error) {
	next := addr.Next()
	if e.addr != addr || !next.IsValid() {
		return false, nil
	}
	end, ok, err := findElement(deadline, t.set, next.AsSlice(), true)
	return ok && end.addr == next, err
}

// change makes of some elements others. One that is there already may have expired by the time
// that the kernel looks, and then cannot be deleted: so each is added before that. Where none
// goes one add does; after a deletion the kernel takes some 10 ms to close the socket.
func (t nftTable) change(conn *nftables.Conn, before, after []piece) error {
	without := func(all, those []piece) []piece {
		return slices.DeleteFunc(slices.Clone(all), func(p piece) bool { return slices.Contains(those, p) })
	}
	gone, come := without(before, after), without(after, before)
	err := errors.Join(addPieces(conn, t.set, gone), deletePieces(conn, t.set, gone), addPieces(conn, t.set, come))
	if err != nil {
		return err
	}
	err = conn.Flush()
	if errors.Is(err, os.ErrExist) {
		return fmt.Errorf("nftables set %s has an element that overlaps and that Riposte does not know how to divide: look for it by nft list set inet %s %s, and delete it: %w",
			t.set.Name, t.table.Name, t.set.Name, err)
	}
	if err != nil {
		return fmt.Errorf("change nftables table inet %s (to have it made anew: nft delete table inet %s): %w", t.table.Name, t.table.Name, needsNetAdmin(err))
	}
	return nil
}

// inOneMessage is how many elements fit into a message, whose attributes have 64 KiB.
const inOneMessage = 100

func addPieces(conn *nftables.Conn, set *nftables.Set, all []piece) error {
	for some := range slices.Chunk(all, inOneMessage) {
		if err := conn.SetAddElements(set, elementsOf(some, true)); err != nil {
			return err
		}
	}
	return nil
}

func deletePieces(conn *nftables.Conn, set *nftables.Set, all []piece) error {
	for some := range slices.Chunk(all, inOneMessage) {
		if err := conn.SetDeleteElements(set, elementsOf(some, false)); err != nil {
			return err
		}
	}
	return nil
}

// elementsOf are two elements a piece, of which the second has only a key. whole is what adds
// them; a key is enough to delete them.
func elementsOf(all []piece, whole bool) (out []nftables.SetElement) {
	for _, p := range all {
		begin := nftables.SetElement{Key: p.from.AsSlice()}
		if whole {
			begin.Timeout, begin.Comment = p.timeout(), clip(p.AlertID, maxComment)
		}
		out = append(out, begin)
		if end := p.to.Next(); end.IsValid() {
			out = append(out, nftables.SetElement{Key: end.AsSlice(), IntervalEnd: true})
		}
	}
	return out
}

// timeout is how long an element is to stand; 0 is without end. What the kernel rounds to none of its
// ticks would have no end either.
func (s standing) timeout() time.Duration {
	if s.Left == forever {
		return 0
	}
	return max(s.Left, 100*time.Millisecond)
}
