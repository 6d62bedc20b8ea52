package action

import (
	"cmp"
	"encoding/json"
	"net/netip"
	"os"
	"slices"
	"time"
)

// Claim is what one step asks of a target, until a time. The effect in place on a target is
// the union of its claims, so that to take one back leaves what the others ask.
type Claim struct {
	Key     string    `json:"key"` // the step's, see stream.StepKey
	AlertID string    `json:"alert"`
	Backend string    `json:"backend"` // what carries it out, e.g. nftables
	Made    Duration  `json:"made"`    // how long it was made for
	Until   time.Time `json:"until"`   // by this host's clock, which goes on over a reboot
	// Begun says that its effect has not been seen in place. Such a claim is its own step's
	// business: nothing is put back for it, because its step may have ended otherwise.
	Begun bool `json:"begun,omitempty"`
	// Nets are the addresses and networks that it asks to block, all of the target's.
	Nets []netip.Prefix `json:"nets,omitempty"`
	// Detail is what else the action must know to bring the effect about again.
	Detail json.RawMessage `json:"detail,omitempty"`
}

// Left is how long the claim still stands: never longer than it was made for, whatever the
// clock says by now.
func (c Claim) Left(now time.Time) time.Duration {
	return max(0, min(c.Until.Sub(now), time.Duration(c.Made)))
}

// Claims are the claims on the targets of a step. They may be read and written only while
// the step is inside the gate, which holds the locks of its targets. What was written
// outlives this process, and what is not Begun a power cut as well.
type Claims interface {
	// List returns the claims on a target, also those whose time is over, in the order of
	// their keys.
	List(target string) ([]Claim, error)
	// Put writes a claim down in the place of the one with its key, if there is one.
	Put(target string, c Claim) error
	// Drop removes the claims with these keys. One that is not there is no error.
	Drop(target string, keys ...string) error
}

// Held are the claims on targets that are locked outside of any step.
type Held interface {
	Claims
	Locks() []*os.File // see Env.Locks
	Release()
}

// claims are those of one target as they were when they were read.
type claims []Claim

// claimsOn reads the claims on a target. Where none are kept there are none.
func (e Env) claimsOn(target string) (claims, error) {
	if e.Claims == nil {
		return nil, nil
	}
	return e.Claims.List(target)
}

func (e Env) claim(target string, c Claim) error {
	if e.Claims == nil {
		return nil
	}
	return e.Claims.Put(target, c)
}

func (list claims) of(key string) (Claim, bool) {
	i := slices.IndexFunc(list, func(c Claim) bool { return c.Key == key })
	if i < 0 {
		return Claim{}, false
	}
	return list[i], true
}

// without leaves out those with one of these keys.
func (list claims) without(keys ...string) claims {
	return slices.DeleteFunc(slices.Clone(list), func(c Claim) bool { return slices.Contains(keys, c.Key) })
}

// longest is the one that stands longest among those of a backend that count.
func (list claims) longest(backend string, now time.Time) (best Claim, ok bool) {
	for _, c := range list {
		if left := c.Left(now); !c.Begun && c.Backend == backend && left > best.Left(now) {
			best, ok = c, true
		}
	}
	return best, ok
}

// asks says that the claim is one on this address or network, and not on another that has it in it.
func (c Claim) asks(what netip.Prefix) bool { return slices.Contains(c.Nets, what) }

// on are those on an address or network itself.
func (list claims) on(what netip.Prefix) claims {
	return slices.DeleteFunc(slices.Clone(list), func(c Claim) bool { return !c.asks(what) })
}

// nets are the addresses and networks that are claimed, a network before those in it.
func (list claims) nets() (all []netip.Prefix) {
	for _, c := range list {
		all = append(all, c.Nets...)
	}
	slices.SortFunc(all, func(a, b netip.Prefix) int {
		return cmp.Or(a.Addr().Compare(b.Addr()), cmp.Compare(a.Bits(), b.Bits()))
	})
	return slices.Compact(all)
}

// asked are the blocks that claims which count ask of a backend in a network. nftables has one
// block for each address; elsewhere every network has its own, whatever others have its
// addresses in them.
func (list claims) asked(backend string, what netip.Prefix, now time.Time) (all []piece) {
	for _, c := range list {
		if c.Begun || c.Backend != backend || c.Left(now) <= 0 {
			continue
		}
		for _, net := range c.Nets {
			if net == what {
				all = append(all, asPiece(what, c.standing(now)))
			} else if p, ok := asPiece(net, c.standing(now)).inside(what); ok && backend == NFTables {
				all = append(all, p)
			}
		}
	}
	return all
}
