package ledger

import (
	"context"
	"fmt"
)

// Purge removes a dead letter for good, for a person who asks for it; false where somebody
// else has just done so, or has sent it round again. The alert stays dead in the ledger
// until its entry expires, and the journal keeps who removed it and why it was buried.
func (r *Reader) Purge(ctx context.Context, l Letter, by string) (bool, error) {
	keys := []string{r.host.JournalKey(), r.host.DeadKey(r.group)}
	gone, err := purgeScript.Run(ctx, r.rdb, keys, string(r.group), DefaultRetention.Milliseconds(),
		by, l.LetterID, string(l.Alert), l.Epoch, l.Reason).Bool()
	if err != nil {
		return false, fmt.Errorf("purge dead letter %s: %w", l.LetterID, err)
	}
	return gone, nil
}
