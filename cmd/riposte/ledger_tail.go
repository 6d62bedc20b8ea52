package main

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"riposte/ledger"
)

func newLedgerTailCmd(b *booking) *cobra.Command {
	var follow bool
	var lines int
	cmd := &cobra.Command{
		Use:   "tail",
		Short: "Show the end of the journal, and follow it",
		Long: `Tail shows the last changes in the ledger of the host, of all groups unless --group names
one, and with -f what comes after them, until it is interrupted. With -o json each line is
one JSON document.`,
		Example: `  riposte ledger tail -f --host web-1`,
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx := cmd.Context()
			r, rdb, done, err := b.read(ctx)
			if err != nil {
				return err
			}
			defer done()
			if !cmd.Flag("group").Changed {
				host, err := b.host()
				if err != nil {
					return err
				}
				r = ledger.NewReader(rdb, host, "")
			}
			events, last, err := r.Tail(ctx, lines)
			if err != nil {
				return err
			}
			if err := b.printEvents(events); err != nil || !follow {
				return err
			}
			return b.follow(ctx, r, last)
		},
	}
	cmd.Flags().BoolVarP(&follow, "follow", "f", false, "go on with what comes, until interrupted")
	cmd.Flags().VarP(newCount(&lines, 20, 0, 0), "lines", "n", "`number` of lines to begin with")
	b.outputFlag(cmd)
	return cmd
}

// follow prints the journal as it grows, until ctx ends. Redis may go away and come back.
func (b *booking) follow(ctx context.Context, r *ledger.Reader, last string) error {
	for ctx.Err() == nil {
		events, next, err := r.Next(ctx, last)
		if err != nil {
			if ctx.Err() == nil {
				b.log.Warn("cannot read the journal; trying again", "err", err)
			}
			select {
			case <-ctx.Done():
			case <-time.After(time.Second):
			}
			continue
		}
		last = next
		if err := b.printEvents(events); err != nil {
			return err
		}
	}
	return nil
}

func (b *booking) printEvents(events []ledger.Event) error {
	for _, e := range events {
		var err error
		if b.output == "json" {
			err = b.jsonLine(e)
		} else {
			_, err = fmt.Fprintf(b.out, "%s  %-11s  %s  %s\n", ledger.Stamp(e.At()), plain(string(e.Group)), plain(string(e.ID)), plain(e.Words()))
		}
		if err != nil {
			return err
		}
	}
	return nil
}
