package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"riposte/ledger"
)

// watch audits again and again, until ctx ends, and tells what is found and what is gone.
// It goes on while Redis is away. The error says whether anything was ever found.
func (b *booking) watch(ctx context.Context, r *ledger.Reader, cfg ledger.AuditConfig, every time.Duration) error {
	tick := time.NewTicker(every)
	defer tick.Stop()
	known := map[ledger.Finding]bool{}
	found, away := 0, false
	for {
		report, err := r.Audit(ctx, cfg)
		switch {
		case ctx.Err() != nil:
		case err != nil && !away:
			away = true
			b.log.Warn("cannot audit; trying again", "err", err)
		case err == nil:
			if away {
				away = false
				b.log.Info("auditing again")
			}
			c := report.Counts
			b.log.Debug("audited", "accepted", c.Accepted, "settled", c.Settled, "dead", c.Dead, "held", c.Held,
				"waiting", c.Waiting, "pending", c.Pending, "findings", len(report.Findings))
			n, err := b.printChanges(report, known)
			if err != nil {
				return err
			}
			found += n
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return violations(found)
		}
	}
}

// printChanges tells what is new in a report and what is no longer in it, brings known up
// to date, and says how much is new.
func (b *booking) printChanges(report *ledger.Report, known map[ledger.Finding]bool) (found int, err error) {
	current := map[ledger.Finding]bool{}
	for _, f := range report.Findings {
		if current[f] = true; known[f] {
			continue
		}
		known[f] = true
		found++
		err = errors.Join(err, b.printChange(report.At, "found", f))
	}
	for f := range known {
		if !current[f] {
			delete(known, f)
			err = errors.Join(err, b.printChange(report.At, "gone", f))
		}
	}
	return found, err
}

func (b *booking) printChange(at time.Time, event string, f ledger.Finding) error {
	if b.output == "json" {
		return b.jsonLine(struct {
			At    string `json:"at"`
			Event string `json:"event"` // found, gone
			ledger.Finding
		}{ledger.Stamp(at), event, f})
	}
	_, err := fmt.Fprintf(b.out, "%s  %-5s  %s  %s  %s\n", ledger.Stamp(at), event, f.Kind, plain(f.Key), plain(f.Text))
	return err
}
