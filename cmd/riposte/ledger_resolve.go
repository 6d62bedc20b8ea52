package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"riposte/ledger"
	"riposte/stream"
)

func newLedgerResolveCmd(b *booking) *cobra.Command {
	var step, note string
	cmd := &cobra.Command{
		Use:   "resolve ALERTID",
		Short: "Note what became of a step whose outcome is unknown",
		Long: `Resolve notes, beside the outcome and in the journal, what you found out about a step that
was in flight when its replica died. The outcome stays unknown, but status no longer counts
it. The note that came first stands; a later one goes into the journal only. The beginning
of an ID will do if it is the only one.`,
		Example: `  riposte ledger resolve 5995e96c --note "the ticket was opened: OPS-4711"
  riposte ledger resolve 5995e96c --step paging/call --note "nobody was called; I did"`,
		Args: cobra.ExactArgs(1),
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
			resolved, err := r.Resolve(cmd.Context(), e.ID, step, person(), note)
			if err != nil {
				return err
			}
			if n := resolved.Earlier; n != nil {
				fmt.Fprintf(b.errw, "%s had looked into it already, at %s: %s; your note is in the journal only\n", plain(n.By), ledger.Stamp(n.At), plain(n.Note))
			}
			if b.output == "json" {
				return b.json(struct {
					ID      stream.AlertID `json:"id"`
					Step    string         `json:"step"`
					Note    string         `json:"note"`
					Earlier *ledger.Note   `json:"earlier,omitempty"` // it stands
				}{e.ID, resolved.Step, note, resolved.Earlier})
			}
			_, err = fmt.Fprintf(b.out, "%s  %s  noted\n", plain(string(e.ID)), plain(resolved.Step))
			return err
		},
	}
	cmd.Flags().StringVar(&step, "step", "", "`playbook/step`, where more than one is unknown")
	cmd.Flags().StringVar(&note, "note", "", "what you found (required)")
	_ = cmd.MarkFlagRequired("note") // it exists
	b.outputFlag(cmd)
	return cmd
}
