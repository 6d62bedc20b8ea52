package action

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"time"
)

// Lifted is a block that was taken away.
type Lifted struct {
	Address string   // or network, as it was blocked
	Alerts  []string // that had asked for it
	Reason  string   // why it must not be blocked, in the words of the guard
	Left    string   // what the firewall was seen to have of it afterwards
}

// LiftProtected takes away the blocks of what the guard protects by now, because it was
// allow-listed meanwhile, say, or is the gateway since today: from the firewall, and then the
// claims, so that nobody puts them back. Blocks that Riposte has not made stay, and so do all of
// which the guard cannot tell. A target that somebody else has in hand is left for the next time.
// Of env it needs Guard.
func LiftProtected(ctx context.Context, host Claimed, env Env) (all []Lifted, err error) {
	claimed, err := host.Claimed()
	errs := []error{err}
	for _, target := range slices.Sorted(maps.Keys(claimed)) {
		if ctx.Err() != nil {
			errs = append(errs, context.Cause(ctx))
			break
		}
		if _, ok := blockedBy(target); !ok {
			continue
		}
		for _, what := range claims(claimed[target]).nets() {
			var r *Refusal
			if !errors.As(guarded(env.Guard, what), &r) || r.Unread {
				continue
			}
			l, err := lift(ctx, host, what, claimed[target])
			if err != nil {
				errs = append(errs, fmt.Errorf("block of %s, which is protected by now (%s): %w", text(what), r.Reason, err))
			} else if l.Address != "" {
				l.Reason = r.Reason
				all = append(all, l)
			}
		}
	}
	return all, few(errs)
}

// lift takes away all that Riposte has blocked of an address. It returns the zero value where
// there is nothing by now, or somebody else has it in hand.
func lift(ctx context.Context, host Claimed, what netip.Prefix, list claims) (Lifted, error) {
	target := blockTarget(what)
	targets := []string{target}
	if slices.Contains(list.backends(), IPTables) {
		targets = append(targets, firewallTarget)
	}
	held, ok, err := host.TryHold(holdFor, targets...)
	if !ok {
		return Lifted{}, err
	}
	defer held.Release()
	ctx, cancel := context.WithTimeout(ctx, holdFor)
	defer cancel()
	if list, err = held.List(target); err != nil {
		return Lifted{}, err
	}
	if list = list.on(what); len(list) == 0 {
		return Lifted{}, nil
	}
	if slices.Contains(list.backends(), IPTables) && len(targets) == 1 {
		return Lifted{}, nil // it came meanwhile
	}
	l := Lifted{Address: text(what)}
	for _, c := range list {
		if c.Left(time.Now()) > 0 && !slices.Contains(l.Alerts, c.AlertID) {
			l.Alerts = append(l.Alerts, c.AlertID)
		}
	}
	// In netsh each alert has rules of its own.
	for _, c := range list {
		u := &UnblockIP{Address: text(what), Backend: c.Backend, Undo: c.Backend == Netsh, TTL: c.Made}
		env := Env{Claims: held, Locks: held.Locks(), AlertID: c.AlertID, Undoes: c.Key}
		r, err := u.release(ctx, env, []netip.Prefix{what})
		if err != nil {
			return Lifted{}, err
		}
		if l.Left = r.Reason; !u.Undo {
			break // that were all of them
		}
	}
	if len(l.Alerts) == 0 { // their time was over
		return Lifted{}, nil
	}
	return l, nil
}
