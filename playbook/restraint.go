package playbook

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"riposte/ledger"
	"riposte/stream"
)

// fleet is what this replica knows of the fleet's switches, which are not in its host's slot
// of Redis: a look at them that is at most fleetStale old.
type fleet struct {
	rdb redis.Cmdable

	mu      sync.Mutex
	control ledger.Control
	at      time.Time
}

const (
	fleetEvery = 400 * time.Millisecond // a pause is to be in force within a second
	fleetStale = 3 * time.Second
)

func (f *fleet) look(ctx context.Context) error {
	asked := time.Now() // an answer that is late is as old as that
	c, err := ledger.FleetSwitches(f.rdb).Read(ctx)
	if err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if asked.After(f.at) {
		f.control, f.at = c, asked
	}
	return nil
}

// refresh looks where the last look is too old: after an outage, alerts need not wait for it.
func (f *fleet) refresh(ctx context.Context) {
	f.mu.Lock()
	stale := time.Since(f.at) > fleetStale
	f.mu.Unlock()
	if stale {
		_ = f.look(ctx)
	}
}

func (f *fleet) forget() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.at = time.Time{}
}

// watch keeps the look fresh until ctx ends.
func (f *fleet) watch(ctx context.Context) {
	for sleep(ctx, fleetEvery) == nil {
		_ = f.look(ctx) // what cannot be read goes stale
	}
}

// holds is the switch of the fleet that keeps an alert with these switches from being begun.
// Where nobody can tell, all are off: a slow containment is better than one that somebody
// has just forbidden.
func (f *fleet) holds(switches []string) string {
	f.mu.Lock()
	defer f.mu.Unlock()
	if time.Since(f.at) > fleetStale {
		return string(ledger.FleetSwitch)
	}
	for _, s := range append(switches[:len(switches):len(switches)], string(ledger.FleetSwitch)) {
		if _, off := f.control.Off[ledger.Switch(s)]; off {
			return s
		}
	}
	return ""
}

// uncounted holds back an alert that breakers of the fleet have yet to count: only once Begin
// would grant it, or copies of it would be counted long after.
const uncounted = "uncounted"

// holdBack makes the claim anew of an alert that must not begin as it stands.
func (r *Responder) holdBack(ctx context.Context, c claim, a ledger.Answer) claim {
	why := a.Why
	if why == uncounted {
		if why = r.reserve(ctx, c); why == "" {
			c.Hold, c.fleet = "", nil
			return c
		}
		c.Hold = why
	}
	body := c.Body
	if a.Stored != nil {
		body = *a.Stored
	}
	body.Parked = &ledger.Parked{Raw: c.in.Raw, Reason: "held back: " + why, For: why}
	c.Park, c.ParkFrom = &body, a.StoredAt
	return c
}

// reserve has the breakers of the fleet count an alert. It returns the one that has tripped.
func (r *Responder) reserve(ctx context.Context, c claim) string {
	for _, b := range c.fleet {
		name := fmt.Sprintf("%s/%s/%s", r.cfg.Host, r.cfg.Group, c.ID)
		granted, tripped, err := ledger.Reserve(ctx, r.rdb, b, []string{name})
		if err != nil {
			r.log.Warn("a breaker of the fleet does not answer; the alert waits", "alert", c.ID, "err", err)
			return string(ledger.FleetSwitch)
		}
		if tripped {
			r.tellOfTrip(ctx, b)
		}
		if !granted[0] {
			return "breaker:fleet:" + b.Name
		}
	}
	return ""
}

// warm says whether a playbook still only observes an alert. Where Redis cannot tell, it does.
func (r *Responder) warm(book *Playbook, id stream.AlertID) bool {
	ctx, cancel := context.WithTimeout(context.Background(), r.ledger.Lease())
	defer cancel()
	warm, err := r.ledger.Warm(ctx, book.Name, book.Hash, book.Limits.WarmUp.Matches, book.Limits.WarmUp.During, id)
	if err != nil {
		r.log.Warn("cannot tell whether a playbook has warmed up; it only observes", "alert", id, "err", err)
		return true
	}
	return warm
}

// tellOfTrip publishes an alert, so that whichever playbook notifies does.
func (r *Responder) tellOfTrip(ctx context.Context, b ledger.Breaker) {
	r.log.Error("a breaker of the fleet has tripped", "breaker", b.Name, "most", b.Most, "within", b.Within)
	raw := fmt.Sprintf(`{"source":"riposte","level":"HIGH","title":"Breaker %s of the fleet has tripped",`+
		`"description":"More than %d alerts within %s. Those that follow wait until somebody runs: riposte breaker reset %s --fleet",`+
		`"rule":{"id":"riposte-breaker","name":"%s"}}`, b.Name, b.Most, b.Within, b.Name, b.Name)
	err := r.rdb.XAdd(ctx, &redis.XAddArgs{Stream: r.cfg.Host.AlertsKey(), Values: []any{"alert", raw}}).Err()
	if err != nil {
		r.log.Warn("nobody was told of it but this log", "err", err)
	}
}

// free sends alerts round again that waited for a switch or a breaker which is on again.
func (s *sweeper) free(ctx context.Context) {
	look := sync.OnceValues(func() (func(string) bool, error) {
		host, err := ledger.HostSwitches(s.rdb, s.cfg.Host).Read(ctx)
		if err != nil {
			return nil, err
		}
		fleet, err := ledger.FleetSwitches(s.rdb).Read(ctx)
		return func(why string) bool { return host.Holds(why) || fleet.Holds(why) }, err
	})
	freed, err := s.ledger.Free(ctx, func(why string) bool {
		holds, err := look()
		return err != nil || holds(why)
	}, sweepAtOnce)
	if err != nil && ctx.Err() == nil {
		s.log.Warn("cannot look for alerts that need no longer wait", "err", err)
	}
	if freed > 0 {
		s.log.Info("alerts need no longer wait", "alerts", freed)
	}
}

// counting is a breaker of a playbook as the ledger knows it.
func counting(book *Playbook, b Breaker) ledger.Breaker {
	name := book.Name
	if b.Action != "" {
		name += "/" + b.Action
	}
	return ledger.Breaker{Name: name, Most: b.Most, Within: b.Within}
}
