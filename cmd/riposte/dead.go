package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/user"
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"riposte/ledger"
	"riposte/stream"
)

func newDeadCmd(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "dead",
		Short: "Show dead letters, send them round again, or remove them",
		Long: `A dead letter is what could not be handled: no alert at all, or one that killed every
replica that took it. An ID is the letter's own or its alert's.`,
		Example: `  riposte dead list --host web-1`,
	}
	b := newBooking(a, cmd)
	cmd.AddCommand(newDeadListCmd(b), newDeadShowCmd(b), newDeadRetryCmd(b), newDeadPurgeCmd(b))
	return cmd
}

func newDeadListCmd(b *booking) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "list",
		Short:   "List dead letters and why they are",
		Example: `  riposte dead list --host web-1`,
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			r, _, done, err := b.read(cmd.Context())
			if err != nil {
				return err
			}
			defer done()
			letters := []ledger.Letter{}
			err = r.Letters(cmd.Context(), func(l ledger.Letter) error {
				l.Raw = nil // show has it
				letters = append(letters, l)
				return nil
			})
			if err != nil {
				return err
			}
			if b.output == "json" {
				return b.json(letters)
			}
			rows := make([][]string, len(letters))
			for i, l := range letters {
				rows[i] = []string{l.LetterID, string(l.Alert), l.At().Local().Format(time.DateTime), l.Reason, strconv.Itoa(l.Length)}
			}
			return b.table([]string{"LETTER", "ALERT", "WHEN", "REASON", "LENGTH"}, rows)
		},
	}
	b.outputFlag(cmd)
	return cmd
}

func newDeadShowCmd(b *booking) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "show ID",
		Short:   "Show all of a dead letter",
		Example: `  riposte dead show 1767225600000-0`,
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			r, _, done, err := b.read(cmd.Context())
			if err != nil {
				return err
			}
			defer done()
			l, err := r.Letter(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			if b.output == "json" {
				return b.json(l)
			}
			for _, f := range [][2]string{
				{"letter", l.LetterID}, {"alert", string(l.Alert)}, {"entry", l.Entry}, {"when", ledger.Stamp(l.At())},
				{"reason", l.Reason}, {"epoch", strconv.FormatUint(l.Epoch, 10)}, {"replica", l.Replica},
				{"length", strconv.Itoa(l.Length)}, {"sha256", l.SHA256}, {"raw", printable(l.Raw)},
			} {
				if _, err := fmt.Fprintf(b.out, "%-8s %s\n", f[0], plain(f[1])); err != nil {
					return err
				}
			}
			return nil
		},
	}
	b.outputFlag(cmd)
	return cmd
}

// printable is text as it is, and what is no text quoted.
func printable(raw []byte) string {
	if utf8.Valid(raw) {
		return string(raw)
	}
	return strconv.QuoteToGraphic(string(raw))
}

func newDeadRetryCmd(b *booking) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "retry ID...",
		Short: "Send dead letters round again",
		Long: `Retry sends dead letters round again and removes them. Only steps without a record are
run. An old alert stays old: a step whose time is up is recorded as expired.`,
		Example: `  riposte dead retry 1767225600000-0
  riposte dead retry 1767225600000-0 5995e96c-1f3a-5d5b-9f0e-0a4b8c1d2e3f -o json`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			r, _, done, err := b.read(cmd.Context())
			if err != nil {
				return err
			}
			defer done()
			by := person()
			results := []retried{}
			var errs []error
			for _, id := range args {
				result, err := b.retry(cmd.Context(), r, id, by)
				if err != nil {
					result = retried{ID: id, Error: err.Error()}
					errs = append(errs, err)
				}
				results = append(results, result)
			}
			if b.output == "json" {
				errs = append(errs, b.json(results))
			}
			return errors.Join(errs...)
		},
	}
	b.outputFlag(cmd)
	return cmd
}

// retried is what became of one letter, for scripts.
type retried struct {
	ID      string         `json:"id"`              // of the letter, or as it was asked for
	Alert   stream.AlertID `json:"alert,omitempty"` // under which the ledger will know it
	Entry   string         `json:"entry,omitempty"` // the new one in the stream
	Warning string         `json:"warning,omitempty"`
	Error   string         `json:"error,omitempty"`
}

func (b *booking) retry(ctx context.Context, r *ledger.Reader, id, by string) (retried, error) {
	l, err := r.Letter(ctx, id)
	if err != nil {
		return retried{}, err
	}
	sent, err := r.Revive(ctx, l, by)
	if err != nil {
		return retried{}, err
	}
	result := retried{ID: l.LetterID, Alert: sent.Alert, Entry: sent.Entry}
	switch {
	case sent.Problem != "":
		result.Warning = "it will be buried again unless the responder is of another version: " + sent.Problem
	case !sent.Expires.IsZero() && time.Now().After(sent.Expires):
		result.Warning = fmt.Sprintf("its time was up %s ago; what is left to do will be recorded as expired", stream.Span(time.Since(sent.Expires)))
	}
	if b.output != "json" {
		fmt.Fprintf(b.out, "%s  sent round again as alert %s, entry %s\n", l.LetterID, plain(string(sent.Alert)), sent.Entry)
	}
	if result.Warning != "" {
		fmt.Fprintf(b.errw, "%s: %s\n", l.LetterID, plain(result.Warning))
	}
	return result, nil
}

// person names who asks, for the journal.
func person() string {
	name, host := strconv.Itoa(os.Getuid()), "unknown"
	if u, err := user.Current(); err == nil {
		name = u.Username
	}
	if h, err := os.Hostname(); err == nil {
		host = h
	}
	return name + "@" + host
}
