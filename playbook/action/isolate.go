package action

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"riposte/stream"
)

const (
	isolationTarget = "host/isolation"
	shortestIsolate = time.Minute
	mostAllowed     = 64
	// reachWithin is how long a fresh connection to Redis may take from inside an isolation.
	reachWithin = 3 * time.Second
	// probation is how long an isolation stands until that connection was made: who dies in
	// between must not leave a host that nobody reaches.
	probation = 2 * reachWithin
)

// IsolateSpec is the `with` block of isolate_host.
type IsolateSpec struct {
	// TTL is how long the isolation stands: whole seconds, 1 min to 24 h. There is no default.
	TTL Span `yaml:"ttl" template:"duration"`
	// Allow are addresses and networks in CIDR form that the host still talks to, for
	// management. They may be broad, but not everything.
	Allow []string `yaml:"allow"`
	// DNS lets through what goes to this host's resolvers and their answers.
	DNS bool `yaml:"dns"`
}

// Validate implements Spec.
func (s *IsolateSpec) Validate() error {
	if s.TTL == "" {
		return fmt.Errorf("ttl: an isolation must end by itself; say when, within %s to %s", Duration(shortestIsolate), Duration(maxTTL))
	}
	if ttl, err := s.TTL.parse(); err != nil {
		return fmt.Errorf("ttl: %w", err)
	} else if !validIsolation(ttl) {
		return fmt.Errorf("ttl: %s is not a whole number of seconds within %s to %s", ttl, Duration(shortestIsolate), Duration(maxTTL))
	}
	if _, err := parseAllowed(s.Allow); err != nil {
		reason, _ := Reason(err)
		return fmt.Errorf("allow: %s", reason)
	}
	return nil
}

func validIsolation(d time.Duration) bool { return validTTL(d) && d >= shortestIsolate }

// Resolve implements Spec.
func (s *IsolateSpec) Resolve(a *stream.Alert, seen Seen) Effect {
	return &IsolateHost{TTL: s.TTL.Duration(), Let: Let{Allow: s.Allow, DNS: s.DNS}}
}

// Capabilities implements Spec.
func (s *IsolateSpec) Capabilities(ownUID bool) []Capability { return []Capability{CapNetAdmin} }

// Let is whom an isolated host still talks to, beside those it must.
type Let struct {
	Allow []string `json:"allow,omitempty"` // addresses and networks
	DNS   bool     `json:"dns,omitempty"`   // the resolvers of the host
}

// IsolateHost drops all that comes in and goes out, but for what keeps the host manageable.
type IsolateHost struct {
	TTL Duration `json:"ttl"`
	Let
}

// Lifelines are the addresses that no isolation cuts off.
type Lifelines struct {
	Redis     []netip.Addr // TCP only, and only connections that this host makes
	Operators []netip.Addr // the clients of the SSH sessions that Riposte runs in
	Resolvers []netip.Addr // asked only where DNS is let through
}

// isolation is all that is let through.
type isolation struct {
	Lifelines
	allow []netip.Prefix
	dns   bool
}

// mark tells one isolation from another by whom it lets through, but for operators: each
// replica knows its own, and they must not make it anew in turn.
func (i isolation) mark() string {
	var all []string
	for _, addr := range i.Redis {
		all = append(all, "redis "+addr.String())
	}
	if i.dns {
		for _, addr := range i.Resolvers {
			all = append(all, "resolver "+addr.String())
		}
	}
	for _, what := range i.allow {
		all = append(all, "allow "+what.String())
	}
	slices.Sort(all)
	return fmt.Sprintf("%x", sha256.Sum256([]byte(strings.Join(all, "\n"))))[:16]
}

