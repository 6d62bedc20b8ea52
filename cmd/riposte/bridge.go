package main

import (
	"github.com/spf13/cobra"

	"riposte/stream"
)

func newBridgeCmd(a *app) *cobra.Command {
	var channel string
	var forward bool
	cmd := &cobra.Command{
		Use:   "bridge",
		Short: "Carry alerts from a Redis Pub/Sub channel to the stream",
		Long: `Bridge subscribes to a Pub/Sub channel and adds what arrives to the stream of the host,
so that a detector that PUBLISHes its alerts works unchanged. Run one bridge a host.

An alert without a host belongs to the bridge's host. One that names another host becomes
a dead letter, unless --forward sends it to that host's stream. What is no alert becomes a
dead letter.

Pub/Sub keeps nothing: what is published while the bridge is not running or not connected
is lost. A detector of your own does better to XADD, or to call riposte publish. What has
arrived is held while Redis is away or full, and added again if Redis loses it in a
failover within two minutes.`,
		Example: `  riposte bridge --host web-1
  redis-cli PUBLISH high_severity_alerts '{"level":"HIGH","title":"test","actionable_pid":4711}'`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			host, err := a.host()
			if err != nil {
				return err
			}
			rdb, err := a.open(cmd.Context())
			if err != nil {
				return err
			}
			defer rdb.Close()
			pub, stop, err := a.publisher(cmd.Context(), rdb, host, forward)
			if err != nil {
				return err
			}
			defer stop()
			bridge, err := stream.NewBridge(rdb, pub, stream.BridgeConfig{Channel: channel, Log: a.log})
			if err != nil {
				return err
			}
			return bridge.Run(cmd.Context())
		},
	}
	cmd.Flags().StringVar(&channel, "channel", "high_severity_alerts", "Pub/Sub channel to subscribe to")
	cmd.Flags().BoolVar(&forward, "forward", false, "send an alert that names another host to that host's stream")
	return cmd
}
