package action

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"runtime"
	"slices"
	"strings"
	"time"

	"riposte/stream"
)

// Firewalls that block_ip knows.
const (
	NFTables = "nftables" // Linux; entries expire in the kernel
	IPTables = "iptables" // Linux; entries are removed by SweepExpired
	Netsh    = "netsh"    // Windows; rules stand until they are removed by hand
)

// What blocks take turns at: the addresses, see blockTarget, and a firewall in which a change
// takes several calls.
const (
	addressTarget  = "address/"
	firewallTarget = "firewall/iptables"
)

// BlockSpec is the `with` block of block_ip.
type BlockSpec struct {
	// Address is what to block; the default is alert.source_ip.
	Address Addresses `yaml:"address" template:"yes"`
	// TTL is how long the block stands: whole seconds, 1 s to 24 h, default 1 h.
	TTL Span `yaml:"ttl" template:"duration"`
	// Backend is nftables, iptables or netsh; the default is nftables, on Windows netsh.
	Backend string `yaml:"backend"`
	// Program is parent to have the executable of the process that started the alert's, by
	// process.parent.exe, blocked as well, whomever it talks to. Only netsh can do that.
	Program string `yaml:"program"`
}

const maxTTL = 24 * time.Hour

// iptablesNeeds is what the program iptables must be given, see runBound.
var iptablesNeeds = []Capability{CapNetAdmin, CapNetRaw}

func newBlockSpec() *BlockSpec {
	s := &BlockSpec{Address: Addresses{sourceIP}, TTL: "1h", Backend: NFTables}
	if runtime.GOOS == "windows" {
		s.Backend = Netsh
	}
	return s
}

// Validate implements Spec.
func (s *BlockSpec) Validate() error {
	if err := s.Address.validate(); err != nil {
		return err
	}
	if ttl, err := s.TTL.parse(); err != nil {
		return fmt.Errorf("ttl: %w", err)
	} else if !validTTL(ttl) {
		return fmt.Errorf("ttl: %s is not a whole number of seconds within 1s to %s", ttl, Duration(maxTTL))
	}
	switch {
	case s.Program != "" && s.Program != targetParent:
		return fmt.Errorf("program: %q is not %s", s.Program, targetParent)
	case s.Program != "" && s.Backend != Netsh:
		return fmt.Errorf("program: only the backend %s blocks a program; this is %s", Netsh, s.Backend)
	}
	switch s.Backend {
	case NFTables, IPTables, Netsh:
		return nil
	}
	return fmt.Errorf("backend: %q is not one of %s, %s, %s", s.Backend, IPTables, NFTables, Netsh)
}

func validTTL(d time.Duration) bool {
	return d >= time.Second && d <= maxTTL && d%time.Second == 0
}

// Resolve implements Spec. It returns nil where the alert names no address and the spec
// does not either, nor a program.
func (s *BlockSpec) Resolve(a *stream.Alert, seen Seen) Effect {
	address, more, ok := s.Address.resolve(a)
	b := &BlockIP{Address: address, Addresses: more, TTL: s.TTL.Duration(), Backend: s.Backend}
	if p, named := processOf(a, seen); named && slices.Contains(s.Address, remotes) {
		b.Of = &p
	}
	if s.Program == targetParent {
		b.Program = parentProgram(a)
	}
	if !ok && b.Of == nil && b.Program == nil {
		return nil
	}
	return b
}

// TakeFrom implements Wary: what anybody may have written is a single address. A ttl may be any.
func (s *BlockSpec) TakeFrom(field, text string) error {
	if field != "address" {
		return nil
	}
	return oneAddress(text)
}

// Capabilities implements Spec.
func (s *BlockSpec) Capabilities(ownUID bool) []Capability {
	switch s.Backend {
	case NFTables:
		return []Capability{CapNetAdmin}
	case IPTables:
		return iptablesNeeds
	}
	return nil
}

// BlockIP drops what comes from some addresses and what goes to them, for a time that counts
// from Apply. All of them or none: it is refused where one of them is protected, and in place
// where all of them are blocked.
type BlockIP struct {
	Address   string   `json:"address,omitempty"`   // a single one, as given, unparsed
	Addresses []string `json:"addresses,omitempty"` // more, and networks
	Of        *Process `json:"of,omitempty"`        // those that it talks to, too, which Look finds out
	Looked    string   `json:"looked,omitempty"`    // what Look has found
	TTL       Duration `json:"ttl"`
	Backend   string   `json:"backend"`
	Program   *string  `json:"program,omitempty"` // an executable, unchecked; empty where the alert names none
}

