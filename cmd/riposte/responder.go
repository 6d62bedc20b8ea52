package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/spf13/cobra"

	"riposte/ledger"
	"riposte/playbook"
	"riposte/playbook/action"
	"riposte/playbook/gate"
	"riposte/playbook/guard"
	"riposte/stream"
)

// responder is the command line of one replica.
type responder struct {
	*app
	folders
	group, mode, books, zone, trace      string
	allow                                string
	lease, maxAge                        time.Duration
	concurrency                          int
	allowVolatile, insecureRedis, ownUID bool
	unfenced, waitAOF                    bool
	waitReplicas                         int
}

func newResponderCmd(a *app) *cobra.Command {
	r := &responder{app: a}
	cmd := &cobra.Command{
		Use:   "responder",
		Short: "Claim alerts and carry out their playbooks",
		Long: `Claim alerts of a host, carry out the playbooks that match, and record what came of it.

Start as many replicas as you like: each alert is handled by one of them. In mode observe,
the default, nothing is touched and the ledger tells what would have been done; in mode
approve, it is done once somebody says so by riposte approve. A playbook may be more careful
than the responder, and never less.

Playbooks and the allow-list are read again when a file changes, and on SIGHUP: all of them,
or, where one has an error, none.`,
		Example: `  riposte responder --host web-1
  riposte responder --host web-1 --mode enforce --playbooks /etc/riposte/playbooks
  riposte responder --redis unix:///run/redis.sock --own-uid --mode enforce --playbooks ./mine`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return r.run(cmd.Context()) },
	}
	f := cmd.Flags()
	f.StringVar(&r.group, "group", string(stream.DefaultGroup), "consumer `group`")
	f.Var(newChoice(&r.mode, playbook.Modes...), "mode", "whether effects happen")
	f.StringVar(&r.books, "playbooks", "", "`folder` of playbooks (default: the embedded one)")
	allowFlag(f, &r.allow)
	f.Var(newSpan(&r.lease, 5*time.Second, ledger.ShortestLease, time.Hour), "lease", "how long a replica that hangs keeps an alert")
	f.Var(newCount(&r.concurrency, 64, 1, playbook.MostConcurrency), "concurrency", "alerts worked on at once")
	f.Var(newSpan(&r.maxAge, 10*time.Minute, time.Second, playbook.OldestAlert), "max-age", "age from which an alert is expired")
	f.StringVar(&r.zone, "timezone", "", "`zone` of timestamps that name none, such as Europe/Berlin (default: the host's)")
	f.BoolVar(&r.allowVolatile, "allow-volatile", false, "enforce with a Redis that may forget")
	f.BoolVar(&r.insecureRedis, "insecure-redis", false, "enforce with a Redis that asks for no password")
	f.BoolVar(&r.ownUID, "own-uid", false, "act only on processes of this user; to terminate them then needs no capability")
	f.BoolVar(&r.unfenced, "unfenced", false, "enforce beside replicas of this host that use another --runtime-dir")
	f.Var(newCount(&r.waitReplicas, 0, 0, 0), "wait-replicas", "`replicas` of Redis that must know before an at-most-once action begins")
	f.BoolVar(&r.waitAOF, "wait-aof", false, "wait for append-only files to be synced, too, before an at-most-once action begins; Redis 7.2 and above")
	f.StringVar(&r.trace, "trace", "", "append begin and end of every effect to `file`; what it cannot take is not begun")
	r.folders.flags(cmd)
	return cmd
}

