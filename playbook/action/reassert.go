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

// Reassert puts back the blocks and the isolation that claims ask for and the firewall lacks, after a reboot say or when
// somebody has flushed it, with the time that they have left; and forgets claims whose time is
// over, once Env.Lapsed has told of them, and those on processes that have gone: a suspension is
// not put back. A target that somebody else has in hand is left for the next time. What the guard
// protects by now is not put back, which is an error. restored is how many were put back.
// Several may do so at once. Of env it needs Guard and, for an isolation, Reach.
func Reassert(ctx context.Context, host Claimed, env Env) (restored int, err error) {
	all, err := host.Claimed()
	moved, failed := adopt(host, all)
	if moved {
		all, err = host.Claimed()
	}
	errs := []error{err, failed}
	surveys := make(map[string]survey)
	for _, target := range slices.Sorted(maps.Keys(all)) {
		if ctx.Err() != nil {
			errs = append(errs, context.Cause(ctx))
			break
		}
		if target == isolationTarget {
			again, err := isolateAgain(ctx, host, env, all[target])
			if again {
				restored++
			}
			if err != nil {
				errs = append(errs, fmt.Errorf("isolation of this host: %w", err))
			}
			continue
		}
		if strings.HasPrefix(target, processTarget) { // who was resumed by hand stays so
			if err := forgetProcess(host, target, all[target]); err != nil {
				errs = append(errs, fmt.Errorf("claims on a process, %s: %w", target, err))
			}
			continue
		}
		if _, ok := blockedBy(target); !ok { // not a claim on a firewall
			continue
		}
		n, failed := reassert(ctx, host, env, surveys, target, all[target])
		restored += n
		errs = append(errs, failed...)
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

func reassert(ctx context.Context, host Claimed, env Env, surveys map[string]survey, target string, list claims) (restored int, errs []error) {
	now := time.Now()
	amiss := slices.ContainsFunc(list, func(c Claim) bool { return c.Left(now) <= 0 })
	targets := []string{target}
	for _, backend := range list.backends() {
		if surveys[backend] == nil {
			fw, err := newFirewall(backend, Env{})
			if err != nil {
				return 0, []error{err}
			}
			if surveys[backend], err = fw.survey(ctx); err != nil {
				return 0, []error{fmt.Errorf("look at what %s blocks: %w", backend, err)}
			}
		}
		missing, err := list.missing(ctx, surveys[backend], backend)
		if err != nil {
			return 0, []error{err}
		}
		amiss = amiss || len(missing) > 0
		if backend == IPTables {
			targets = append(targets, firewallTarget)
		}
	}
	if !amiss {
		return 0, nil
	}
	held, ok, err := host.TryHold(holdFor, targets...)
	if err != nil {
		return 0, []error{err}
	}
	if !ok {
		return 0, nil
	}
	defer held.Release()
	ctx, cancel := context.WithTimeout(ctx, holdFor)
	defer cancel()
	// What was seen without the lock was a hint.
	if list, err = held.List(target); err != nil {
		return 0, []error{err}
	}
	over, err := env.over(ctx, list)
	errs = append(errs, err, held.Drop(target, over...))
	for _, backend := range list.backends() {
		if backend == IPTables && !slices.Contains(targets, firewallTarget) {
			continue // it came meanwhile, with a block of its own
		}
		n, failed := putBack(ctx, held, env.Guard, backend, list)
		errs = append(errs, failed...)
		restored += n
	}
	return restored, errs
}

// missing are the claims of a backend, the longest of each address or network, for which not
// enough stands.
func (list claims) missing(ctx context.Context, look survey, backend string) (all []Claim, err error) {
	for _, what := range list.nets() {
		c, ok := list.on(what).longest(backend, time.Now())
		if !ok {
			continue
		}
		s, err := look(ctx, what)
		if err != nil {
			return nil, err
		}
		if !s.covers(c, time.Now()) {
			c.Nets = []netip.Prefix{what}
			all = append(all, c)
		}
	}
	return all, nil
}

// over are the keys of the claims whose time is over. One of which nobody could be told is kept
// for the next time: it asks for nothing any more.
func (e Env) over(ctx context.Context, list claims) (keys []string, err error) {
	var errs []error
	for _, c := range list {
		if c.Left(time.Now()) > 0 {
			continue
		}
		told := true
		if e.Lapsed != nil && !c.Begun {
			told, err = e.Lapsed(ctx, c)
			errs = append(errs, err)
		}
		if told {
			keys = append(keys, c.Key)
		}
	}
	return keys, errors.Join(errs...)
}

// putBack makes the firewall stand for the claims, where it does not.
func putBack(ctx context.Context, held Held, guard Guard, backend string, list claims) (restored int, errs []error) {
	fw, err := newFirewall(backend, Env{Locks: held.Locks()})
	if err != nil {
		return 0, []error{err}
	}
	missing, err := list.missing(ctx, fw.standing, backend)
	if err != nil {
		return 0, []error{err}
	}
	for _, c := range missing {
		what := c.Nets[0]
		if err := again(ctx, fw, guard, backend, what, c, list); err != nil {
			errs = append(errs, fmt.Errorf("block of %s: %w", text(what), err))
		} else {
			restored++
		}
	}
	return restored, errs
}

// again makes a block that is missing.
func again(ctx context.Context, fw firewall, guard Guard, backend string, what netip.Prefix, c Claim, list claims) error {
	if err := guarded(guard, what); err != nil {
		return fmt.Errorf("not put back: %w", err)
	}
	if err := fw.block(ctx, what, list.asked(backend, what, time.Now())); err != nil {
		return err
	}
	s, err := fw.standing(ctx, what)
	if err != nil {
		return err
	}
	if !s.covers(c, time.Now()) {
		return fmt.Errorf("not observed in %s after it was put back; does something else rewrite the firewall?", backend)
	}
	return nil
}

// isolateAgain isolates the host as the claims on that ask, if it is not, and also if whom it
// must talk to has another address by now.
func isolateAgain(ctx context.Context, host Claimed, env Env, list claims) (bool, error) {
	wall, err := newIsolator()
	if err != nil {
		return false, err
	}
	as, err := isolatedAs(ctx, env, wall, list)
	if err != nil {
		return false, err
	}
	over := func(c Claim) bool { return c.Left(time.Now()) <= 0 }
	if as && !slices.ContainsFunc(list, over) {
		return false, nil
	}
	held, ok, err := host.TryHold(holdFor, isolationTarget)
	if !ok {
		return false, err
	}
	defer held.Release()
	ctx, cancel := context.WithTimeout(ctx, holdFor)
	defer cancel()
	if list, err = held.List(isolationTarget); err != nil {
		return false, err
	}
	keys, failed := env.over(ctx, list)
	err = errors.Join(failed, held.Drop(isolationTarget, keys...))
	if as, failed := isolatedAs(ctx, env, wall, list); failed != nil || as || err != nil {
		return false, errors.Join(err, failed)
	}
	c, ok := list.longest(NFTables, time.Now())
	if !ok { // its rules are still there, and drop nothing
		there, err := wall.entry(ctx)
		if err != nil || there.Left > 0 {
			return false, err
		}
		return false, wall.remove(ctx)
	}
	if env.Reach == nil {
		return false, errors.New("not put back: nothing here can tell whether Redis is still reached")
	}
	if err := isolate(ctx, env, wall, list, c); err != nil {
		after, cancel := context.WithTimeout(context.WithoutCancel(ctx), netlinkPatience)
		defer cancel()
		return false, errors.Join(fmt.Errorf("not put back: %w", err), wall.remove(after))
	}
	return true, nil
}

// isolatedAs says whether the host is isolated as these claims ask, or not at all where they
// ask nothing.
func isolatedAs(ctx context.Context, env Env, wall isolator, list claims) (bool, error) {
	there, mark, err := wall.standing(ctx)
	if err != nil {
		return false, err
	}
	c, ok := list.longest(NFTables, time.Now())
	if !ok {
		return false, nil // there may be rules to clear away
	}
	through, err := union(env.Guard, list)
	return err == nil && there.covers(c, time.Now()) && mark == through.mark(), err
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
	return what, err == nil && what == coverOf(what)
}
