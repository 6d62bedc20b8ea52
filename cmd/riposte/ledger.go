package main

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/spf13/cobra"

	"riposte/ledger"
	"riposte/playbook"
	"riposte/playbook/action"
	"riposte/stream"
)

// booking is the command line of what reads the ledger and the dead letters.
type booking struct {
	*app
	group string
}

// newBooking gives a command, and those below it, --group.
func newBooking(a *app, cmd *cobra.Command) *booking {
	b := &booking{app: a}
	cmd.PersistentFlags().StringVar(&b.group, "group", string(stream.DefaultGroup), "consumer `group`")
	return b
}

// read opens the ledger of a host that is known. The caller calls done.
func (b *booking) read(ctx context.Context) (r *ledger.Reader, rdb *redis.Client, done func(), err error) {
	host, err := b.host()
	if err != nil {
		return nil, nil, nil, err
	}
	group, err := stream.ParseGroup(b.group)
	if err != nil {
		return nil, nil, nil, &usageError{err.Error()}
	}
	if rdb, err = b.open(ctx); err != nil {
		return nil, nil, nil, err
	}
	done = func() { _ = rdb.Close() }
	if err := b.known(ctx, rdb, host, group); err != nil {
		done()
		return nil, nil, nil, err
	}
	return ledger.NewReader(rdb, host, group), rdb, done, nil
}

// known is an error that names the known hosts, where there is nothing of this one.
func (b *booking) known(ctx context.Context, rdb *redis.Client, host stream.Host, group stream.Group) error {
	n, err := rdb.Exists(ctx, host.AlertsKey(), host.JournalKey(), host.DeadKey(group)).Result()
	if redis.IsPermissionError(err) {
		return fmt.Errorf("this user of Redis may not read what is of host %s: %w; name the host with --host, or a user in --redis", host, err)
	}
	if err != nil || n > 0 {
		return err
	}
	hosts, err := stream.Hosts(ctx, rdb)
	if redis.IsPermissionError(err) {
		return nil // a user who may see this host alone
	}
	if err != nil {
		return err
	}
	unknown := &stream.UnknownHostError{Host: host}
	for _, h := range hosts {
		if h.Host == host {
			return nil
		}
		unknown.Known = append(unknown.Known, h.Host)
	}
	return unknown
}

func newLedgerCmd(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "ledger",
		Short: "Show what was decided and done, and check that it was done once",
		Example: `  riposte ledger list --host web-1
  riposte ledger audit`,
	}
	b := newBooking(a, cmd)
	cmd.AddCommand(newLedgerListCmd(b), newLedgerShowCmd(b), newLedgerTailCmd(b), newLedgerAuditCmd(b), newLedgerResolveCmd(b))
	return cmd
}

