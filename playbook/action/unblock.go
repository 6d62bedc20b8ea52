package action

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
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
	// Program is that of the block, see BlockIP.
	Program *string `json:"program,omitempty"`
}

// Undo implements Reversible: it takes back this block's claim, and whatever of the block
// no other claim asks for.
func (b *BlockIP) Undo() (string, Effect) {
	return "unblock_ip", &UnblockIP{Address: b.Address, Addresses: b.Addresses, Backend: b.Backend, Undo: true, TTL: b.TTL, Program: b.Program}
}

// Targets implements Effect. One that lifts all blocks may meet some in iptables.
func (u *UnblockIP) Targets() []string {
	b := BlockIP{Address: u.Address, Addresses: u.Addresses, Backend: u.Backend, Program: u.Program}
	if !u.Undo {
		b.Backend = IPTables
	}
	return b.Targets()
}

// Describe implements Effect.
func (u *UnblockIP) Describe() string {
	if u.Undo {
		b := BlockIP{Address: u.Address, Addresses: u.Addresses, TTL: u.TTL, Backend: u.Backend, Program: u.Program}
		return "take back the block of " + strings.TrimPrefix(b.Describe(), "block ")
	}
	return "unblock " + listed(u.Address, u.Addresses)
}

// Probe implements Effect.
func (u *UnblockIP) Probe(ctx context.Context, env Env) (Receipt, bool, error) {
	all, programs, err := u.prepare(env)
	if err != nil {
		return Receipt{}, false, err
	}
	var seen []Receipt
	for _, nets := range byTarget(all) {
		r, done, err := u.look(ctx, env, nets)
		if err != nil || !done {
			return Receipt{}, false, err
		}
		seen = append(seen, r)
	}
	if programs != nil {
		r, done, err := u.lookProgram(ctx, env, programs)
		if err != nil || !done {
			return Receipt{}, false, err
		}
		seen = append(seen, r)
	}
	return together(seen), true, nil
}

func (u *UnblockIP) look(ctx context.Context, env Env, nets []netip.Prefix) (Receipt, bool, error) {
	list, err := env.claimsOn(blockTarget(nets[0]))
	if err != nil {
		return Receipt{}, false, err
	}
	rest, done := u.rest(list, nets, env)
	var seen []Receipt
	for _, what := range nets {
		for _, backend := range u.backends(list) {
			_, there, err := u.entries(ctx, env, backend, what)
			if err != nil {
				return Receipt{}, false, err
			}
			_, stays := u.staying(there, rest, backend, what, env)
			done = done && stays
			seen = append(seen, Receipt{Unblocked, remains(what, backend, there, "was not blocked")})
		}
	}
	return together(seen), done, nil
}

// Apply implements Effect.
func (u *UnblockIP) Apply(ctx context.Context, env Env) (Receipt, error) {
	all, programs, err := u.prepare(env)
	if err != nil {
		return Receipt{}, err
	}
	var seen []Receipt
	for _, nets := range byTarget(all) {
		r, err := u.release(ctx, env, nets)
		if err != nil {
			return Receipt{}, fmt.Errorf("%s: %w", u.Describe(), err)
		}
		seen = append(seen, r)
	}
	if programs != nil {
		r, err := u.releaseProgram(ctx, env, programs)
		if err != nil {
			return Receipt{}, fmt.Errorf("%s: %w", u.Describe(), err)
		}
		seen = append(seen, r)
	}
	return together(seen), nil
}

// release changes the firewalls first and the claims when that was seen: a crash in
// between leaves a claim, by which a successor knows what is to be done. nets are of one target.
func (u *UnblockIP) release(ctx context.Context, env Env, nets []netip.Prefix) (Receipt, error) {
	target := blockTarget(nets[0])
	list, err := env.claimsOn(target)
	if err != nil {
		return Receipt{}, err
	}
	rest, _ := u.rest(list, nets, env)
	var seen []Receipt
	for _, what := range nets {
		if err := ctx.Err(); err != nil {
			return Receipt{}, fmt.Errorf("%s not begun: %w", text(what), err)
		}
		for _, backend := range u.backends(list) {
			there, err := u.lift(ctx, env, backend, what, rest)
			if err != nil {
				return Receipt{}, err
			}
			seen = append(seen, Receipt{Unblocked, remains(what, backend, there, "is not blocked any more")})
		}
	}
	return together(seen), env.leave(target, list, rest)
}

// lift makes the entries of one firewall be what the other claims say, and returns what
// they were seen to be afterwards.
func (u *UnblockIP) lift(ctx context.Context, env Env, backend string, what netip.Prefix, rest claims) ([]piece, error) {
	fw, there, err := u.entries(ctx, env, backend, what)
	if err != nil {
		return nil, err
	}
	stay, all := u.staying(there, rest, backend, what, env)
	if all {
		return there, nil
	}
	if err := fw.shorten(ctx, what, stay); err != nil {
		return nil, err
	}
	if there, err = fw.entries(ctx, what); err != nil {
		return nil, fmt.Errorf("look whether %s is still blocked: %w", text(what), err)
	}
	if _, all := u.staying(there, rest, backend, what, env); !all {
		return nil, fmt.Errorf("%s still stands in %s; does something else rewrite the firewall?", text(what), backend)
	}
	return there, nil
}

