package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/redis/go-redis/v9"
	"github.com/spf13/cobra"

	"riposte/ledger"
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
			known := make([]knownHost, len(all))
			for i, s := range all {
				if known[i], err = a.controlled(cmd.Context(), rdb, s); err != nil {
					return err
				}
			}
			if a.output == "json" {
				return a.json(known)
			}
			if len(all) == 0 {
				fmt.Fprintln(a.errw, "No host is known to this Redis yet: nothing was published, no responder has started.")
			}
			for i, s := range known {
				if i > 0 {
					fmt.Fprintln(a.out)
				}
				if err := a.printStatus(s.HostStatus); err != nil {
					return err
				}
			}
			return nil
		},
	}
	a.outputFlag(cmd)
	return cmd
}

// knownHost is a host's status with what a person has to turn on again.
type knownHost struct {
	stream.HostStatus
	Paused  map[ledger.Switch]ledger.Note `json:"paused,omitempty"`  // switches that are off, the fleet's included
	Tripped map[string]ledger.Trip        `json:"tripped,omitempty"` // breakers; those of the fleet as fleet:NAME
}

// controlled adds what is paused and what has tripped, also in words.
func (a *app) controlled(ctx context.Context, rdb *redis.Client, s stream.HostStatus) (knownHost, error) {
	host, err := ledger.HostSwitches(rdb, s.Host).Read(ctx)
	if redis.IsPermissionError(err) {
		return knownHost{HostStatus: s}, nil
	}
	fleet, err2 := ledger.FleetSwitches(rdb).Read(ctx)
	if err := errors.Join(err, err2); err != nil && !redis.IsPermissionError(err) {
		return knownHost{}, err
	}
	k := knownHost{s, maps.Clone(host.Off), maps.Clone(host.Tripped)}
	say := func(where string, off map[ledger.Switch]ledger.Note) {
		for _, name := range slices.Sorted(maps.Keys(off)) {
			n := off[name]
			k.Summary = append(k.Summary, fmt.Sprintf("PAUSED: %s %s, by %s at %s%s; see riposte resume --help",
				strings.TrimPrefix(string(name), "pause:"), where, n.By, ledger.Stamp(n.At), because(n.Note)))
		}
	}
	say("on this host", host.Off)
	say("everywhere", fleet.Off)
	maps.Copy(k.Paused, fleet.Off)
	maps.Copy(k.Tripped, fleet.Tripped)
	for _, name := range slices.Sorted(maps.Keys(k.Tripped)) {
		t := k.Tripped[name]
		where := " --host " + string(s.Host)
		own, ofFleet := strings.CutPrefix(name, "fleet:")
		if ofFleet {
			where = " --fleet"
		}
		k.Summary = append(k.Summary, fmt.Sprintf("BREAKER %s has tripped at %s: more than %d alerts within %s; look, then: riposte breaker reset %s%s",
			name, ledger.Stamp(t.At), t.Most, stream.Span(t.Within), own, where))
	}
	return k, nil
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
