package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/spf13/cobra"

	"riposte/ledger"
	"riposte/stream"
)

// purge is the command line of `dead purge`: which letters, and whether to ask.
type purge struct {
	*booking
	olderThan time.Duration
	all, yes  bool
}

func newDeadPurgeCmd(b *booking) *cobra.Command {
	p := &purge{booking: b}
	cmd := &cobra.Command{
		Use:   "purge {ID... | --older-than AGE | --all}",
		Short: "Remove dead letters for good",
		Long: `Purge removes dead letters for good, and with them the raw bytes that could be sent round
again. Their alerts stay dead in the ledger, and the journal keeps who purged them. At a
terminal it asks first, unless --yes is given.`,
		Example: `  riposte dead purge 1767225600000-0
  riposte dead purge --older-than 72h --yes
  riposte dead purge --all --yes -o json`,
		RunE: func(cmd *cobra.Command, args []string) error {
			ways := 0
			for _, given := range []bool{len(args) > 0, cmd.Flag("older-than").Changed, p.all} {
				if given {
					ways++
				}
			}
			if ways != 1 {
				return &usageError{"say which letters: IDs, or --older-than with an age such as 72h, or --all"}
			}
			return p.run(cmd.Context(), args)
		},
	}
	cmd.Flags().Var(newSpan(&p.olderThan, 0, 0, 0), "older-than", "those buried longer ago than this `age`")
	cmd.Flags().BoolVar(&p.all, "all", false, "all of them")
	cmd.Flags().BoolVar(&p.yes, "yes", false, "do not ask")
	b.outputFlag(cmd)
	return cmd
}

// purged is what became of one letter, for scripts.
type purged struct {
	ID     string         `json:"id"` // of the letter
	Alert  stream.AlertID `json:"alert"`
	Purged bool           `json:"purged"` // false: it was gone already, or see Error
	Error  string         `json:"error,omitempty"`
}

func (p *purge) run(ctx context.Context, ids []string) error {
	r, rdb, done, err := p.read(ctx)
	if err != nil {
		return err
	}
	defer done()
	letters, err := p.choose(ctx, r, rdb, ids)
	if err != nil {
		return err
	}
	if !p.yes && len(letters) > 0 && terminal(p.in) {
		ok, err := p.confirm(fmt.Sprintf("Remove %d dead letters for good, the oldest of %s?", len(letters), ledger.Stamp(letters[0].At())))
		if err != nil || !ok {
			return errors.Join(err, errors.New("nothing was removed"))
		}
	}
	by := person()
	results := []purged{}
	var errs []error
	for _, l := range letters {
		result := purged{ID: l.LetterID, Alert: l.Alert}
		var err error
		switch result.Purged, err = r.Purge(ctx, l, by); {
		case err != nil:
			result.Error = err.Error()
			errs = append(errs, err)
		case !result.Purged:
			fmt.Fprintf(p.errw, "%s  was gone already\n", l.LetterID)
		case p.output != "json":
			fmt.Fprintf(p.out, "%s  purged, alert %s\n", l.LetterID, plain(string(l.Alert)))
		}
		results = append(results, result)
	}
	if p.output == "json" {
		errs = append(errs, p.json(results))
	}
	return errors.Join(errs...)
}

// choose lists the letters that are meant. One that is not there is an error, and then
// none is.
func (p *purge) choose(ctx context.Context, r *ledger.Reader, rdb *redis.Client, ids []string) (letters []ledger.Letter, err error) {
	for _, id := range ids {
		l, err := r.Letter(ctx, id)
		if err != nil {
			return nil, err
		}
		letters = append(letters, l)
	}
	if len(ids) > 0 {
		return letters, nil
	}
	now, err := rdb.Time(ctx).Result()
	if err != nil {
		return nil, fmt.Errorf("read the clock of Redis: %w", err)
	}
	err = r.Letters(ctx, func(l ledger.Letter) error {
		if l.Raw = nil; p.all || now.Sub(l.At()) > p.olderThan {
			letters = append(letters, l)
		}
		return nil
	})
	return letters, err
}

// confirm asks a person; anything but yes is a no.
func (p *purge) confirm(question string) (bool, error) {
	fmt.Fprintf(p.errw, "%s [y/N] ", question)
	answer, err := bufio.NewReader(p.in).ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return false, err
	}
	answer = strings.ToLower(strings.TrimSpace(answer))
	return answer == "y" || answer == "yes", nil
}

// terminal says that somebody may be there to answer.
func terminal(in io.Reader) bool {
	f, ok := in.(*os.File)
	if !ok {
		return false
	}
	st, err := f.Stat()
	if err != nil || st.Mode()&os.ModeCharDevice == 0 {
		return false
	}
	null, err := os.Stat(os.DevNull) // a character device too, and nobody answers there
	return err != nil || !os.SameFile(st, null)
}
