package action

import (
	"context"
	"fmt"
	"math"
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

// What blocks take turns at: the addresses, and a firewall in which a change takes several
// calls.
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
// does not either.
func (s *BlockSpec) Resolve(a *stream.Alert, seen Seen) Effect {
	address, more, ok := s.Address.resolve(a)
	b := &BlockIP{Address: address, Addresses: more, TTL: s.TTL.Duration(), Backend: s.Backend}
	if p, named := processOf(a, seen); named && slices.Contains(s.Address, remotes) {
		b.Of = &p
	}
	if !ok && b.Of == nil {
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
}

// Targets implements Effect. Two blocks of one address take turns; those of iptables all
// do, since a change of theirs takes several calls.
func (b *BlockIP) Targets() []string {
	targets := addressTargets(b.Address, b.Addresses)
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
	for _, what := range all {
		r, inPlace, err := b.stands(ctx, env, fw, what)
		if err != nil || !inPlace {
			return Receipt{}, false, err
		}
		seen = append(seen, r)
	}
	return together(seen), true, nil
}

func (b *BlockIP) stands(ctx context.Context, env Env, fw firewall, what netip.Prefix) (Receipt, bool, error) {
	list, err := env.claimsOn(blockTarget(what))
	if err != nil {
		return Receipt{}, false, err
	}
	now, err := fw.standing(ctx, what)
	if err != nil {
		return Receipt{}, false, fmt.Errorf("look for a block of %s: %w", text(what), err)
	}
	r, inPlace := b.judge(what, now, list, env)
	return r, inPlace, nil
}

// nothing says that all it was to block are the addresses of a process that has none.
func (b *BlockIP) nothing() bool { return b.Looked != "" && b.Address == "" && len(b.Addresses) == 0 }

// Look implements Looker: it finds out whom the process talks to. Protected addresses among
// them are left out: the resolver is somebody whom malware talks to, too.
func (b *BlockIP) Look(ctx context.Context, env Env) (Effect, error) {
	if b.Of == nil || b.Looked != "" {
		return b, nil
	}
	peers, gone, err := b.Of.peers(ctx, env)
	if err != nil {
		return nil, err
	}
	whole := *b
	whole.Addresses = slices.Clone(b.Addresses)
	found, left := 0, []string{}
	for _, addr := range peers {
		err := env.Guard.Address(addr)
		reason, refused := Reason(err)
		switch {
		case refused:
			left = append(left, reason)
		case err != nil:
			return nil, err
		case len(whole.Addresses) == mostAddresses:
			left = append(left, fmt.Sprintf("%s is one too many", addr))
		default:
			whole.Addresses = append(whole.Addresses, addr.String())
			found++
		}
	}
	whole.Looked = fmt.Sprintf("%s talks to %d addresses that may be blocked", b.Of, found)
	if gone {
		whole.Looked = b.Of.String() + " had exited before; whom it talked to cannot be told"
	}
	if len(left) > 0 {
		whole.Looked += "; left out: " + clip(strings.Join(left, "; "), maxField)
	}
	return &whole, nil
}

// Apply implements Effect. Where one of several cannot be blocked, those before it stay
// blocked and it may be called again.
func (b *BlockIP) Apply(ctx context.Context, env Env) (Receipt, error) {
	all, fw, err := b.prepare(env)
	if err != nil {
		return Receipt{}, err
	}
	var seen []Receipt
	for _, what := range all {
		if err := ctx.Err(); err != nil {
			return Receipt{}, fmt.Errorf("%s: %s not begun: %w", b.Describe(), text(what), err)
		}
		r, err := b.enforce(ctx, env, fw, what)
		if err != nil {
			return Receipt{}, err
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
// claim that a successor completes, or a block that is accounted for.
func (b *BlockIP) enforce(ctx context.Context, env Env, fw firewall, what netip.Prefix) (Receipt, error) {
	target, ttl := blockTarget(what), time.Duration(b.TTL)
	list, err := env.claimsOn(target)
	if err != nil {
		return Receipt{}, err
	}
	there, err := fw.standing(ctx, what)
	if err != nil {
		return Receipt{}, fmt.Errorf("look for a block of %s: %w", text(what), err)
	}
	if r, inPlace := b.judge(what, there, list, env); inPlace {
		return r, nil
	}
	now := time.Now()
	own, again := list.of(env.Key)
	if !again || time.Duration(own.Made) < ttl || !there.covers(own, now) {
		own = Claim{Key: env.Key, AlertID: env.AlertID, Backend: b.Backend, Made: b.TTL, Until: now.Add(ttl).UTC()}
		again = false
	}
	if !again && there.Left < ttl {
		own.Begun = true
		if err := env.claim(target, own); err != nil {
			return Receipt{}, err
		}
		want := standing{env.AlertID, ttl, ttl}
		if c, ok := list.without(env.Key).longest(b.Backend, now); ok && c.Left(now) > ttl {
			want = c.standing(now)
		}
		if err := fw.block(ctx, what, want); err != nil {
			return Receipt{}, fmt.Errorf("%s: %w", b.Describe(), err)
		}
		if there, err = fw.standing(ctx, what); err != nil {
			return Receipt{}, fmt.Errorf("look whether %s is blocked: %w", text(what), err)
		}
		if !there.covers(own, now) {
			return Receipt{}, fmt.Errorf("%s: not observed afterwards; does something else rewrite the firewall?", b.Describe())
		}
	}
	own.Begun = false
	if err := env.claim(target, own); err != nil {
		return Receipt{}, err
	}
	return b.receipt(what, there, env), nil
}

// firewall is one backend of block_ip.
type firewall interface {
	// standing looks for a block of exactly these addresses that is in force in both
	// directions.
	standing(ctx context.Context, what netip.Prefix) (standing, error)
	// block makes a block of s.Left, or makes a shorter one longer, under the name of
	// s.AlertID.
	block(ctx context.Context, what netip.Prefix, s standing) error
	// entry is what there is for exactly these addresses, in force or not, in the direction
	// that stands longer.
	entry(ctx context.Context, what netip.Prefix) (standing, error)
	// shorten makes an entry end after s.Left, under the name of s.AlertID. It removes it
	// where s is the zero value, and does nothing where there is none.
	shorten(ctx context.Context, what netip.Prefix, s standing) error
	// survey is standing, for one who asks about many addresses at about the same time.
	survey(ctx context.Context) (survey, error)
}

// standing is a block in force. Its zero value is none.
type standing struct {
	AlertID string        // whose it is
	Made    time.Duration // how long it was made for
	Left    time.Duration // how long it still stands; 0 is none
}

// forever is the time left of a block that knows no end.
const forever time.Duration = math.MaxInt64

// leeway is what a block may end before its claim does: they are written one after the
// other, and some firewalls count in whole seconds.
const leeway = 2 * time.Second

// covers says that the block stands for what is left of a claim.
func (s standing) covers(c Claim, now time.Time) bool {
	return s.Left > 0 && s.Left >= c.Left(now)-leeway
}

// standing is the block that a claim asks for.
func (c Claim) standing(now time.Time) standing {
	return standing{c.AlertID, time.Duration(c.Made), c.Left(now)}
}

// judge decides whether what stands is what was asked for; see the package comment.
func (b *BlockIP) judge(what netip.Prefix, s standing, list claims, env Env) (Receipt, bool) {
	ttl, now := time.Duration(b.TTL), time.Now()
	inPlace := s.Left >= ttl || s.AlertID == env.AlertID && s.Made >= ttl
	if env.Claims != nil {
		own, claimed := list.of(env.Key)
		inPlace = claimed && !own.Begun && own.Backend == b.Backend && time.Duration(own.Made) >= ttl && s.covers(own, now)
	}
	if s.Left <= 0 || !inPlace {
		return Receipt{}, false
	}
	return b.receipt(what, s, env), true
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
	all, err := parseAll(b.Address, b.Addresses)
	if err != nil {
		return nil, nil, err
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

// blockTarget is what blocks of the same addresses take turns at.
func blockTarget(what netip.Prefix) string { return addressTarget + text(what) }

// guarded asks the guard about addresses that are to be blocked.
func guarded(guard Guard, what netip.Prefix) error {
	if what.IsSingleIP() {
		return guard.Address(what.Addr())
	}
	return guard.Network(what)
}
