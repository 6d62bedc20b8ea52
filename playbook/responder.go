package playbook

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"

	"riposte/ledger"
	"riposte/playbook/action"
	"riposte/playbook/gate"
	"riposte/stream"
)

// Config of a Responder. Zero values mean the defaults.
type Config struct {
	Name  string // consumer name HOST-PID-RANDOM, never reused; the gate was opened under it
	Host  stream.Host
	Group stream.Group // default containment

	Playbooks   []*Playbook
	Mode        Mode           // default observe
	MaxAge      time.Duration  // of an alert, after which nothing is begun; default 10 min
	Zone        *time.Location // of timestamps without a zone; default the host's
	Lease       time.Duration  // default 5 s; a live replica renews it every third
	Concurrency int            // alerts worked on at once; default 64

	Guard action.Guard // the floor; required
	// Reach makes a fresh connection to Redis, to see whether an isolated host still can. Where
	// it is nil no host is isolated.
	Reach  func(ctx context.Context) error
	OwnUID bool   // act only on processes of this process's own user
	State  string // folder of what effects keep: evidence, quarantined files
	// Unfenced accepts replicas that enforce on this host through another gate, and do not
	// share its fence and its proofs of death with this one.
	Unfenced bool
	// Replication is asked for before an at-most-once effect.
	Replication ledger.Replication
	Out         io.Writer    // where the log action writes; required
	Trace       *Trace       // may be nil
	Log         *slog.Logger // required
}

// OldestAlert is the highest MaxAge: well below the retention of the ledger, which must know
// an alert for as long as it can come again.
const OldestAlert = 24 * time.Hour

// MostConcurrency is the highest Concurrency: each alert worked on takes connections to Redis.
const MostConcurrency = 4096

const (
	stopPatience = 2 * time.Second // for what is left to be written down when a stop is asked for
	gateMargin   = 2 * time.Second // beyond a step's timeout, after which who is inside is hung
	gatePoll     = 10 * time.Millisecond
	upkeepEvery  = 3 * time.Second // well below the silence that status reports
	gateHeld     = 5 * upkeepEvery // how long a registered gate keeps others away
	keepAlerts   = 24 * time.Hour  // in the stream, after every group has acked them
	mostAlerts   = 100_000         // above which that no longer counts
)

// Validate fills in defaults and checks relations.
func (c *Config) Validate() error {
	c.Group = orDefault(c.Group, stream.DefaultGroup)
	c.Mode = orDefault(c.Mode, Observe)
	c.MaxAge = orDefault(c.MaxAge, 10*time.Minute)
	c.Lease = orDefault(c.Lease, 5*time.Second)
	c.Concurrency = orDefault(c.Concurrency, 64)
	if c.Zone == nil {
		c.Zone = time.Local
	}
	switch {
	case c.Name == "" || c.Host == "" || c.Guard == nil || c.Out == nil || c.Log == nil:
		return errors.New("responder: name, host, guard, output and log are required")
	case len(c.Playbooks) == 0:
		return errors.New("responder: no playbooks")
	case c.Concurrency < 1 || c.Concurrency > MostConcurrency:
		return fmt.Errorf("concurrency %d: want 1 to %d", c.Concurrency, MostConcurrency)
	case c.MaxAge < time.Second || c.MaxAge > OldestAlert:
		return fmt.Errorf("max-age %v: want 1s to 24h, well below the ledger's retention", c.MaxAge)
	}
	return nil
}

func orDefault[T comparable](v, fallback T) T {
	var zero T
	if v == zero {
		return fallback
	}
	return v
}

// Responder is one replica.
type Responder struct {
	cfg      Config
	log      *slog.Logger
	consumer *stream.Consumer
	ledger   *ledger.Ledger
	gate     *gate.Gate
	rdb      redis.UniversalClient
	planner  atomic.Pointer[Planner]
	fleet    *fleet
	workers  *workers
	grants   *grants
	later    *later
	suspects *suspects
	dead     atomic.Pointer[[]string] // names proven dead, for Begin
	floor    atomic.Uint64            // the newest epoch the gate has named to us
	strays   map[stream.Group]bool    // groups nobody can serve, of which upkeep has said so
	working  sync.WaitGroup

	// Settled is how many alerts this replica brought to an end.
	Settled atomic.Int64
}