// isolator is the firewall of isolate_host.
type isolator interface {
	// standing is the isolation in force, and the mark of whom it lets through.
	standing(ctx context.Context) (s standing, mark string, err error)
	// entry is the one that is written down there, in force or not.
	entry(ctx context.Context) (standing, error)
	// build replaces what is there by an isolation that ends after s.Left, all at once.
	build(ctx context.Context, i isolation, s standing) error
	// extend has the one that is there end after s.Left from now.
	extend(ctx context.Context, s standing) error
	// remove does nothing where there is none.
	remove(ctx context.Context) error
}

// Targets implements Effect.
func (h *IsolateHost) Targets() []string { return []string{isolationTarget} }

// Describe implements Effect.
func (h *IsolateHost) Describe() string { return fmt.Sprintf("isolate this host for %s", h.TTL) }

// Undo implements Reversible.
func (h *IsolateHost) Undo() (string, Effect) {
	return "release_host", &ReleaseHost{Undo: true, TTL: h.TTL}
}

// Probe implements Effect.
func (h *IsolateHost) Probe(ctx context.Context, env Env) (Receipt, bool, error) {
	list, wall, err := h.prepare(env)
	if err != nil {
		return Receipt{}, false, err
	}
	there, _, err := wall.standing(ctx)
	if err != nil {
		return Receipt{}, false, err
	}
	own, claimed := list.of(env.Key)
	if !claimed || own.Begun || own.Made < h.TTL || !there.covers(own, time.Now()) {
		return Receipt{}, false, nil
	}
	return isolated(there), true, nil
}

func isolated(s standing) Receipt {
	return Receipt{Isolated, fmt.Sprintf("in and out, by nftables, for %s more, for %q; Redis was reached from inside",
		Duration(s.Left.Round(time.Second)), printable(clip(s.AlertID, maxField)))}
}

// Apply implements Effect. What it makes stands for a moment only, until a connection to
// Redis has been made from inside; then it gets its time.
func (h *IsolateHost) Apply(ctx context.Context, env Env) (Receipt, error) {
	list, wall, err := h.prepare(env)
	if err != nil {
		return Receipt{}, err
	}
	if err := ctx.Err(); err != nil {
		return Receipt{}, fmt.Errorf("%s: not begun: %w", h.Describe(), err)
	}
	let, err := json.Marshal(h.Let)
	if err != nil {
		return Receipt{}, err
	}
	now := time.Now()
	others := list.without(env.Key)
	own := Claim{Key: env.Key, AlertID: env.AlertID, Backend: NFTables, Made: h.TTL, Until: now.Add(time.Duration(h.TTL)).UTC(), Detail: let}
	want := own
	if c, ok := others.longest(NFTables, now); ok && c.Until.After(own.Until) {
		want = c
	}
	own.Begun = true
	if err := env.claim(isolationTarget, own); err != nil {
		return Receipt{}, err
	}
	own.Begun = false
	if err := isolate(ctx, env, wall, append(others, own), want); err != nil {
		// The others' isolation, if there is one, stands again as it did; what cannot be lifted
		// now is over in some seconds.
		after, cancel := context.WithTimeout(context.WithoutCancel(ctx), netlinkPatience)
		defer cancel()
		failed := settle(after, env, wall, others)
		if env.Claims != nil && failed == nil {
			failed = env.Claims.Drop(isolationTarget, env.Key)
		}
		if failed != nil {
			return Receipt{}, fmt.Errorf("%s: %w; it ends in %s, for it could not be lifted: %w", h.Describe(), err, Duration(probation), failed)
		}
		return Receipt{}, fmt.Errorf("%s: lifted again: %w", h.Describe(), err)
	}
	there, _, err := wall.standing(ctx)
	if err != nil {
		return Receipt{}, err
	}
	if !there.covers(own, now) {
		return Receipt{}, fmt.Errorf("%s: not observed afterwards; does something else rewrite the firewall?", h.Describe())
	}
	if err := env.claim(isolationTarget, own); err != nil {
		return Receipt{}, err
	}
	return isolated(there), nil
}

