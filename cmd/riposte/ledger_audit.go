package main

import (
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra"

	"riposte/ledger"
	"riposte/playbook/gate"
)

func newLedgerAuditCmd(b *booking) *cobra.Command {
	var f folders
	var watch bool
	var every time.Duration
	cmd := &cobra.Command{
		Use:   "audit",
		Short: "Check that nothing was lost, and nothing recorded twice",
		Long: `Audit compares the stream, the pending list, the ledger, the journal and the dead letters,
and the receipts of the host's gate if --runtime-dir names its folder, and reports every
violation of the promise. It changes nothing, takes no lock and may run at any time. The
exit code is 0 if all is well and 1 if something was found.

With --watch it audits again and again beside production until it is interrupted, and tells
each finding once when it appears and once when it is gone, with -o json a line each.`,
		Example: `  riposte ledger audit --host web-1
  riposte ledger audit --runtime-dir /run/riposte --state-dir /var/lib/riposte -o json
  riposte ledger audit --watch --every 30s`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if f.state != "" && f.runtime == "" {
				return &usageError{"--state-dir: name the --runtime-dir as well"}
			}
			cfg := ledger.AuditConfig{}
			if f.runtime != "" {
				archive, err := openArchive(f)
				if err != nil {
					return err
				}
				defer archive.Close()
				cfg.Receipts = archive
			}
			r, _, done, err := b.read(cmd.Context())
			if err != nil {
				return err
			}
			defer done()
			if watch {
				return b.watch(cmd.Context(), r, cfg, every)
			}
			report, err := r.Audit(cmd.Context(), cfg)
			if err != nil {
				return err
			}
			return errors.Join(b.printReport(report), violations(len(report.Findings)))
		},
	}
	cmd.Flags().StringVar(&f.runtime, "runtime-dir", "", "`folder` of the host's receipts to compare with (default: none)")
	cmd.Flags().StringVar(&f.state, "state-dir", "", "`folder` of the receipts that outlive a reboot (default: none)")
	cmd.Flags().BoolVar(&watch, "watch", false, "audit again and again, until interrupted")
	cmd.Flags().Var(newSpan(&every, 10*time.Second, 100*time.Millisecond, 0), "every", "how often with --watch, as a `duration`")
	b.outputFlag(cmd)
	return cmd
}

// openArchive opens the folders that were named, all of them: an audit that passes over
// receipts it was asked to compare would call clean what it has not seen.
func openArchive(f folders) (*gate.Archive, error) {
	if f.state != "" {
		if _, err := os.Stat(f.state); err != nil {
			return nil, fmt.Errorf("receipts: %w", err)
		}
	}
	return gate.OpenArchive(f.runtime, f.state)
}

// violations is an error if there are any.
func violations(n int) error {
	switch n {
	case 0:
		return nil
	case 1:
		return errors.New("the audit found 1 violation")
	default:
		return fmt.Errorf("the audit found %d violations", n)
	}
}

func (b *booking) printReport(r *ledger.Report) error {
	if b.output == "json" {
		return b.json(r)
	}
	c := r.Counts
	fmt.Fprintf(b.out, "host %s, group %s, as of %s\n", r.Host, r.Group, ledger.Stamp(r.At))
	fmt.Fprintf(b.out, "%d alerts accepted: %d settled, %d dead, %d held, %d waiting\n", c.Accepted, c.Settled, c.Dead, c.Held, c.Waiting)
	fmt.Fprintf(b.out, "%d deliveries pending, %d undelivered, %d duplicates, %d dead letters, %d unknown outcomes, %d of them unresolved\n",
		c.Pending, c.Undelivered, c.Duplicates, c.Letters, c.Unknown, c.Unresolved)
	for _, n := range r.Notes {
		fmt.Fprintln(b.out, "-", plain(n))
	}
	if len(r.Findings) == 0 {
		_, err := fmt.Fprintln(b.out, "clean: nothing lost, nothing recorded twice")
		return err
	}
	rows := make([][]string, len(r.Findings))
	for i, f := range r.Findings {
		rows[i] = []string{string(f.Kind), f.Key, f.Text}
	}
	return b.table([]string{"FINDING", "KEY", "WHAT"}, rows)
}
