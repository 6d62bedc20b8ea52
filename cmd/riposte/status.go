package main

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"riposte/stream"
)

func newStatusCmd(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show what is queued, held, stuck and dead, host by host",
		Long: `Status reads Redis and changes nothing: what waits in the stream, what is held by which
replica, how old it is, steps of unknown outcome, dead letters, the ledger's counts, gates
that do not fence each other, and in words what to do about it. It shows all known hosts
unless --host (or RIPOSTE_HOST) names one.`,
		Example: `  riposte status
  riposte status --host web-1 -o json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var hosts []stream.Host
			if cmd.Flag("host").Changed {
				host, err := a.host()
				if err != nil {
					return err
				}
				hosts = []stream.Host{host}
			}
			rdb, err := a.open(cmd.Context())
			if err != nil {
				return err
			}
			defer rdb.Close()
			all, err := stream.Inspect(cmd.Context(), rdb, hosts...)
			if err != nil {
				return err
			}
			if a.output == "json" {
				return a.json(all)
			}
			if len(all) == 0 {
				fmt.Fprintln(a.errw, "No host is known to this Redis yet: nothing was published, no responder has started.")
			}
			for i, s := range all {
				if i > 0 {
					fmt.Fprintln(a.out)
				}
				if err := a.printStatus(s); err != nil {
					return err
				}
			}
			return nil
		},
	}
	a.outputFlag(cmd)
	return cmd
}

func (a *app) printStatus(s stream.HostStatus) error {
	fmt.Fprintf(a.out, "host %s: %d alerts in the stream", s.Host, s.Alerts)
	if !s.LastAlert.IsZero() {
		fmt.Fprintf(a.out, ", the newest %s ago", stream.Span(s.At.Sub(s.LastAlert)))
	}
	if s.LastSeen.IsZero() {
		fmt.Fprintln(a.out, "; no responder has reported in")
	} else {
		fmt.Fprintf(a.out, "; last sign of life %s ago\n", stream.Span(s.At.Sub(s.LastSeen)))
	}
	var rows [][]string
	for _, g := range s.Groups {
		rows = append(rows, groupRow(g))
	}
	if len(rows) > 0 {
		header := []string{"GROUP", "UNREAD", "PENDING", "<1s", "<10s", "<1m", "<10m", "OLDER", "CONSUMERS", "UNKNOWN", "DEAD", "WAITING", "LEDGER"}
		if err := a.table(header, rows); err != nil {
			return err
		}
	}
	for _, line := range s.Summary {
		fmt.Fprintln(a.out, "-", plain(line))
	}
	for _, g := range s.Groups {
		for _, line := range g.Summary {
			fmt.Fprintf(a.out, "- %s: %s\n", plain(string(g.Group)), plain(line))
		}
	}
	return nil
}

func groupRow(g stream.GroupStatus) []string {
	unread := "unknown"
	if g.Lag != nil {
		unread = strconv.FormatInt(*g.Lag, 10)
	}
	active := 0
	for _, c := range g.Consumers {
		if c.Active {
			active++
		}
	}
	var ledger []string
	for _, state := range slices.Sorted(maps.Keys(g.Ledger)) {
		ledger = append(ledger, fmt.Sprintf("%s %d", state, g.Ledger[state]))
	}
	if g.Partial {
		ledger = append(ledger, "and more")
	}
	row := []string{string(g.Group), unread}
	for _, n := range []int64{g.Pending, g.Ages.Second, g.Ages.Ten, g.Ages.Minute, g.Ages.TenMin, g.Ages.Older} {
		row = append(row, strconv.FormatInt(n, 10))
	}
	return append(row,
		fmt.Sprintf("%d active, %d silent", active, len(g.Consumers)-active),
		strconv.FormatInt(g.Unknown, 10), strconv.FormatInt(g.Dead, 10), strconv.FormatInt(g.Waiting, 10), strings.Join(ledger, ", "))
}