// Targets implements Effect. Two blocks that may overlap take turns; those of iptables all
// do, since a change of theirs takes several calls.
func (b *BlockIP) Targets() []string {
	var targets []string
	if !b.noAddress() || b.Program == nil {
		targets = addressTargets(b.Address, b.Addresses)
	}
	if b.Program != nil {
		targets = append(targets, programTarget+*b.Program)
	}
	if b.Backend == IPTables {
		targets = append(targets, firewallTarget)
	}
	return targets
}

// Describe implements Effect.
func (b *BlockIP) Describe() string {
	what := listed(b.Address, b.Addresses)
	if b.Of != nil && b.Looked == "" {
		what = strings.TrimPrefix(what+", what "+b.Of.String()+" talks to", ", ")
	}
	if b.Program != nil {
		what = strings.TrimPrefix(what+", the program "+printable(clip(*b.Program, maxField)), ", ")
	}
	return fmt.Sprintf("block %s for %s (%s)", what, b.TTL, b.Backend)
}

// Probe implements Effect.
func (b *BlockIP) Probe(ctx context.Context, env Env) (Receipt, bool, error) {
	if b.nothing() {
		return Receipt{NoMatch, b.Looked}, true, nil
	}
	all, fw, err := b.prepare(env)
	if err != nil {
		return Receipt{}, false, err
	}
	var seen []Receipt
	for _, nets := range byTarget(all) {
		list, err := env.claimsOn(blockTarget(nets[0]))
		if err != nil {
			return Receipt{}, false, err
		}
		there, err := b.look(ctx, fw, nets)
		if err != nil {
			return Receipt{}, false, err
		}
		r, inPlace := b.judge(nets, there, list, env)
		if !inPlace {
			return Receipt{}, false, nil
		}
		seen = append(seen, r)
	}
	if b.Program != nil {
		programs, err := programsOf(fw)
		if err != nil {
			return Receipt{}, false, err
		}
		r, inPlace, err := b.probeProgram(ctx, env, programs)
		if err != nil || !inPlace {
			return Receipt{}, false, err
		}
		seen = append(seen, r)
	}
	return together(seen), true, nil
}

// look is what stands on each of some addresses and networks.
func (b *BlockIP) look(ctx context.Context, fw firewall, nets []netip.Prefix) ([]standing, error) {
	var all []standing
	for _, what := range nets {
		s, err := fw.standing(ctx, what)
		if err != nil {
			return nil, fmt.Errorf("look for a block of %s: %w", text(what), err)
		}
		all = append(all, s)
	}
	return all, nil
}

// Apply implements Effect. Where one of several cannot be blocked, those before it stay
// blocked and it may be called again.
func (b *BlockIP) Apply(ctx context.Context, env Env) (Receipt, error) {
	all, fw, err := b.prepare(env)
	if err != nil {
		return Receipt{}, err
	}
	var seen []Receipt
	for _, nets := range byTarget(all) {
		if err := ctx.Err(); err != nil {
			return Receipt{}, fmt.Errorf("%s: %s not begun: %w", b.Describe(), text(nets[0]), err)
		}
		r, err := b.enforce(ctx, env, fw, nets)
		if err != nil {
			return Receipt{}, err
		}
		seen = append(seen, r)
	}
	if b.Program != nil {
		programs, err := programsOf(fw)
		if err != nil {
			return Receipt{}, err
		}
		r, err := b.enforceProgram(ctx, env, programs)
		if err != nil {
			return Receipt{}, fmt.Errorf("%s: %w", b.Describe(), err)
		}
		seen = append(seen, r)
	}
	return together(seen), nil
}

// together is already_blocked only where all of them were.
func together(seen []Receipt) Receipt {
	sum := seen[0]
	for _, r := range seen[1:] {
		if r.Outcome == Blocked {
			sum.Outcome = Blocked
		}
		sum.Reason += "; " + r.Reason
	}
	return sum
}

// enforce writes the claim down before it changes the firewall, as one that does not count
// yet, and lets it count once the block is seen to stand. So a crash leaves nothing, or a
// claim that a successor completes, or a block that is accounted for. nets are of one target.
func (b *BlockIP) enforce(ctx context.Context, env Env, fw firewall, nets []netip.Prefix) (Receipt, error) {
	target, ttl := blockTarget(nets[0]), time.Duration(b.TTL)
	list, err := env.claimsOn(target)
	if err != nil {
		return Receipt{}, err
	}
	there, err := b.look(ctx, fw, nets)
	if err != nil {
		return Receipt{}, err
	}
	if r, inPlace := b.judge(nets, there, list, env); inPlace {
		return r, nil
	}
	now := time.Now()
	own, again := list.of(env.Key)
	for i, what := range nets {
		again = again && b.isFor(own, what) && there[i].covers(own, now)
	}
	if !again {
		own = Claim{Key: env.Key, AlertID: env.AlertID, Backend: b.Backend, Made: b.TTL, Until: now.Add(ttl).UTC(), Nets: nets}
		if slices.ContainsFunc(there, func(s standing) bool { return s.Left < ttl }) {
			own.Begun = true
			if err := env.claim(target, own); err != nil {
				return Receipt{}, err
			}
		}
		for i, what := range nets {
			if there[i].Left >= ttl {
				continue
			}
			if there[i], err = b.put(ctx, fw, what, own, list.without(env.Key), env); err != nil {
				return Receipt{}, fmt.Errorf("%s: %w", b.Describe(), err)
			}
		}
	}
	own.Begun = false
	if err := env.claim(target, own); err != nil {
		return Receipt{}, err
	}
	return b.receipts(nets, there, env), nil
}