// New checks the configuration and returns a replica. Nothing is sent yet.
func New(rdb redis.UniversalClient, g *gate.Gate, cfg Config) (*Responder, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	workers := newWorkers(cfg.Concurrency)
	led, err := ledger.New(rdb, ledger.Config{
		Host: cfg.Host, Group: cfg.Group, Owner: cfg.Name, Gate: g.ID(), Lease: cfg.Lease, Siblings: workers.atWork,
	})
	if err != nil {
		return nil, err
	}
	log := cfg.Log.With("replica", cfg.Name)
	r := &Responder{
		cfg: cfg, log: log, ledger: led, gate: g, rdb: rdb, fleet: &fleet{rdb: rdb, at: time.Now()},
		consumer: stream.NewConsumer(rdb, cfg.Host, cfg.Group, cfg.Name),
		workers:  workers, grants: newGrants(led, log), later: newLater(), suspects: newSuspects(),
		strays: map[stream.Group]bool{},
	}
	r.Reload(cfg.Playbooks)
	return r, nil
}

// Reload has alerts that are begun from now on planned with other playbooks. What was begun
// keeps its plan. It may be called at any time.
func (r *Responder) Reload(books []*Playbook) {
	r.planner.Store(&Planner{Host: r.cfg.Host, Playbooks: books, Mode: r.cfg.Mode, MaxAge: r.cfg.MaxAge, Zone: r.cfg.Zone, Warm: r.warm})
}

// Run works until ctx ends. Then it finishes or hands back what it holds, without waiting
// for a lease, and returns after all its goroutines have. Outages of Redis are survived.
func (r *Responder) Run(ctx context.Context) error {
	if err := r.prepare(ctx); err != nil {
		if ctx.Err() != nil {
			return nil // stopped before there was anything to hand back
		}
		return err
	}
	ctx, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	r.log.Info("responder is ready", "host", r.cfg.Host, "group", r.cfg.Group, "mode", r.cfg.Mode, "playbooks", len(r.cfg.Playbooks))
	// Leases are renewed until the last worker is through, also while stopping, and the gate
	// stays registered.
	renewing, renewed := context.WithCancel(context.WithoutCancel(ctx))
	var loops, renewer sync.WaitGroup
	renewer.Go(func() { r.grants.renew(renewing) })
	renewer.Go(func() { r.keepRegistered(renewing, fail) })
	loops.Go(func() { r.sweep(ctx) })
	loops.Go(func() { r.fleet.watch(ctx) })
	loops.Go(func() { r.upkeep(ctx) })
	r.read(ctx)
	loops.Wait()
	r.working.Wait()
	renewed()
	renewer.Wait()
	r.unregister(ctx)
	var clash *ledger.OtherGateError
	if errors.As(context.Cause(ctx), &clash) {
		return clash
	}
	return nil
}

// prepare makes sure of the group, and that no replica enforces through another gate. A
// gate that was left behind, by a container that was replaced say, is waited out.
func (r *Responder) prepare(ctx context.Context) error {
	if err := r.consumer.Ensure(ctx); err != nil {
		return err
	}
	if err := r.fleet.look(ctx); err != nil {
		r.log.Warn("cannot read the fleet's switches; alerts wait until that works", "err", err)
		r.fleet.forget()
	}
	if err := r.ledger.Load(ctx); err != nil {
		r.log.Debug("scripts not loaded; the first call of each will be", "err", err)
	}
	for deadline := time.Now().Add(gateHeld + time.Second); ; {
		err := r.register(ctx)
		var clash *ledger.OtherGateError
		if !errors.As(err, &clash) || time.Now().After(deadline) {
			return err
		}
		r.log.Warn("waiting whether the other gate is still in use", "err", err)
		if err := sleep(ctx, time.Second); err != nil {
			return err
		}
	}
}

// register tells the host through which gate this replica enforces, if it does.
func (r *Responder) register(ctx context.Context) error {
	if !r.cfg.Mode.Acts() {
		return nil
	}
	return r.ledger.Register(ctx, gateHeld, r.cfg.Unfenced)
}

func (r *Responder) unregister(ctx context.Context) {
	if !r.cfg.Mode.Acts() {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopPatience)
	defer cancel()
	if err := r.ledger.Unregister(ctx); err != nil {
		r.log.Debug("gate stays registered for a moment", "err", err)
	}
}

// read feeds new alerts to free workers, no more than they can start.
func (r *Responder) read(ctx context.Context) {
	trouble := patient(50*time.Millisecond, 2*time.Second)
	bound := newReadBound()
	for {
		free, err := r.workers.gather(ctx)
		if err != nil {
			return
		}
		deliveries, err := r.consumer.Read(ctx, min(free, bound.count()))
		if ctx.Err() != nil {
			return // what was just read is taken over from us: our life file is about to be free
		}
		if err != nil {
			r.log.Warn("cannot read alerts; trying again", "err", err)
			r.later.orphans.Store(true) // the reply may be what was lost
			if sleep(ctx, trouble.NextBackOff()) != nil {
				return
			}
			continue
		}
		trouble.Reset()
		if len(deliveries) > 0 {
			crashpoint(atRead)
		}
		bound.saw(deliveries)
		r.dispatch(ctx, fresh(deliveries))
	}
}