func (r *responder) run(ctx context.Context) (err error) {
	host, err := r.host()
	if err != nil {
		return err
	}
	group, err := stream.ParseGroup(r.group)
	if err != nil {
		return &usageError{err.Error()}
	}
	zone := time.Local
	if r.zone != "" {
		if zone, err = time.LoadLocation(r.zone); err != nil {
			return &usageError{fmt.Sprintf("--timezone: %v", err)}
		}
	}
	mode := playbook.Mode(r.mode)
	playbooks, allow := newSource("playbooks", r.books), newSource("allow-list", r.allow)
	books, err := loadPlaybooks(r.books, group)
	if err != nil {
		return err
	}
	list, err := loadAllow(r.allow)
	if err != nil {
		return err
	}
	if err := checkCapabilities(books, mode, r.ownUID); err != nil {
		return err
	}
	if mode == playbook.Observe && checkCapabilities(books, playbook.Enforce, r.ownUID) != nil {
		r.log.Warn("this process lacks capabilities that enforce would need; what it cannot look at, it reports as refused")
	}
	// A renewal must not queue behind the records of all workers, who may be twice as many for a
	// moment: those of a read that was under way while a dead peer was taken over from.
	r.redis.PoolSize = 2*r.concurrency + 16
	rdb, err := r.open(ctx)
	if err != nil {
		return err
	}
	defer rdb.Close()
	warning, err := stream.CheckVersion(ctx, rdb)
	if err != nil {
		return err
	}
	if warning != "" {
		r.log.Warn(warning)
	}
	if err := r.checkRedis(ctx, rdb, mode); err != nil {
		return err
	}
	m, err := r.join(host, r.group)
	if err != nil {
		return err
	}
	// The life file stays: once unlocked it is the proof by which peers take over at once.
	defer m.gate.Close()
	var trace *playbook.Trace
	if r.trace != "" {
		if trace, err = playbook.OpenTrace(r.trace); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, trace.Close()) }()
	}
	peers := redisPeers(rdb)
	peers.renew(ctx) // it has just answered, so its name resolves now
	floor := &guard.Floor{Members: m.living, RedisPeers: peers.known}
	defer func() { err = errors.Join(err, floor.Close()) }()
	protected := &guard.Allowing{Floor: floor}
	if list != nil {
		r.log.Info("allow-list read", setAllow(r.log, protected, list)...)
	}
	replica, err := playbook.New(rdb, m.gate, playbook.Config{
		Name: m.name, Host: host, Group: group, Playbooks: books, Mode: mode, MaxAge: r.maxAge, Zone: zone,
		Lease: r.lease, Concurrency: r.concurrency,
		Guard: protected, Reach: reach(rdb),
		OwnUID: r.ownUID, State: r.folders.state, Unfenced: r.unfenced, Replication: r.replication(), Out: r.out, Trace: trace, Log: r.log,
	})
	if err != nil {
		return &usageError{err.Error()}
	}
	var upkeep sync.WaitGroup
	maintaining, stop := context.WithCancel(ctx) // until the replica has stopped, for whatever reason
	atOnce := make(chan struct{}, 1)
	playbooks.again = func() ([]any, error) { return r.rereadPlaybooks(replica, group) }
	allow.again = func() ([]any, error) {
		list, err := loadAllow(r.allow)
		if err != nil {
			return nil, err
		}
		defer tell(atOnce) // when it is in force
		return setAllow(r.log, protected, list), nil
	}
	upkeep.Go(func() {
		maintain(maintaining, r.log, m.gate, action.Env{Guard: protected, Reach: reach(rdb), Lapsed: lapsed(rdb, m.name)}, mode, atOnce)
	})
	upkeep.Go(func() { peers.keep(maintaining) })
	upkeep.Go(func() { r.keepLoaded(maintaining, playbooks, allow) })
	err = errors.Join(replica.Run(ctx), m.life.Retire())
	stop()
	upkeep.Wait()
	r.log.Info("responder has stopped", "replica", m.name, "settled", replica.Settled.Load())
	return err
}

// loadPlaybooks are those that the replicas of a group run.
func loadPlaybooks(dir string, group stream.Group) ([]*playbook.Playbook, error) {
	if dir == "" {
		return playbook.Default()
	}
	books, err := playbook.Load(dir)
	if err != nil {
		return nil, err
	}
	own := playbook.Of(group, books)
	if len(own) == 0 {
		return nil, fmt.Errorf("playbooks: none in %s is for group %s", dir, group)
	}
	return own, nil
}