// rest are the claims without what they are to lose, which is all of nets. same says that
// they lose nothing.
func (u *UnblockIP) rest(list claims, nets []netip.Prefix, env Env) (rest claims, same bool) {
	same = true
	for _, c := range list {
		its := !u.Undo || c.AlertID == env.AlertID && c.Made == u.TTL && c.Backend == u.Backend
		if u.Undo && env.Undoes != "" {
			its = c.Key == env.Undoes
		}
		if its && slices.ContainsFunc(nets, c.asks) {
			same = false
			c.Nets = slices.DeleteFunc(slices.Clone(c.Nets), func(n netip.Prefix) bool { return slices.Contains(nets, n) })
			if len(c.Nets) == 0 {
				continue
			}
		}
		rest = append(rest, c)
	}
	return rest, same
}

// leave writes down what is left of the claims on a target.
func (e Env) leave(target string, list, rest claims) error {
	for _, c := range list {
		var err error
		if now, ok := rest.of(c.Key); !ok {
			err = e.Claims.Drop(target, c.Key)
		} else if len(now.Nets) < len(c.Nets) {
			err = e.Claims.Put(target, now)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// staying are the blocks that are to be left of these. all says that no other was there, or
// stood longer.
func (u *UnblockIP) staying(there []piece, rest claims, backend string, what netip.Prefix, env Env) (stay []piece, all bool) {
	all = true
	for _, p := range there {
		if u.mustGo(p, rest, backend, what, env) {
			all = false
		} else {
			stay = append(stay, p)
		}
	}
	return divide(append(stay, rest.asked(backend, what, time.Now())...)), all
}

// mustGo says that a block stands for longer than those claims ask for that stay. One that
// Riposte has not made stays, and where one step's block is taken back so does one that was
// made for another alert.
func (u *UnblockIP) mustGo(p piece, rest claims, backend string, what netip.Prefix, env Env) bool {
	if p.AlertID == "" || u.Undo && p.AlertID != env.AlertID {
		return false
	}
	asked := slices.DeleteFunc(rest.asked(backend, what, time.Now()), func(c piece) bool {
		return c.AlertID != p.AlertID || p.Left != forever && p.Left > c.Left+leeway
	})
	return least(divide(asked), p.from, p.to, "").Left == 0
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

func (u *UnblockIP) entries(ctx context.Context, env Env, backend string, what netip.Prefix) (firewall, []piece, error) {
	fw, err := newFirewall(backend, env)
	if err != nil {
		return nil, nil, err
	}
	there, err := fw.entries(ctx, what)
	if err != nil {
		return nil, nil, fmt.Errorf("look for a block of %s: %w", text(what), err)
	}
	return fw, there, nil
}

// prepare checks everything that may refuse. The guard is not asked: what it protects is
// better not blocked.
func (u *UnblockIP) prepare(env Env) (all []netip.Prefix, programs programFirewall, err error) {
	if u.Program == nil || u.Address != "" || len(u.Addresses) > 0 {
		if all, err = parseAll(u.Address, u.Addresses); err != nil {
			return nil, nil, err
		}
	}
	fw, err := newFirewall(u.Backend, env)
	if err != nil {
		return nil, nil, err
	}
	if u.Backend == Netsh && !u.Undo {
		return nil, nil, Refuse("each alert has rules of its own in netsh: undo their blocks, or delete the rules named riposte-ALERT")
	}
	if u.Program == nil {
		return all, nil, nil
	}
	if !programForm.MatchString(*u.Program) {
		return nil, nil, Refuse("%q is not an absolute path of Windows", clip(*u.Program, maxField))
	}
	programs, err = programsOf(fw)
	return all, programs, err
}

// remains says in words what is left of a block.
func remains(what netip.Prefix, backend string, there []piece, gone string) string {
	if len(there) == 0 {
		return fmt.Sprintf("%s %s (%s)", text(what), gone, backend)
	}
	var parts []string
	for _, p := range there {
		part := text(what)
		if p.from != what.Addr() || p.to != lastOf(what) {
			part = "of " + part + " " + p.String()
		}
		part += " stays blocked by " + backend
		if p.AlertID == "" {
			part += ": Riposte has not made that"
		} else {
			part += fmt.Sprintf(" for %s more, for %q", Duration(p.Left.Round(time.Second)), printable(clip(p.AlertID, maxField)))
		}
		if parts = append(parts, part); len(parts) == 3 && len(there) > 3 {
			parts = append(parts, fmt.Sprintf("and %d more parts", len(there)-3))
			break
		}
	}
	return strings.Join(parts, ", ")
}