// keepRegistered tells that this replica's gate is in use. It fails the replica where another
// gate has come into use while ours was not registered: after Redis has lost its memory, say.
func (r *Responder) keepRegistered(ctx context.Context, fail context.CancelCauseFunc) {
	for sleep(ctx, upkeepEvery) == nil {
		var clash *ledger.OtherGateError
		if err := r.register(ctx); errors.As(err, &clash) {
			r.log.Error("this replica stops", "err", err)
			fail(err)
			return
		} else if err != nil && ctx.Err() == nil {
			r.log.Debug("gate not registered", "err", err)
		}
	}
}

// upkeep tells that the host is alive, and drops alerts that every group is through with.
func (r *Responder) upkeep(ctx context.Context) {
	for {
		if err := r.consumer.Alive(ctx, r.cfg.Host, time.Now()); err != nil && ctx.Err() == nil {
			r.log.Debug("no sign of life", "err", err)
		}
		r.undertake(ctx)
		if n, err := r.consumer.Trim(ctx, keepAlerts, mostAlerts); err != nil && ctx.Err() == nil {
			r.log.Debug("alerts not trimmed", "err", err)
		} else if n > 0 {
			r.log.Info("dropped alerts that every group has acked", "alerts", n)
		}
		if sleep(ctx, upkeepEvery) != nil {
			return
		}
	}
}

// start puts a worker to work on a grant.
func (r *Responder) start(ctx context.Context, g *ledger.Grant, in intake, work func(context.Context, *ledger.Grant) error) {
	granted, done := r.grants.add(ctx, g)
	r.working.Go(func() {
		defer r.workers.fire(1)
		err := work(granted, g)
		done()
		if err == nil {
			r.release(in)
			return
		}
		var stale *gate.StaleError
		switch {
		case errors.Is(err, ledger.ErrLost):
			r.log.Info("grant lost; another replica goes on", "alert", g.ID, "err", err)
			r.release(in)
			return
		case errors.As(err, &stale):
			r.raiseFloor(stale.Newest) // after a failover: begin anew above it
		case ctx.Err() == nil:
			r.log.Error("alert put back", "alert", g.ID, "err", err)
		}
		r.handBack(ctx, g, err)
		r.putOff(in, r.ledger.Lease()/4)
	})
}

func (r *Responder) raiseFloor(to uint64) {
	for {
		now := r.floor.Load()
		if now >= to || r.floor.CompareAndSwap(now, to) {
			return
		}
	}
}

func (r *Responder) handBack(ctx context.Context, g *ledger.Grant, cause error) {
	patience := r.ledger.Lease()
	if ctx.Err() != nil {
		patience = stopPatience
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), patience)
	defer cancel()
	if err := r.ledger.Release(ctx, g, clip(cause.Error(), 200)); err != nil {
		r.log.Warn("grant not handed back; its lease will run out", "alert", g.ID, "err", err)
	}
}

// enter passes the gate, waiting for whoever is inside without occupying a worker. One
// that has overstayed is frozen or hung, and is ended: the kernel then frees its lock.
func (r *Responder) enter(ctx context.Context, s gate.Step, token ledger.Token) (*gate.Pass, error) {
	told := "" // of whom
	for {
		// Never while resting: who is inside and waits for a worker would overstay.
		pass, err := r.gate.Enter(s, gate.Token(token))
		var busy *gate.BusyError
		if !errors.As(err, &busy) {
			return pass, err
		}
		ended, err := r.gate.End(busy.Holder)
		if (ended || err != nil) && busy.Holder.Replica != told {
			told = busy.Holder.Replica // its children may keep the lock for a while
			if err != nil {
				r.log.Error("a replica is stuck inside an effect and cannot be ended from here; end it by hand", "stuck", told, "step", s.Key, "err", err)
			} else {
				r.log.Warn("ended a replica that was stuck inside an effect", "stuck", told, "step", s.Key)
			}
		}
		if err := r.workers.rest(ctx, func() error { return sleep(ctx, gatePoll) }); err != nil {
			return nil, err
		}
	}
}

// settled tells what became of a step, and counts alerts that are through.
func (r *Responder) settled(g *ledger.Grant, i int) {
	s := g.Body.Steps[i]
	r.log.Info("step settled", "alert", g.ID, "step", s.Playbook+"/"+s.Step, "outcome", s.Outcome, "reason", s.Reason)
	if i == len(g.Body.Steps)-1 {
		r.Settled.Add(1)
	}
}
