package action

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// adopt moves the claims of earlier versions, which had a target for each address and network and
// did not repeat in the claim what that was, to the targets of this one. moved says that there
// were any. A target that somebody else has in hand is left for the next time.
func adopt(host Claimed, all map[string][]Claim) (moved bool, err error) {
	var errs []error
	for target, list := range all {
		name, ok := strings.CutPrefix(target, addressTarget)
		what, err := parseNetwork(name)
		if !ok || err != nil || !slices.ContainsFunc(list, Claim.early) {
			continue
		}
		held, ok, err := host.TryHold(holdFor, target, blockTarget(what))
		if ok {
			err = adoptOn(held, target, what)
			held.Release()
			moved = true
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("claims of an earlier version on %s: %w", text(what), err))
		}
	}
	return moved, few(errs)
}

func (c Claim) early() bool { return len(c.Nets) == 0 }

func adoptOn(held Held, target string, what netip.Prefix) error {
	list, err := held.List(target)
	if err != nil {
		return err
	}
	to := blockTarget(what)
	there, err := held.List(to)
	if err != nil {
		return err
	}
	for _, c := range list {
		if !c.early() {
			continue
		}
		if same, ok := claims(there).of(c.Key); ok { // of a step that has blocked several
			c.Nets = same.Nets
		}
		c.Nets = append(slices.Clone(c.Nets), what)
		err := held.Put(to, c)
		if err == nil && to != target {
			err = held.Drop(target, c.Key)
		}
		if err != nil {
			return err
		}
	}
	return nil
}
