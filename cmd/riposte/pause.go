package main

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/redis/go-redis/v9"
	"github.com/spf13/cobra"

	"riposte/ledger"
	"riposte/stream"
)

// switching is the command line of what turns switches off and on.
type switching struct {
	*app
	group, playbook string
}

func (s *switching) flags(cmd *cobra.Command) {
	cmd.Flags().StringVar(&s.group, "group", "", "only this consumer `group`")
	cmd.Flags().StringVar(&s.playbook, "playbook", "", "only alerts that this `playbook` is to be run for")
	cmd.MarkFlagsMutuallyExclusive("group", "playbook")
	s.outputFlag(cmd)
}

// board is the switchboard that is meant, and where it is, in words: that of a host if one is
// named, else the fleet's.
func (s *switching) board(cmd *cobra.Command, rdb *redis.Client) (*ledger.Switchboard, string, error) {
	if !cmd.Flag("host").Changed {
		return ledger.FleetSwitches(rdb), "every host", nil
	}
	host, err := s.host()
	if err != nil {
		return nil, "", err
	}
	return ledger.HostSwitches(rdb, host), "host " + string(host), nil
}

// which switch is meant, and what it is for, in words.
func (s *switching) which(cmd *cobra.Command) (ledger.Switch, string, error) {
	switch {
	case s.group != "":
		group, err := stream.ParseGroup(s.group)
		if err != nil {
			return "", "", &usageError{err.Error()}
		}
		return ledger.GroupSwitch(group), "group " + s.group + " on ", nil
	case s.playbook != "":
		if strings.ContainsAny(s.playbook, " \t\n") {
			return "", "", &usageError{fmt.Sprintf("--playbook %q is no name of a playbook", s.playbook)}
		}
		return ledger.PlaybookSwitch(s.playbook), "playbook " + s.playbook + " on ", nil
	case cmd.Flag("host").Changed:
		return ledger.HostSwitch, "", nil
	}
	return ledger.FleetSwitch, "", nil
}

// turn is a command that does something to the switch that is meant, which is for what, where.
func (s *switching) turn(do func(cmd *cobra.Command, board *ledger.Switchboard, name ledger.Switch, what, where string) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, _ []string) error {
		name, what, err := s.which(cmd)
		if err != nil {
			return err
		}
		rdb, err := s.open(cmd.Context())
		if err != nil {
			return err
		}
		defer rdb.Close()
		board, where, err := s.board(cmd, rdb)
		if err != nil {
			return err
		}
		return do(cmd, board, name, what, where)
	}
}

// switched is what became of it, for scripts.
type switched struct {
	Switch  string       `json:"switch"`
	Where   string       `json:"where"`
	Changed bool         `json:"changed"`
	Paused  *ledger.Note `json:"paused,omitempty"` // by whom, since when, why
}

func newPauseCmd(a *app) *cobra.Command {
	s := &switching{app: a}
	var reason string
	cmd := &cobra.Command{
		Use:   "pause",
		Short: "Have nothing more begun: everywhere, on a host, in a group, or by a playbook",
		Long: `Pause keeps responders from beginning alerts, from the next one on: within a second on
every host, or only on --host, in --group or for --playbook. What is under way comes to its
end. Alerts that come meanwhile wait, and are begun after riposte resume where they have not
expired by then.`,
		Example: `  riposte pause --reason "false positives after the deployment of 14:00"
  riposte pause --host web-1
  riposte pause --playbook cryptominer --reason OPS-4711`,
		Args: cobra.NoArgs,
		RunE: s.turn(func(cmd *cobra.Command, board *ledger.Switchboard, name ledger.Switch, what, where string) error {
			by := person()
			note, err := board.Pause(cmd.Context(), name, by, reason)
			if err != nil {
				return err
			}
			if a.output == "json" {
				return a.json(switched{string(name), where, note.By == by && note.Note == reason, &note})
			}
			_, err = fmt.Fprintf(a.out, "%s%s: paused by %s at %s%s\n", what, where, plain(note.By), ledger.Stamp(note.At), plain(because(note.Note)))
			return err
		}),
	}
	cmd.Flags().StringVar(&reason, "reason", "", "why, for whoever wonders")
	s.flags(cmd)
	return cmd
}

