package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"riposte/ledger"
	"riposte/playbook"
	"riposte/playbook/action"
	"riposte/stream"
)

func newApproveCmd(a *app) *cobra.Command {
	return newDecisionCmd(a, true, &cobra.Command{
		Use:   "approve ALERTID",
		Short: "Say yes to what an alert waits for",
		Long: `Approve lets an alert that waits in mode approve be acted on. Who said so and why is recorded, and
the first answer stands. riposte ledger list --state waiting shows what waits, and
riposte ledger show what would be done. The beginning of an ID will do if it is the only one.`,
		Example: `  riposte approve 5995e96c --reason "not one of ours; OPS-4711"`,
	})
}

func newDenyCmd(a *app) *cobra.Command {
	return newDecisionCmd(a, false, &cobra.Command{
		Use:   "deny ALERTID",
		Short: "Say no to what an alert waits for",
		Long: `Deny settles an alert that waits in mode approve without what it waits for. Who said so and why
is recorded, and the first answer stands. The beginning of an ID will do if it is the only one.`,
		Example: `  riposte deny 5995e96c --reason "this is the nightly backup"`,
	})
}

// decided is an answer, for scripts.
type decided struct {
	ID stream.AlertID `json:"id"`
	*ledger.Approval
}

func newDecisionCmd(a *app, yes bool, cmd *cobra.Command) *cobra.Command {
	var reason string
	b := newBooking(a, cmd)
	cmd.Args = cobra.ExactArgs(1)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		r, _, done, err := b.read(cmd.Context())
		if err != nil {
			return err
		}
		defer done()
		e, err := r.Find(cmd.Context(), args[0])
		if err != nil {
			return err
		}
		given, err := r.Decide(cmd.Context(), e.ID, yes, person(), reason)
		if err != nil {
			return err
		}
		if a.output == "json" {
			return a.json(decided{e.ID, given})
		}
		word := "denied"
		if yes {
			word = "approved"
		}
		_, err = fmt.Fprintf(a.out, "%s  %s\n", plain(string(e.ID)), word)
		return err
	}
	cmd.Flags().StringVar(&reason, "reason", "", "why, for the record (required)")
	_ = cmd.MarkFlagRequired("reason") // it exists
	a.outputFlag(cmd)
	return cmd
}

// undone is what became of an undo, for scripts.
type undone struct {
	ID      stream.AlertID `json:"id"`
	Steps   []string       `json:"steps"`   // that are to be undone
	Settled bool           `json:"settled"` // a replica has carried it out
	Results []undoneStep   `json:"results,omitempty"`
}

type undoneStep struct {
	Step    string `json:"step"`   // PLAYBOOK/STEP that undoes
	Undoes  string `json:"undoes"` // PLAYBOOK/STEP that is undone
	Action  string `json:"action"`
	Outcome string `json:"outcome"`
	Reason  string `json:"reason"`
}

func newUndoCmd(a *app) *cobra.Command {
	var step, reason string
	var patience time.Duration
	cmd := &cobra.Command{
		Use:   "undo ALERTID",
		Short: "Take back what was done about an alert",
		Long: `Undo has a replica of the host take back what was done about an alert, the last step first: lift
its blocks, resume what it suspended, restore what it quarantined. Each is a step of the same
alert, recorded once like all others. What another alert did to the same target stands. A
process that was ended cannot be brought back.

It waits for the outcome, and its exit code is 1 where something could not be undone.`,
		Example: `  riposte undo 5995e96c --reason "false positive, OPS-4711"
  riposte undo 5995e96c --step default/block`,
		Args: cobra.ExactArgs(1),
	}
	b := newBooking(a, cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		r, _, done, err := b.read(cmd.Context())
		if err != nil {
			return err
		}
		defer done()
		e, err := r.Find(cmd.Context(), args[0])
		if err != nil {
			return err
		}
		result := undone{ID: e.ID}
		err = r.Reopen(cmd.Context(), e.ID, person(), reason, func(body *ledger.Body) error {
			result.Steps, err = playbook.Revert(body, step)
			return err
		})
		if err != nil {
			return err
		}
		result.Results, result.Settled = outcomes(cmd.Context(), r, e.ID, result.Steps, patience)
		if !result.Settled && cmd.Context().Err() != nil {
			return fmt.Errorf("interrupted: it is asked for, and will be done all the same: riposte ledger show %s", e.ID)
		}
		return b.printUndone(result, patience)
	}
	cmd.Flags().StringVar(&step, "step", "", "only this `playbook/step`")
	cmd.Flags().StringVar(&reason, "reason", "", "why, for the journal")
	cmd.Flags().Var(newSpan(&patience, 30*time.Second, time.Millisecond, time.Hour), "wait", "how long to wait for the outcome")
	a.outputFlag(cmd)
	return cmd
}

// outcomes waits until an alert is settled, and returns of each step that was undone the last
// step that undoes it: one before that had failed.
func outcomes(ctx context.Context, r *ledger.Reader, id stream.AlertID, steps []string, patience time.Duration) (undos []undoneStep, settled bool) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	look := time.NewTicker(100 * time.Millisecond)
	defer look.Stop()
	for {
		if e, err := r.Entry(ctx, id); err == nil && e.Header.Settled() {
			for _, s := range e.Body.Steps {
				undo := undoneStep{s.Name(), s.Playbook + "/" + s.Undoes, s.Action, s.Outcome, s.Reason}
				if s.Undoes != "" && slices.Contains(steps, undo.Undoes) {
					undos = append(slices.DeleteFunc(undos, func(u undoneStep) bool { return u.Undoes == undo.Undoes }), undo)
				}
			}
			return undos, true
		}
		select {
		case <-ctx.Done():
			return nil, false
		case <-look.C:
		}
	}
}

func (b *booking) printUndone(u undone, patience time.Duration) error {
	var failed []string
	for _, s := range u.Results {
		switch action.Outcome(s.Outcome) {
		case "": // the alert was buried before
			failed = append(failed, fmt.Sprintf("%s is not undone: its alert is a dead letter; see riposte dead list", s.Undoes))
		case action.Refused, action.Failed, action.Unknown, action.Observed:
			failed = append(failed, fmt.Sprintf("%s is not undone: %s: %s", s.Undoes, s.Outcome, s.Reason))
		}
	}
	if b.output == "json" {
		if err := b.json(u); err != nil {
			return err
		}
	} else {
		for _, s := range u.Results {
			fmt.Fprintf(b.out, "%s  %s  %s\n", plain(s.Undoes), s.Outcome, plain(s.Reason))
		}
	}
	switch {
	case !u.Settled:
		return fmt.Errorf("no replica has carried it out within %s; it is asked for, and will be: riposte ledger show %s", stream.Span(patience), u.ID)
	case len(failed) > 0:
		return fmt.Errorf("%s", strings.Join(failed, "\n"))
	}
	return nil
}
