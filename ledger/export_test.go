package ledger

import "time"

// Waiting is how many records wait for the one that is on its way.
func (l *Ledger) Waiting() int {
	l.commits.mu.Lock()
	defer l.commits.mu.Unlock()
	return len(l.commits.waiting)
}

// WaitForSiblings changes how long a record waits for those of others.
func (l *Ledger) WaitForSiblings(d time.Duration) { l.commits.patience = d }
