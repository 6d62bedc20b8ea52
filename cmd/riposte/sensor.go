package main

import (
	"context"
	"errors"
	"time"

	"github.com/spf13/cobra"

	"riposte/sensor"
)

func newSensorCmd(a *app) *cobra.Command {
	var cfg sensor.Config
	var rules string
	var where folders
	cmd := &cobra.Command{
		Use:   "sensor",
		Short: "Watch this host's processes and raise alerts",
		Long: `Watch this host's processes and publish an alert for each suspicious chain.

Source proc is told of every program by the kernel (netlink proc connector; needs root in the
initial namespaces). Source poll looks at the list of processes again and again, and misses
what lives shorter than its interval. auto takes proc where it works, and says why where not.

Alerts are held in memory while Redis is away or full, and for two minutes more: those that
Redis loses in a failover are published again.`,
		Example: `  riposte sensor --host web-1
  riposte sensor --source poll --poll-interval 50ms
  riposte sensor --rules /etc/riposte/rules`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return a.sense(cmd.Context(), cfg, rules, &where) },
	}
	f := cmd.Flags()
	f.Var(newChoice(&cfg.Source, sensor.SourceAuto, sensor.SourceProc, sensor.SourcePoll), "source", "how processes are seen")
	f.Var(newSpan(&cfg.PollInterval, 100*time.Millisecond, time.Millisecond, time.Minute), "poll-interval", "how often source poll looks")
	f.StringVar(&rules, "rules", "", "`folder` of rules (default: the built-in ones)")
	where.flags(cmd)
	return cmd
}

func (a *app) sense(ctx context.Context, cfg sensor.Config, rules string, where *folders) (err error) {
	if cfg.Host, err = a.host(); err != nil {
		return err
	}
	if rules != "" {
		if cfg.Rules, err = sensor.LoadRules(rules); err != nil {
			return err
		}
	}
	rdb, err := a.open(ctx)
	if err != nil {
		return err
	}
	defer rdb.Close()
	m, err := where.join(cfg.Host, "")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, m.leave()) }()
	cfg.Log = a.log
	publisher, stop, err := a.publisher(ctx, rdb, cfg.Host, false)
	if err != nil {
		return err
	}
	defer stop()
	s, err := sensor.New(cfg, publisher)
	if err != nil {
		return err
	}
	return s.Run(ctx)
}