func newResumeCmd(a *app) *cobra.Command {
	s := &switching{app: a}
	cmd := &cobra.Command{
		Use:   "resume",
		Short: "Undo riposte pause, with the same flags",
		Long: `Resume undoes riposte pause, with the same flags. What waits is begun within seconds, where it has
not expired. Each switch is on its own: with the fleet resumed, a host that was paused by
--host stays so.`,
		Example: `  riposte resume
  riposte resume --playbook cryptominer`,
		Args: cobra.NoArgs,
		RunE: s.turn(func(cmd *cobra.Command, board *ledger.Switchboard, name ledger.Switch, what, where string) error {
			was, err := board.Resume(cmd.Context(), name)
			if err != nil {
				return err
			}
			switch {
			case a.output == "json":
				return a.json(switched{Switch: string(name), Where: where, Changed: was})
			case was:
				_, err = fmt.Fprintf(a.out, "%s%s: resumed\n", what, where)
			default:
				_, err = fmt.Fprintf(a.out, "%s%s: was not paused; riposte status shows what is\n", what, where)
			}
			return err
		}),
	}
	s.flags(cmd)
	return cmd
}

func because(why string) string {
	if why == "" {
		return ""
	}
	return ": " + why
}

func newBreakerCmd(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "breaker",
		Short: "Show breakers that have tripped, and reset them",
		Example: `  riposte breaker list
  riposte breaker reset cryptominer --host web-1`,
	}
	cmd.AddCommand(newBreakerListCmd(a), newBreakerResetCmd(a))
	return cmd
}

// trippedBreaker is one that has tripped, for scripts.
type trippedBreaker struct {
	Breaker string `json:"breaker"`
	Where   string `json:"where"` // a host, or "fleet"
	ledger.Trip
	At     string `json:"at"`
	Within string `json:"within"`
}

func newBreakerListCmd(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List the breakers that have tripped",
		Long: `List shows the breakers that have tripped: those of the fleet, and those of all known hosts
unless --host (or RIPOSTE_HOST) names one.`,
		Example: `  riposte breaker list
  riposte breaker list --host web-1 -o json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			rdb, err := a.open(cmd.Context())
			if err != nil {
				return err
			}
			defer rdb.Close()
			var hosts []stream.Host
			if cmd.Flag("host").Changed {
				host, err := a.host()
				if err != nil {
					return err
				}
				hosts = []stream.Host{host}
			} else {
				known, err := stream.Hosts(cmd.Context(), rdb)
				if err != nil {
					return err
				}
				for _, k := range known {
					hosts = append(hosts, k.Host)
				}
			}
			fleet, err := ledger.FleetSwitches(rdb).Read(cmd.Context())
			if err != nil {
				return err
			}
			all := []trippedBreaker{}
			add := func(where string, c ledger.Control) {
				for _, name := range slices.Sorted(maps.Keys(c.Tripped)) {
					t := c.Tripped[name]
					all = append(all, trippedBreaker{strings.TrimPrefix(name, "fleet:"), where, t, ledger.Stamp(t.At), stream.Span(t.Within)})
				}
			}
			add("fleet", fleet)
			for _, h := range hosts {
				control, err := ledger.HostSwitches(rdb, h).Read(cmd.Context())
				if err != nil {
					return err
				}
				add(string(h), control)
			}
			if a.output == "json" {
				return a.json(all)
			}
			var rows [][]string
			for _, b := range all {
				rows = append(rows, []string{b.Breaker, b.Where, b.At, fmt.Sprintf("%d within %s", b.Most, b.Within), b.Alert})
			}
			return a.table([]string{"BREAKER", "WHERE", "TRIPPED", "LIMIT", "ALERT"}, rows)
		},
	}
	a.outputFlag(cmd)
	return cmd
}

func newBreakerResetCmd(a *app) *cobra.Command {
	var fleet bool
	cmd := &cobra.Command{
		Use:   "reset NAME",
		Short: "Re-arm a breaker that has tripped",
		Long: `Reset re-arms a breaker: it counts from zero, and the alerts that wait for it are begun within
seconds, where they have not expired. Look first at what tripped it. NAME is that of its
playbook, with /ACTION where the breaker is about one action.`,
		Example: `  riposte breaker reset cryptominer --host web-1
  riposte breaker reset cryptominer/terminate_process --fleet`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			host, err := a.host()
			if err != nil && !fleet {
				return err
			}
			rdb, err := a.open(cmd.Context())
			if err != nil {
				return err
			}
			defer rdb.Close()
			board := ledger.HostSwitches(rdb, host)
			if fleet {
				board = ledger.FleetSwitches(rdb)
			}
			was, err := board.Reset(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			if a.output == "json" {
				err = a.json(map[string]any{"breaker": args[0], "reset": was})
			} else if was {
				_, err = fmt.Fprintf(a.out, "breaker %s: reset\n", plain(args[0]))
			}
			if err == nil && !was {
				err = errors.New("breaker " + args[0] + " has not tripped; see riposte breaker list, and --host or --fleet")
			}
			return err
		},
	}
	cmd.Flags().BoolVar(&fleet, "fleet", false, "the breaker that counts over all hosts")
	a.outputFlag(cmd)
	return cmd
}
