package ledger

// Waiting is how many records wait for the one that is on its way.
func (l *Ledger) Waiting() int {
	l.commits.mu.Lock()
	defer l.commits.mu.Unlock()
	return len(l.commits.waiting)
}