// netlinkPatience is for what is done although the caller's time is up.
const netlinkPatience = 5 * time.Second

// isolate builds the isolation that these claims ask for and lets it stand for as long as one
// of them wants, once Redis was reached through it.
func isolate(ctx context.Context, env Env, wall isolator, list claims, want Claim) error {
	through, err := union(env.Guard, list)
	if err != nil {
		return err
	}
	if err := wall.build(ctx, through, standing{want.AlertID, time.Duration(want.Made), probation}); err != nil {
		return err
	}
	reach, cancel := context.WithTimeout(ctx, reachWithin)
	defer cancel()
	if err := env.Reach(reach); err != nil {
		return fmt.Errorf("from inside, Redis cannot be reached (does its name need dns: true?): %w", err)
	}
	return wall.extend(ctx, want.standing(time.Now()))
}

// settle makes the firewall what these claims ask for, none included.
func settle(ctx context.Context, env Env, wall isolator, list claims) error {
	longest, ok := list.longest(NFTables, time.Now())
	if !ok {
		return wall.remove(ctx)
	}
	through, err := union(env.Guard, list)
	if err != nil {
		return err
	}
	return wall.build(ctx, through, longest.standing(time.Now()))
}

// union is what any of the claims that count lets through: no alert cuts off whom another
// needs to manage the host.
func union(guard Guard, list claims) (i isolation, err error) {
	if i.Lifelines, err = guard.Lifelines(); err != nil {
		return i, err
	}
	for _, c := range list {
		if c.Begun || c.Left(time.Now()) <= 0 {
			continue
		}
		var let Let
		if err := json.Unmarshal(c.Detail, &let); err != nil {
			return i, fmt.Errorf("claim of %s: %w", c.Key, err)
		}
		allow, err := parseAllowed(let.Allow)
		if err != nil {
			return i, err
		}
		i.dns = i.dns || let.DNS
		for _, what := range allow {
			if !slices.Contains(i.allow, what) {
				i.allow = append(i.allow, what)
			}
		}
	}
	return i, nil
}

// prepare checks everything that may refuse.
func (h *IsolateHost) prepare(env Env) (claims, isolator, error) {
	if !validIsolation(time.Duration(h.TTL)) {
		return nil, nil, Refuse("an isolation for %s is not a whole number of seconds within %s to %s", h.TTL, Duration(shortestIsolate), Duration(maxTTL))
	}
	if _, err := parseAllowed(h.Allow); err != nil {
		return nil, nil, err
	}
	if env.Reach == nil {
		return nil, nil, Refuse("nothing here can tell whether Redis is still reached from inside an isolation")
	}
	if env.Claims == nil {
		return nil, nil, Refuse("no claims are kept here, so that nobody could tell whose isolation it is")
	}
	wall, err := newIsolator()
	if err != nil {
		return nil, nil, err
	}
	list, err := env.claimsOn(isolationTarget)
	return list, wall, err
}

// parseAllowed reads addresses and networks of any breadth but the whole.
func parseAllowed(list []string) (all []netip.Prefix, err error) {
	if len(list) > mostAllowed {
		return nil, Refuse("%d addresses are more than %d", len(list), mostAllowed)
	}
	for _, s := range list {
		what, err := netip.ParsePrefix(s)
		if err != nil {
			addr, err := parseAddress(s)
			if err != nil {
				return nil, err
			}
			what = netip.PrefixFrom(addr, addr.BitLen())
		}
		switch {
		case what.Bits() == 0:
			return nil, Refuse("%s is everybody; an isolation that lets everybody through is none", s)
		case what.Addr().Is4In6():
			return nil, Refuse("%s is a network of IPv4 written as IPv6; write it as IPv4", s)
		case what != what.Masked():
			return nil, Refuse("%s is an address in the network %s; write one or the other", s, what.Masked())
		}
		all = append(all, what)
	}
	return all, nil
}
