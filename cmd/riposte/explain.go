package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"riposte/playbook"
	"riposte/playbook/action"
	"riposte/playbook/gate"
	"riposte/playbook/guard"
	"riposte/stream"
)

// explaining is the command line of explain.
type explaining struct {
	*app
	folders
	group, mode, books, zone, allow string
	maxAge                          time.Duration
	ownUID                          bool
}

// explanation is the answer, for scripts.
type explanation struct {
	ID        stream.AlertID       `json:"id"`
	Host      stream.Host          `json:"host"`
	Playbooks []playbook.Explained `json:"playbooks"`
}

func newExplainCmd(a *app) *cobra.Command {
	e := &explaining{app: a}
	cmd := &cobra.Command{
		Use:   "explain [FILE|-]",
		Short: "Say what would be done about an alert, and why not",
		Long: `Explain says which playbooks match an alert, and of those that do not, which part of the
condition fails; what each step would do right now on this host, what is in place already,
and which guardrail would refuse it. It looks, and touches nothing; it needs no Redis. Run it
as the user of the responder: who may see less, learns less.`,
		Example: `  riposte explain alert.json --playbooks /etc/riposte/playbooks
  riposte explain - -o json < alert.json`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error { return e.run(cmd.Context(), args) },
	}
	f := cmd.Flags()
	f.StringVar(&e.group, "group", string(stream.DefaultGroup), "consumer `group`")
	f.StringVar(&e.books, "playbooks", "", "`folder` of playbooks (default: the embedded one)")
	allowFlag(f, &e.allow)
	f.Var(newChoice(&e.mode, string(playbook.Enforce), string(playbook.Approve), string(playbook.Observe)), "mode", "as if the responder ran in this mode")
	f.Var(newSpan(&e.maxAge, 10*time.Minute, time.Second, playbook.OldestAlert), "max-age", "age from which an alert is expired")
	f.StringVar(&e.zone, "timezone", "", "`zone` of timestamps that name none (default: the host's)")
	f.BoolVar(&e.ownUID, "own-uid", false, "as a responder that acts only on processes of this user")
	e.folders.flags(cmd)
	a.outputFlag(cmd)
	return cmd
}

func (e *explaining) run(ctx context.Context, args []string) error {
	host, err := e.host()
	if err != nil {
		return err
	}
	group, err := stream.ParseGroup(e.group)
	if err != nil {
		return &usageError{err.Error()}
	}
	zone := time.Local
	if e.zone != "" {
		if zone, err = time.LoadLocation(e.zone); err != nil {
			return &usageError{fmt.Sprintf("--timezone: %v", err)}
		}
	}
	books, err := loadPlaybooks(e.books, group)
	if err != nil {
		return err
	}
	list, err := loadAllow(e.allow)
	if err != nil {
		return err
	}
	name := "-"
	if len(args) == 1 {
		name = args[0]
	}
	raw, err := e.read(name)
	if err != nil {
		return err
	}
	alert, err := stream.Decode(raw, "0-0")
	if err != nil {
		return fmt.Errorf("%s would be a dead letter: %w", name, err)
	}
	env, done := e.env(ctx, string(alert.ID))
	defer done()
	protected := &guard.Allowing{Floor: env.Guard}
	protected.Set(list)
	env.Guard = protected
	planner := &playbook.Planner{Host: host, Playbooks: books, Mode: playbook.Mode(e.mode), MaxAge: e.maxAge, Zone: zone}
	found := explanation{alert.ID, host, planner.Explain(ctx, alert, env)}
	if e.output == "json" {
		return e.json(found)
	}
	return e.print(found)
}

func (e *explaining) read(name string) ([]byte, error) {
	in := e.in
	if name != "-" {
		f, err := os.Open(name)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		in = f
	}
	return io.ReadAll(io.LimitReader(in, stream.MaxAlertBytes+1))
}

// env is what a responder on this host would look with. Where its folder cannot be opened, other
// processes of Riposte cannot be told, and neither can what they have done.
func (e *explaining) env(ctx context.Context, id string) (action.Env, func()) {
	e.folders.defaults()
	floor := &guard.Floor{}
	closers := []func() error{floor.Close}
	if _, err := os.Stat(e.folders.runtime); errors.Is(err, os.ErrNotExist) {
		// None has run here, and this one makes no folder.
	} else if g, err := gate.Open(e.folders.runtime, "", "explain", ""); err == nil {
		floor.Members = (&member{gate: g}).living
		closers = append(closers, g.Close)
	} else {
		e.log.Warn("other processes of riposte cannot be told from any other", "err", err)
	}
	if rdb, err := stream.Open(e.redis); err == nil { // its address is enough
		peers := redisPeers(rdb)
		peers.renew(ctx)
		floor.RedisPeers = peers.known
		closers = append(closers, rdb.Close)
	}
	return action.Env{Guard: floor, OwnUID: e.ownUID, AlertID: id, State: e.folders.state, Out: io.Discard}, func() {
		var errs []error
		for _, c := range closers {
			errs = append(errs, c())
		}
		if err := errors.Join(errs...); err != nil {
			e.log.Debug("closing", "err", err)
		}
	}
}

func (e *explaining) print(x explanation) error {
	fmt.Fprintf(e.out, "alert %s on host %s\n", plain(string(x.ID)), x.Host)
	for _, b := range x.Playbooks {
		word := "matches"
		if !b.Matches {
			word = "does not match"
		}
		fmt.Fprintf(e.out, "\nplaybook %s (%s): %s\n", plain(b.Playbook), b.Mode, word)
		for _, why := range b.Why {
			fmt.Fprintf(e.out, "  not: %s\n", plain(why))
		}
		var rows [][]string
		for _, s := range b.Steps {
			rows = append(rows, []string{"  " + s.Step, s.Action, strings.ReplaceAll(s.Verdict, "_", " "), s.Text})
		}
		if len(rows) > 0 {
			if err := e.table([]string{"  STEP", "ACTION", "VERDICT", "WHAT"}, rows); err != nil {
				return err
			}
		}
	}
	return nil
}
