package action

import (
	"context"
	"fmt"
	"slices"
	"time"

	"riposte/stream"
)

// ReleaseSpec is the `with` block of release_host, which is empty.
type ReleaseSpec struct{}

// Validate implements Spec.
func (s *ReleaseSpec) Validate() error { return nil }

// Resolve implements Spec.
func (s *ReleaseSpec) Resolve(a *stream.Alert, seen Seen) Effect { return &ReleaseHost{} }

// Capabilities implements Spec.
func (s *ReleaseSpec) Capabilities(ownUID bool) []Capability { return []Capability{CapNetAdmin} }

// ReleaseHost ends an isolation: what one step asked where Undo is set, or all of it.
type ReleaseHost struct {
	Undo bool     `json:"undo,omitempty"` // see UnblockIP
	TTL  Duration `json:"ttl,omitzero"`
}

// Targets implements Effect.
func (r *ReleaseHost) Targets() []string { return []string{isolationTarget} }

// Describe implements Effect.
func (r *ReleaseHost) Describe() string {
	if r.Undo {
		return fmt.Sprintf("take back the isolation of this host for %s", r.TTL)
	}
	return "release this host"
}

// Probe implements Effect.
func (r *ReleaseHost) Probe(ctx context.Context, env Env) (Receipt, bool, error) {
	list, wall, err := r.prepare(env)
	if err != nil {
		return Receipt{}, false, err
	}
	there, err := wall.entry(ctx)
	if err != nil {
		return Receipt{}, false, err
	}
	lifted := r.lifted(list, env)
	done := len(lifted) == 0 && !r.mustGo(there, list, env)
	return released(there, "was not isolated"), done, nil
}

// Apply implements Effect. The claims go last, as those of unblock_ip do.
func (r *ReleaseHost) Apply(ctx context.Context, env Env) (Receipt, error) {
	list, wall, err := r.prepare(env)
	if err != nil {
		return Receipt{}, err
	}
	if err := ctx.Err(); err != nil {
		return Receipt{}, fmt.Errorf("%s: not begun: %w", r.Describe(), err)
	}
	there, err := wall.entry(ctx)
	if err != nil {
		return Receipt{}, err
	}
	lifted := r.lifted(list, env)
	if there.Left > 0 && (len(lifted) > 0 || r.mustGo(there, list, env)) {
		if err := settle(ctx, env, wall, list.without(lifted...)); err != nil {
			return Receipt{}, fmt.Errorf("%s: %w", r.Describe(), err)
		}
		if there, err = wall.entry(ctx); err != nil {
			return Receipt{}, err
		}
		if r.mustGo(there, list, env) {
			return Receipt{}, fmt.Errorf("%s: it still stands; does something else rewrite the firewall?", r.Describe())
		}
	}
	if len(lifted) > 0 {
		if err := env.Claims.Drop(isolationTarget, lifted...); err != nil {
			return Receipt{}, err
		}
	}
	return released(there, "is not isolated any more"), nil
}

func (r *ReleaseHost) prepare(env Env) (claims, isolator, error) {
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

func (r *ReleaseHost) lifted(list claims, env Env) (keys []string) {
	for _, c := range list {
		its := c.AlertID == env.AlertID && c.Made == r.TTL
		if env.Undoes != "" {
			its = c.Key == env.Undoes
		}
		if its || !r.Undo {
			keys = append(keys, c.Key)
		}
	}
	return keys
}

// mustGo says that an isolation stands that no claim which stays asks for.
func (r *ReleaseHost) mustGo(there standing, list claims, env Env) bool {
	if there.Left <= 0 || r.Undo && there.AlertID != env.AlertID {
		return false
	}
	now := time.Now()
	return !slices.ContainsFunc(list.without(r.lifted(list, env)...), func(c Claim) bool {
		return c.AlertID == there.AlertID && there.Left <= c.Left(now)+leeway
	})
}

func released(s standing, gone string) Receipt {
	if s.Left <= 0 {
		return Receipt{Released, "this host " + gone}
	}
	return Receipt{Released, fmt.Sprintf("this host stays isolated for %s more, for %q", Duration(s.Left.Round(time.Second)), printable(clip(s.AlertID, maxField)))}
}
