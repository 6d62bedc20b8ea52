package action

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"riposte/stream"
)

// UnblockSpec is the `with` block of unblock_ip.
type UnblockSpec struct {
	// Address is what to unblock, as it was blocked: a block of a network is not lifted for one
	// address in it. The default is alert.source_ip.
	Address Addresses `yaml:"address" template:"yes"`
	// Backend is the firewall to look at beside those that claims on the address name:
	// nftables, iptables or netsh; the default is nftables, on Windows netsh.
	Backend string `yaml:"backend"`
}

func newUnblockSpec() *UnblockSpec {
	s := newBlockSpec()
	return &UnblockSpec{Address: s.Address, Backend: s.Backend}
}

// block is a block of the same address, whose fields follow the same rules.
func (s *UnblockSpec) block() *BlockSpec {
	return &BlockSpec{Address: s.Address, TTL: "1h", Backend: s.Backend}
}

// Validate implements Spec.
func (s *UnblockSpec) Validate() error {
	if slices.Contains(s.Address, remotes) {
		return fmt.Errorf("address: whom a process talks to says nothing of what is blocked; name the addresses, or undo the step that blocked them")
	}
	return s.block().Validate()
}

// Resolve implements Spec. It returns nil where the alert names no address and the spec
// does not either.
func (s *UnblockSpec) Resolve(a *stream.Alert, seen Seen) Effect {
	b, ok := s.block().Resolve(a, seen).(*BlockIP)
	if !ok {
		return nil
	}
	return &UnblockIP{Address: b.Address, Addresses: b.Addresses, Backend: b.Backend}
}

// TakeFrom implements Wary: what anybody may have written is a single address.
func (s *UnblockSpec) TakeFrom(field, text string) error { return oneAddress(text) }

// Capabilities implements Spec.
func (s *UnblockSpec) Capabilities(ownUID bool) []Capability { return s.block().Capabilities(ownUID) }

// UnblockIP lifts blocks of some addresses: those of one step where Undo is set, or all that
// Riposte has made.
type UnblockIP struct {
	Address   string   `json:"address,omitempty"`   // see BlockIP
	Addresses []string `json:"addresses,omitempty"` // see BlockIP
	Backend   string   `json:"backend"`
	// Undo says that only the block of step Env.Undoes is taken back. Where that is not
	// known it is the blocks that this very alert asked for and that were made for TTL.
	Undo bool     `json:"undo,omitempty"`
	TTL  Duration `json:"ttl,omitzero"`
}

// Undo implements Reversible: it takes back this block's claim, and whatever of the block
// no other claim asks for.
func (b *BlockIP) Undo() (string, Effect) {
	return "unblock_ip", &UnblockIP{Address: b.Address, Addresses: b.Addresses, Backend: b.Backend, Undo: true, TTL: b.TTL}
}

// Targets implements Effect. One that lifts all blocks may meet some in iptables.
func (u *UnblockIP) Targets() []string {
	b := BlockIP{Address: u.Address, Addresses: u.Addresses, Backend: u.Backend}
	if !u.Undo {
		b.Backend = IPTables
	}
	return b.Targets()
}

// Describe implements Effect.
func (u *UnblockIP) Describe() string {
	if u.Undo {
		return fmt.Sprintf("take back the block of %s for %s (%s)", listed(u.Address, u.Addresses), u.TTL, u.Backend)
	}
	return "unblock " + listed(u.Address, u.Addresses)
}

// Probe implements Effect.
func (u *UnblockIP) Probe(ctx context.Context, env Env) (Receipt, bool, error) {
	all, err := u.prepare(env)
	if err != nil {
		return Receipt{}, false, err
	}
	var seen []Receipt
	for _, what := range all {
		r, done, err := u.look(ctx, env, what)
		if err != nil || !done {
			return Receipt{}, false, err
		}
		seen = append(seen, r)
	}
	return together(seen), true, nil
}

func (u *UnblockIP) look(ctx context.Context, env Env, what netip.Prefix) (Receipt, bool, error) {
	list, err := env.claimsOn(blockTarget(what))
	if err != nil {
		return Receipt{}, false, err
	}
	var seen []Receipt
	done := len(u.lifted(list, env)) == 0
	for _, backend := range u.backends(list) {
		_, there, err := u.entry(ctx, env, backend, what)
		if err != nil {
			return Receipt{}, false, err
		}
		done = done && !u.mustGo(there, list, backend, env)
		seen = append(seen, Receipt{Unblocked, stays(what, backend, there, "was not blocked")})
	}
	return together(seen), done, nil
}

// Apply implements Effect.
func (u *UnblockIP) Apply(ctx context.Context, env Env) (Receipt, error) {
	all, err := u.prepare(env)
	if err != nil {
		return Receipt{}, err
	}
	var seen []Receipt
	for _, what := range all {
		if err := ctx.Err(); err != nil {
			return Receipt{}, fmt.Errorf("%s: %s not begun: %w", u.Describe(), text(what), err)
		}
		r, err := u.release(ctx, env, what)
		if err != nil {
			return Receipt{}, fmt.Errorf("%s: %w", u.Describe(), err)
		}
		seen = append(seen, r)
	}
	return together(seen), nil
}

