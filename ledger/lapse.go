package ledger

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"riposte/stream"
)

// Lapse notes beside the outcome of a step that what it did for a time is over since then:
// once, whoever and however often asks. It says whether there is nothing left to note: it is
// noted, or the entry has expired. An alert that is not settled yet is asked about again.
func (r *Reader) Lapse(ctx context.Context, id stream.AlertID, step, by string, since time.Time) (noted bool, err error) {
	const tries = 3
	for range tries {
		found, err := r.fetch(ctx, []stream.AlertID{id})
		if err != nil {
			return false, err
		}
		raw, ok := found[id]
		if !ok {
			return true, nil
		}
		header, body, err := ParseEntry(raw)
		if err != nil {
			return false, fmt.Errorf("the entry of alert %s: %w", id, err)
		}
		if !header.Settled() {
			return false, nil
		}
		i := slices.IndexFunc(body.Steps, func(s Step) bool { return s.Name() == step })
		if i < 0 || !body.Steps[i].Lapsed.IsZero() {
			return true, nil
		}
		body.Steps[i].Lapsed = since.UTC()
		text, err := json.Marshal(body)
		if err != nil {
			return false, fmt.Errorf("lapse of alert %s: %w", id, err)
		}
		line, _, _ := bytes.Cut(raw, []byte("\n"))
		keys := []string{r.host.JournalKey(), r.host.LedgerKey(r.group, id)}
		written, err := resolveScript.Run(ctx, r.rdb, keys, string(r.group), DefaultRetention.Milliseconds(), by, step,
			"its time was over at "+Stamp(since), raw, slices.Concat(line, []byte("\n"), text), "lapse").Bool()
		if err != nil {
			return false, fmt.Errorf("lapse of alert %s: %w", id, err)
		}
		if written {
			return true, nil
		}
	}
	return false, nil
}
