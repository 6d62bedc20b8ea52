package action

import (
	"context"
	"fmt"
	"math"
	"net/netip"
	"runtime"
	"time"

	"riposte/stream"
)

// Firewalls that block_ip knows.
const (
	NFTables = "nftables" // Linux; entries expire in the kernel
	IPTables = "iptables" // Linux; entries are removed by SweepExpired
	Netsh    = "netsh"    // Windows; rules stand until they are removed by hand
)

// sourceIP is the address of a BlockSpec that means the alert's own.
const sourceIP = "alert.source_ip"

// BlockSpec is the `with` block of block_ip.
type BlockSpec struct {
	// Address is a single IPv4 or IPv6 address, or alert.source_ip, the default.
	Address string `yaml:"address"`
	// TTL is how long the block stands: whole seconds, 1 s to 24 h, default 1 h.
	TTL time.Duration `yaml:"ttl"`
	// Backend is nftables, iptables or netsh; the default is nftables, on Windows netsh.
	Backend string `yaml:"backend"`
}

const maxTTL = 24 * time.Hour

// iptablesNeeds is what the program iptables must be given, see runBound.
var iptablesNeeds = []Capability{CapNetAdmin, CapNetRaw}

func newBlockSpec() *BlockSpec {
	s := &BlockSpec{Address: sourceIP, TTL: time.Hour, Backend: NFTables}
	if runtime.GOOS == "windows" {
		s.Backend = Netsh
	}
	return s
}

// Validate implements Spec.
func (s *BlockSpec) Validate() error {
	if s.Address != sourceIP {
		if _, err := parseAddress(s.Address); err != nil {
			reason, _ := Reason(err)
			return fmt.Errorf("address: %s; want one address, or %s", reason, sourceIP)
		}
	}
	if !validTTL(s.TTL) {
		return fmt.Errorf("ttl: %s is not a whole number of seconds within 1s to %s", s.TTL, Duration(maxTTL))
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
	address := s.Address
	if address == sourceIP {
		address = a.SourceIP
	}
	if address == "" {
		return nil
	}
	return &BlockIP{Address: clip(address, maxField), TTL: Duration(s.TTL), Backend: s.Backend}
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

// BlockIP drops what comes from one address and what goes to it, for a time that counts
// from Apply.
type BlockIP struct {
	Address string   `json:"address"` // as given, unparsed
	TTL     Duration `json:"ttl"`
	Backend string   `json:"backend"`
}

// Targets implements Effect. Two blocks of one address take turns; those of iptables all
// do, since a change of theirs takes several calls.
func (b *BlockIP) Targets() []string {
	address := b.Address
	if addr, err := parseAddress(address); err == nil {
		address = addr.String()
	}
	targets := []string{"address/" + address}
	if b.Backend == IPTables {
		targets = append(targets, "firewall/iptables")
	}
	return targets
}

// Describe implements Effect.
func (b *BlockIP) Describe() string {
	return fmt.Sprintf("block %s for %s (%s)", printable(clip(b.Address, 80)), b.TTL, b.Backend)
}

// Probe implements Effect.
func (b *BlockIP) Probe(ctx context.Context, env Env) (Receipt, bool, error) {
	addr, fw, err := b.prepare(env)
	if err != nil {
		return Receipt{}, false, err
	}
	now, err := fw.standing(ctx, addr)
	if err != nil {
		return Receipt{}, false, fmt.Errorf("look for a block of %s: %w", addr, err)
	}
	r, inPlace := b.judge(addr, now, env.AlertID)
	return r, inPlace, nil
}

// Apply implements Effect.
func (b *BlockIP) Apply(ctx context.Context, env Env) (Receipt, error) {
	addr, fw, err := b.prepare(env)
	if err != nil {
		return Receipt{}, err
	}
	if err := ctx.Err(); err != nil {
		return Receipt{}, fmt.Errorf("%s: not begun: %w", b.Describe(), err)
	}
	before, err := fw.standing(ctx, addr)
	if err != nil {
		return Receipt{}, fmt.Errorf("look for a block of %s: %w", addr, err)
	}
	if r, inPlace := b.judge(addr, before, env.AlertID); inPlace {
		return r, nil
	}
	if err := fw.block(ctx, addr, time.Duration(b.TTL), env.AlertID); err != nil {
		return Receipt{}, fmt.Errorf("%s: %w", b.Describe(), err)
	}
	after, err := fw.standing(ctx, addr)
	if err != nil {
		return Receipt{}, fmt.Errorf("look whether %s is blocked: %w", addr, err)
	}
	r, inPlace := b.judge(addr, after, env.AlertID)
	if !inPlace {
		return Receipt{}, fmt.Errorf("%s: not observed afterwards; does something else rewrite the firewall?", b.Describe())
	}
	return r, nil
}

// firewall is one backend of block_ip.
type firewall interface {
	// standing looks for a block of the address that is in force in both directions.
	standing(ctx context.Context, addr netip.Addr) (standing, error)
	// block makes one, or makes a shorter one longer, under the name of an alert.
	block(ctx context.Context, addr netip.Addr, ttl time.Duration, alertID string) error
}

// standing is a block in force. Its zero value is none.
type standing struct {
	AlertID string        // whose it is
	Made    time.Duration // how long it was made for
	Left    time.Duration // how long it still stands; 0 is none
}

// forever is the time left of a block that knows no end.
const forever time.Duration = math.MaxInt64

// judge decides whether what stands is what was asked for; see the package comment.
func (b *BlockIP) judge(addr netip.Addr, s standing, alertID string) (Receipt, bool) {
	ttl := time.Duration(b.TTL)
	left := "for " + Duration(s.Left.Round(time.Second)).String() + " more"
	if s.Left == forever {
		left = "until it is removed by hand"
	}
	switch {
	case s.Left <= 0:
		return Receipt{}, false
	case s.AlertID == alertID && s.Made >= ttl:
		return Receipt{Blocked, fmt.Sprintf("%s, in and out, by %s, %s", addr, b.Backend, left)}, true
	case s.Left >= ttl:
		return Receipt{AlreadyBlocked, fmt.Sprintf("%s, by %s, %s; made for %q", addr, b.Backend, left, printable(clip(s.AlertID, maxField)))}, true
	}
	return Receipt{}, false
}

// prepare checks everything that may refuse, and picks the backend.
func (b *BlockIP) prepare(env Env) (netip.Addr, firewall, error) {
	addr, err := parseAddress(b.Address)
	if err != nil {
		return addr, nil, err
	}
	if !validTTL(time.Duration(b.TTL)) {
		return addr, nil, Refuse("a block for %s is not a whole number of seconds within 1s to %s", b.TTL, Duration(maxTTL))
	}
	if err := env.Guard.Address(addr); err != nil {
		return addr, nil, err
	}
	fw, err := newFirewall(b.Backend, env)
	return addr, fw, err
}

// parseAddress accepts one address in its usual form and nothing else. An IPv4 address
// written as IPv6 is the IPv4 address: that is what the packets carry.
func parseAddress(s string) (netip.Addr, error) {
	if _, err := netip.ParsePrefix(s); err == nil {
		return netip.Addr{}, Refuse("%s is a network; only single addresses are blocked", s)
	}
	addr, err := netip.ParseAddr(s)
	if err != nil {
		return netip.Addr{}, Refuse("%q is not an IP address", clip(s, 80))
	}
	if addr.Zone() != "" {
		return netip.Addr{}, Refuse("%q has a zone, which means nothing on another host", clip(s, 80))
	}
	return addr.Unmap(), nil
}