// rereadPlaybooks gives a replica the playbooks as they are by now.
func (r *responder) rereadPlaybooks(replica *playbook.Responder, group stream.Group) ([]any, error) {
	books, err := loadPlaybooks(r.books, group)
	if err == nil {
		err = checkCapabilities(books, playbook.Mode(r.mode), r.ownUID)
	}
	if err != nil {
		return nil, err
	}
	replica.Reload(books)
	return []any{"playbooks", len(books), "names", names(books)}, nil
}

// checkCapabilities refuses to start a replica that could not do what it is asked to.
func checkCapabilities(books []*playbook.Playbook, mode playbook.Mode, ownUID bool) error {
	missing, err := action.Missing(playbook.Capabilities(books, mode, ownUID))
	if err != nil || len(missing) == 0 {
		return err
	}
	names := make([]string, len(missing))
	for i, c := range missing {
		names[i] = string(c)
	}
	all := strings.ToLower(strings.Join(names, ","))
	return fmt.Errorf(`the playbooks need %s, which this process does not have; grant it, for example:
  sudo setcap %s+ep $(command -v riposte)
  AmbientCapabilities=%s in a systemd unit, or cap_add in docker-compose.yml
or act only on processes of your own user with --own-uid, or only watch with --mode observe`,
		strings.Join(names, ", "), all, strings.Join(names, " "))
}

func (r *responder) checkRedis(ctx context.Context, rdb *redis.Client, mode playbook.Mode) error {
	if !mode.Acts() {
		return nil
	}
	if !r.insecureRedis {
		if err := stream.CheckPrivate(rdb); err != nil {
			return err
		}
	}
	if !r.allowVolatile {
		if err := stream.CheckDurable(ctx, rdb); err != nil {
			return err
		}
	}
	return ledger.CheckReplication(ctx, rdb, r.replication())
}

func (r *responder) replication() ledger.Replication {
	return ledger.Replication{Replicas: r.waitReplicas, Synced: r.waitAOF, Patience: time.Second}
}

const (
	upkeepEvery   = 30 * time.Second
	receiptsStay  = 8 * 24 * time.Hour // longer than a ledger entry
	cleaningEvery = time.Hour
)

// maintain does what time alone asks for: firewall rules that cannot expire by themselves,
// blocks of what is protected by now, blocks and an isolation that a reboot or somebody else has
// ended before their time, and receipts that nobody can ask for any more. atOnce asks for it
// before its time.
func maintain(ctx context.Context, log *slog.Logger, g *gate.Gate, env action.Env, mode playbook.Mode, atOnce <-chan struct{}) {
	tick := time.NewTicker(upkeepEvery)
	defer tick.Stop()
	var cleaned time.Time
	for {
		// Also where this replica only observes: what was blocked before must end all the same.
		if n, err := action.SweepExpired(ctx); err != nil && ctx.Err() == nil {
			log.Warn("expired iptables rules not removed", "err", err)
		} else if n > 0 {
			log.Info("removed expired iptables rules", "rules", n)
		}
		if mode.Acts() {
			liftProtected(ctx, log, g, env)
			n, err := action.Reassert(ctx, g, env)
			if err != nil && ctx.Err() == nil {
				log.Warn("blocks or an isolation not put back", "err", err)
			}
			if n > 0 {
				log.Info("put back what the firewall lacked", "blocks", n)
			}
		}
		if now := time.Now(); now.Sub(cleaned) > cleaningEvery {
			cleaned = now
			if n, err := g.Clean(now.Add(-receiptsStay)); err != nil {
				log.Warn("old receipts not removed", "err", err)
			} else if n > 0 {
				log.Info("removed old receipts", "receipts", n)
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-atOnce:
		case <-tick.C:
		}
	}
}
