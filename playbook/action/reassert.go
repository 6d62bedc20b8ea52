package action

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// Claimed is what is known of all claims of a host.
type Claimed interface {
	// Claimed returns the claims on each target, as they stand now: without a lock.
	Claimed() (map[string][]Claim, error)
	// TryHold locks targets, without waiting, for at most so long. ok is false where somebody
	// else has one of them.
	TryHold(within time.Duration, targets ...string) (held Held, ok bool, err error)
}

// holdFor is how long one target is held at most.
const holdFor = 10 * time.Second

// survey says what stands in a firewall, for one look at much of it.
type survey func(ctx context.Context, what netip.Prefix) (standing, error)

// Reassert puts back what claims ask for and the firewall lacks, after a reboot say or when
// somebody has flushed it, with the time that they have left; and forgets claims whose time is
// over. A target that somebody else has in hand is left for the next time. What the guard
// protects by now is not put back, which is an error. restored is how many blocks were put
// back. Several may do so at once.
func Reassert(ctx context.Context, host Claimed, guard Guard) (restored int, err error) {
	all, err := host.Claimed()
	errs := []error{err}
	surveys := make(map[string]survey)
	for _, target := range slices.Sorted(maps.Keys(all)) {
		what, ok := blockedBy(target)
		if !ok { // not a claim of block_ip
			continue
		}
		if ctx.Err() != nil {
			errs = append(errs, context.Cause(ctx))
			break
		}
		n, err := reassert(ctx, host, guard, surveys, what, all[target])
		restored += n
		if err != nil {
			errs = append(errs, fmt.Errorf("block of %s: %w", text(what), err))
		}
	}
	return restored, few(errs)
}

// few keeps the first errors: of a thousand blocks all fail alike.
func few(errs []error) error {
	const most = 5
	errs = slices.DeleteFunc(errs, func(err error) bool { return err == nil })
	if n := len(errs) - most; n > 0 {
		errs = append(errs[:most], fmt.Errorf("and %d more", n))
	}
	return errors.Join(errs...)
}

func reassert(ctx context.Context, host Claimed, guard Guard, surveys map[string]survey, what netip.Prefix, list claims) (restored int, err error) {
	now := time.Now()
	amiss := slices.ContainsFunc(list, func(c Claim) bool { return c.Left(now) <= 0 })
	targets := []string{blockTarget(what)}
	for _, backend := range list.backends() {
		if surveys[backend] == nil {
			fw, err := newFirewall(backend, Env{})
			if err != nil {
				return 0, err
			}
			if surveys[backend], err = fw.survey(ctx); err != nil {
				return 0, fmt.Errorf("look at what %s blocks: %w", backend, err)
			}
		}
		s, err := surveys[backend](ctx, what)
		if err != nil {
			return 0, err
		}
		if c, ok := list.longest(backend, now); ok && !s.covers(c, now) {
			amiss = true
		}
		if backend == IPTables {
			targets = append(targets, firewallTarget)
		}
	}
	if !amiss {
		return 0, nil
	}
	held, ok, err := host.TryHold(holdFor, targets...)
	if !ok {
		return 0, err
	}
	defer held.Release()
	ctx, cancel := context.WithTimeout(ctx, holdFor)
	defer cancel()
	// What was seen without the lock was a hint.
	if list, err = held.List(blockTarget(what)); err != nil {
		return 0, err
	}
	var over []string
	for _, c := range list {
		if c.Left(time.Now()) <= 0 {
			over = append(over, c.Key)
		}
	}
	errs := []error{held.Drop(blockTarget(what), over...)}
	for _, backend := range list.backends() {
		if backend == IPTables && !slices.Contains(targets, firewallTarget) {
			continue // it came meanwhile, with a block of its own
		}
		again, err := putBack(ctx, held, guard, backend, what, list)
		errs = append(errs, err)
		if again {
			restored++
		}
	}
	return restored, errors.Join(errs...)
}

// putBack makes the firewall stand for the longest claim, where it does not.
func putBack(ctx context.Context, held Held, guard Guard, backend string, what netip.Prefix, list claims) (bool, error) {
	c, ok := list.longest(backend, time.Now())
	if !ok {
		return false, nil
	}
	fw, err := newFirewall(backend, Env{Locks: held.Locks(), AlertID: c.AlertID})
	if err != nil {
		return false, err
	}
	s, err := fw.standing(ctx, what)
	if err != nil || s.covers(c, time.Now()) {
		return false, err
	}
	if err := guarded(guard, what); err != nil {
		return false, fmt.Errorf("not put back: %w", err)
	}
	if err := fw.block(ctx, what, c.standing(time.Now())); err != nil {
		return false, err
	}
	if s, err = fw.standing(ctx, what); err != nil {
		return false, err
	}
	if !s.covers(c, time.Now()) {
		return false, fmt.Errorf("not observed in %s after it was put back; does something else rewrite the firewall?", backend)
	}
	return true, nil
}

// backends are the firewalls that claims ask for something that can be put back. What netsh
// blocks stays by itself.
func (list claims) backends() (all []string) {
	for _, c := range list {
		if c.Backend != Netsh && !slices.Contains(all, c.Backend) {
			all = append(all, c.Backend)
		}
	}
	return all
}

// blockedBy reads back what blockTarget writes.
func blockedBy(target string) (netip.Prefix, bool) {
	name, ok := strings.CutPrefix(target, addressTarget)
	if !ok {
		return netip.Prefix{}, false
	}
	what, err := parseNetwork(name)
	return what, err == nil
}