// release changes the firewalls first and drops the claims when that was seen: a crash in
// between leaves a claim, by which a successor knows what is to be done.
func (u *UnblockIP) release(ctx context.Context, env Env, what netip.Prefix) (Receipt, error) {
	list, err := env.claimsOn(blockTarget(what))
	if err != nil {
		return Receipt{}, err
	}
	var seen []Receipt
	for _, backend := range u.backends(list) {
		left, err := u.lift(ctx, env, backend, what, list)
		if err != nil {
			return Receipt{}, err
		}
		seen = append(seen, Receipt{Unblocked, stays(what, backend, left, "is not blocked any more")})
	}
	if keys := u.lifted(list, env); len(keys) > 0 {
		if err := env.Claims.Drop(blockTarget(what), keys...); err != nil {
			return Receipt{}, err
		}
	}
	return together(seen), nil
}

// lift makes the entry of one firewall stand for what the other claims say, and returns
// what it was seen to be afterwards.
func (u *UnblockIP) lift(ctx context.Context, env Env, backend string, what netip.Prefix, list claims) (standing, error) {
	fw, there, err := u.entry(ctx, env, backend, what)
	if err != nil || !u.mustGo(there, list, backend, env) {
		return there, err
	}
	var want standing
	if c, ok := list.without(u.lifted(list, env)...).longest(backend, time.Now()); ok {
		want = c.standing(time.Now())
	}
	if err := fw.shorten(ctx, what, want); err != nil {
		return standing{}, err
	}
	if there, err = fw.entry(ctx, what); err != nil {
		return standing{}, fmt.Errorf("look whether %s is still blocked: %w", text(what), err)
	}
	if u.mustGo(there, list, backend, env) {
		return standing{}, fmt.Errorf("%s still stands in %s; does something else rewrite the firewall?", text(what), backend)
	}
	return there, nil
}

// lifted are the keys of the claims that are to go.
func (u *UnblockIP) lifted(list claims, env Env) (keys []string) {
	for _, c := range list {
		its := c.AlertID == env.AlertID && c.Made == u.TTL && c.Backend == u.Backend
		if env.Undoes != "" {
			its = c.Key == env.Undoes
		}
		if its || !u.Undo {
			keys = append(keys, c.Key)
		}
	}
	return keys
}

// mustGo says that an entry stands for longer than those claims ask for that stay. One that
// Riposte has not made stays, and where one step's block is taken back so does one that was
// made for another alert.
func (u *UnblockIP) mustGo(there standing, list claims, backend string, env Env) bool {
	if there.Left <= 0 || there.AlertID == "" || u.Undo && there.AlertID != env.AlertID {
		return false
	}
	now := time.Now()
	return !slices.ContainsFunc(list.without(u.lifted(list, env)...), func(c Claim) bool {
		return c.AlertID == there.AlertID && c.Backend == backend && (there.Left == forever || there.Left <= c.Left(now)+leeway)
	})
}

// backends are the firewalls to look at.
func (u *UnblockIP) backends(list claims) []string {
	all := []string{u.Backend}
	for _, c := range list {
		if !u.Undo && !slices.Contains(all, c.Backend) {
			all = append(all, c.Backend)
		}
	}
	return all
}

func (u *UnblockIP) entry(ctx context.Context, env Env, backend string, what netip.Prefix) (firewall, standing, error) {
	fw, err := newFirewall(backend, env)
	if err != nil {
		return nil, standing{}, err
	}
	there, err := fw.entry(ctx, what)
	if err != nil {
		return nil, standing{}, fmt.Errorf("look for a block of %s: %w", text(what), err)
	}
	return fw, there, nil
}

// prepare checks everything that may refuse. The guard is not asked: what it protects is
// better not blocked.
func (u *UnblockIP) prepare(env Env) ([]netip.Prefix, error) {
	all, err := parseAll(u.Address, u.Addresses)
	if err != nil {
		return nil, err
	}
	if _, err := newFirewall(u.Backend, env); err != nil {
		return nil, err
	}
	if u.Backend == Netsh && !u.Undo {
		return nil, Refuse("each alert has rules of its own in netsh: undo their blocks, or delete the rules named riposte-ALERT")
	}
	return all, nil
}

// stays says in words what is left of a block.
func stays(what netip.Prefix, backend string, s standing, gone string) string {
	switch {
	case s.Left <= 0:
		return fmt.Sprintf("%s %s (%s)", text(what), gone, backend)
	case s.AlertID == "":
		return fmt.Sprintf("%s stays blocked by %s: Riposte has not made that", text(what), backend)
	}
	return fmt.Sprintf("%s stays blocked by %s for %s more, for %q", text(what), backend, Duration(s.Left.Round(time.Second)), printable(clip(s.AlertID, maxField)))
}