func newLedgerListCmd(b *booking) *cobra.Command {
	var state, outcome, book string
	var warm bool
	var limit int
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List alerts and what came of them",
		Example: `  riposte ledger list --host web-1
  riposte ledger list --outcome unknown -o json
  riposte ledger list --state held --limit 20
  riposte ledger list --playbook cryptominer --warm-up -o json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if outcome != "" && !slices.Contains(action.Outcomes(), action.Outcome(outcome)) {
				return &usageError{fmt.Sprintf("no step ends in outcome %q; there are %s", outcome, action.Outcomes())}
			}
			r, _, done, err := b.read(cmd.Context())
			if err != nil {
				return err
			}
			defer done()
			entries, unreadable, err := r.List(cmd.Context())
			if err != nil {
				return err
			}
			if n := len(unreadable); n > 0 {
				fmt.Fprintf(b.errw, "%d entries cannot be read, the first is %s; see riposte ledger audit\n", n, plain(string(unreadable[0])))
			}
			entries = slices.DeleteFunc(entries, func(e ledger.Entry) bool {
				return state != "" && string(e.Header.State) != state || !slices.ContainsFunc(e.Body.Steps, func(s ledger.Step) bool {
					return (outcome == "" || s.Outcome == outcome) && (book == "" || s.Playbook == book) && (!warm || s.Warm)
				}) && (outcome != "" || book != "" || warm)
			})
			if limit > 0 && len(entries) > limit {
				entries = entries[len(entries)-limit:]
			}
			if b.output == "json" {
				return b.json(entries)
			}
			return b.printEntries(entries)
		},
	}
	cmd.Flags().Var(newChoice(&state, "", string(ledger.Held), string(ledger.Done), string(ledger.Dead), string(ledger.Waiting)), "state", "only alerts in this state")
	cmd.Flags().StringVar(&outcome, "outcome", "", "only alerts of which a step ended in this `outcome`, such as killed")
	cmd.Flags().StringVar(&book, "playbook", "", "only alerts that this `playbook` was run for")
	cmd.Flags().BoolVar(&warm, "warm-up", false, "only alerts that a playbook only observed because it was new: what it would have done")
	cmd.Flags().Var(newCount(&limit, 0, 0, 0), "limit", "at most the last `n` (0: all)")
	b.outputFlag(cmd)
	return cmd
}

func (b *booking) printEntries(entries []ledger.Entry) error {
	rows := make([][]string, len(entries))
	for i, e := range entries {
		state := string(e.Header.State)
		if len(e.Body.Flags) > 0 {
			state += " (" + strings.Join(e.Body.Flags, ", ") + ")"
		}
		var outcomes []string
		for _, s := range e.Body.Steps {
			outcome := s.Outcome
			switch {
			case outcome == "":
				outcome = "..."
			case s.Resolved != nil:
				outcome += " (resolved)"
			}
			outcomes = append(outcomes, s.Step+" "+outcome)
		}
		rows[i] = []string{
			e.Published().Local().Format(time.DateTime), string(e.ID), e.Body.Level, state, strings.Join(outcomes, ", "),
			strconv.Itoa(e.Attempts()), strconv.Itoa(e.Header.Duplicates), e.Body.Title,
		}
	}
	return b.table([]string{"PUBLISHED", "ID", "LEVEL", "STATE", "STEPS", "ATTEMPTS", "DUPLICATES", "TITLE"}, rows)
}

func newLedgerShowCmd(b *booking) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "show ID",
		Short: "Tell the whole history of one alert",
		Long: `Show tells the whole history of one alert: who held it, with which epoch, what was tried,
what came out, when. The beginning of an ID will do if it is the only one.`,
		Example: `  riposte ledger show 5995e96c`,
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			r, _, done, err := b.read(cmd.Context())
			if err != nil {
				return err
			}
			defer done()
			e, err := r.Find(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			history, err := r.History(cmd.Context(), e.ID)
			if err != nil {
				return err
			}
			if b.output == "json" {
				for i := range e.Body.Steps {
					s := &e.Body.Steps[i]
					s.Reason = cmp.Or(s.Reason, playbook.Intent(s))
				}
				return b.json(struct {
					Entry   ledger.Entry   `json:"entry"`
					History []ledger.Event `json:"history"`
				}{e, history})
			}
			return b.printHistory(e, history)
		},
	}
	b.outputFlag(cmd)
	return cmd
}

func (b *booking) printHistory(e ledger.Entry, history []ledger.Event) error {
	line := func(name, format string, args ...any) {
		if text := fmt.Sprintf(format, args...); strings.TrimSpace(text) != "" {
			fmt.Fprintf(b.out, "%-11s %s\n", name, plain(text))
		}
	}
	h := e.Header
	line("alert", "%s", e.ID)
	line("", "%s", strings.Join([]string{e.Body.Level, e.Body.Title}, " "))
	line("rule", "%s", e.Body.Rule)
	line("seen", "%s", ledger.Stamp(e.Body.Seen))
	line("flags", "%s", strings.Join(e.Body.Flags, ", "))
	line("refused", "%s", e.Body.Refuse)
	state := string(h.State)
	if h.State == ledger.Held {
		state = "held by " + h.Owner
		if h.Owner == "-" {
			state = "held by nobody at the moment"
		}
		if !h.Lease.IsZero() {
			state += " until " + ledger.Stamp(h.Lease)
		}
	}
	line("state", "%s, epoch %d", state, h.Token.Epoch)
	if p := e.Body.Parked; p != nil {
		until := "until somebody decides"
		if !p.Due.IsZero() {
			until = "until " + ledger.Stamp(p.Due)
		}
		line("waits", "%s; %s", p.Reason, until)
	}
	if a := e.Body.Approval; a != nil && a.By != "" {
		line("approval", "%s, by %s at %s: %s", a.Answer, a.By, ledger.Stamp(a.At), a.Reason)
	}
	line("delivery", "%s, duplicates %d, proven deaths of its holders %d, sent round again %d times", h.StreamID, h.Duplicates, h.Deaths, e.Body.Retries)
	fmt.Fprintln(b.out)
	rows := make([][]string, len(e.Body.Steps))
	for i, s := range e.Body.Steps {
		ended := "-"
		if !s.Ended.IsZero() {
			ended = ledger.Stamp(s.Ended)
		}
		rows[i] = []string{s.Playbook + "/" + s.Step, s.Action, s.Mode, strconv.Itoa(s.Attempts), s.Outcome, ended, s.Replica, cmp.Or(s.Reason, playbook.Intent(&s))}
		if !s.Lapsed.IsZero() {
			rows[i][len(rows[i])-1] += "; over since " + ledger.Stamp(s.Lapsed)
		}
		if n := s.Resolved; n != nil {
			rows[i][len(rows[i])-1] += fmt.Sprintf("; %s looked into it at %s: %s", n.By, ledger.Stamp(n.At), n.Note)
		}
	}
	if err := b.table([]string{"STEP", "ACTION", "MODE", "ATTEMPTS", "OUTCOME", "ENDED", "REPLICA", "REASON"}, rows); err != nil {
		return err
	}
	fmt.Fprintln(b.out)
	if len(history) == 0 {
		fmt.Fprintln(b.out, "The journal holds nothing of it any more.")
	}
	for _, event := range history {
		fmt.Fprintf(b.out, "%s  %s\n", ledger.Stamp(event.At()), plain(event.Words()))
	}
	return nil
}