// put makes the block of one address or network, for as long as it or another claim asks.
func (b *BlockIP) put(ctx context.Context, fw firewall, what netip.Prefix, own Claim, others claims, env Env) (standing, error) {
	if err := ctx.Err(); err != nil {
		return standing{}, fmt.Errorf("%s not begun: %w", text(what), err)
	}
	ttl := time.Duration(b.TTL)
	asked := append(others.asked(b.Backend, what, time.Now()), asPiece(what, standing{env.AlertID, ttl, ttl}))
	if err := fw.block(ctx, what, asked); err != nil {
		return standing{}, err
	}
	there, err := fw.standing(ctx, what)
	if err != nil {
		return standing{}, fmt.Errorf("look whether %s is blocked: %w", text(what), err)
	}
	if !there.covers(own, time.Now()) {
		return standing{}, errors.New("not observed afterwards; does something else rewrite the firewall?")
	}
	return there, nil
}

// isFor says that a claim is one that this block would make.
func (b *BlockIP) isFor(c Claim, what netip.Prefix) bool {
	return c.Backend == b.Backend && c.Made >= b.TTL && c.asks(what)
}

// judge decides whether what stands is what was asked for; see the package comment.
func (b *BlockIP) judge(nets []netip.Prefix, there []standing, list claims, env Env) (Receipt, bool) {
	ttl, now := time.Duration(b.TTL), time.Now()
	own, claimed := list.of(env.Key)
	for i, s := range there {
		inPlace := s.Left >= ttl || s.AlertID == env.AlertID && s.Made >= ttl
		if env.Claims != nil {
			inPlace = claimed && !own.Begun && b.isFor(own, nets[i]) && s.covers(own, now)
		}
		if s.Left <= 0 || !inPlace {
			return Receipt{}, false
		}
	}
	return b.receipts(nets, there, env), true
}

func (b *BlockIP) receipts(nets []netip.Prefix, there []standing, env Env) Receipt {
	var seen []Receipt
	for i, what := range nets {
		seen = append(seen, b.receipt(what, there[i], env))
	}
	return together(seen)
}

// receipt says what stands. Who asked for it first has blocked; everybody else has found it.
func (b *BlockIP) receipt(what netip.Prefix, s standing, env Env) Receipt {
	left := "for " + Duration(s.Left.Round(time.Second)).String() + " more"
	if s.Left == forever {
		left = "until it is removed by hand"
	}
	if s.AlertID == env.AlertID {
		return Receipt{Blocked, fmt.Sprintf("%s, in and out, by %s, %s", text(what), b.Backend, left)}
	}
	return Receipt{AlreadyBlocked, fmt.Sprintf("%s, by %s, %s; made for %q", text(what), b.Backend, left, printable(clip(s.AlertID, maxField)))}
}

// prepare checks everything that may refuse, and picks the backend.
func (b *BlockIP) prepare(env Env) ([]netip.Prefix, firewall, error) {
	var all []netip.Prefix
	if !b.noAddress() || b.Program == nil {
		var err error
		if all, err = parseAll(b.Address, b.Addresses); err != nil {
			return nil, nil, err
		}
	}
	if b.Program != nil {
		if err := guardedProgram(env.Guard, *b.Program, b.Backend); err != nil {
			return nil, nil, err
		}
	}
	if !validTTL(time.Duration(b.TTL)) {
		return nil, nil, Refuse("a block for %s is not a whole number of seconds within 1s to %s", b.TTL, Duration(maxTTL))
	}
	for _, what := range all {
		if err := guarded(env.Guard, what); err != nil {
			return nil, nil, err
		}
	}
	fw, err := newFirewall(b.Backend, env)
	return all, fw, err
}

// text writes a single address without its length.
func text(what netip.Prefix) string {
	if what.IsSingleIP() {
		return what.Addr().String()
	}
	return what.String()
}

// guarded asks the guard about addresses that are to be blocked.
func guarded(guard Guard, what netip.Prefix) error {
	if what.IsSingleIP() {
		return guard.Address(what.Addr())
	}
	return guard.Network(what)
}
