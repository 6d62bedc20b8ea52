package ledger

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"
	"time"

	"riposte/stream"
)

// Record writes g.Body, in which step i has just got its outcome. The record of the last
// step settles the entry and acks the delivery. After an error that is not ErrLost the
// caller may call Record again with the same arguments.
//
// Records of several grants that come while one is on its way are sent together.
func (l *Ledger) Record(ctx context.Context, g *Grant, i int) error {
	last := true
	for _, s := range g.Body.Steps {
		last = last && s.Outcome != ""
	}
	s := g.Body.Steps[i]
	return l.write(ctx, g, "record", last, s, s.Outcome)
}

// RecordAttempt writes g.Body, in which step i has failed once more and will be tried
// again, so that a crash does not restart the count.
func (l *Ledger) RecordAttempt(ctx context.Context, g *Grant, i int, cause error) error {
	s := g.Body.Steps[i]
	s.Reason = cause.Error()
	return l.write(ctx, g, "retry", false, s, "")
}

// RecordPlan writes g.Body, in which step i has been made out by a look at the host, so that a
// successor carries out the same. found says what was seen.
func (l *Ledger) RecordPlan(ctx context.Context, g *Grant, i int, found string) error {
	s := g.Body.Steps[i]
	s.Reason = found
	return l.write(ctx, g, "plan", false, s, "")
}

func (l *Ledger) write(ctx context.Context, g *Grant, event string, last bool, s Step, outcome string) error {
	g.Body.Unresolved = g.Body.unresolved()
	content, final := g.Body, "0"
	if last {
		content, final = content.compact(), "1"
	}
	body, err := json.Marshal(content)
	if err != nil {
		return fmt.Errorf("record %s: %w", g.ID, err)
	}
	c := &commit{
		id: g.ID, size: len(body), turn: make(chan bool, 1),
		args: []any{g.Token.Epoch, g.Token.Nonce, g.seq + 1, final, event, s.Playbook + "/" + s.Step, outcome, s.Reason, body},
	}
	l.commits.do(c, func(batch []*commit) { l.send(context.WithoutCancel(ctx), batch) })
	if err := l.outcome("record", g, c.reply, c.err); err != nil {
		return err
	}
	g.seq++
	return nil
}

// send makes one call for a batch. It is not one caller's to cancel: how long it takes at
// most is up to the client's timeouts.
func (l *Ledger) send(ctx context.Context, batch []*commit) {
	keys := []string{l.cfg.Host.AlertsKey(), l.cfg.Host.JournalKey()}
	retention := l.cfg.Retention.Milliseconds()
	args := []any{string(l.cfg.Group), l.cfg.Owner, retention, retention}
	for _, c := range batch {
		keys, args = append(keys, l.cfg.Host.LedgerKey(l.cfg.Group, c.id)), append(args, c.args...)
	}
	replies, err := recordScript.Run(ctx, l.rdb, keys, args...).StringSlice()
	if err == nil && len(replies) != len(batch) {
		err = fmt.Errorf("%d answers to %d records", len(replies), len(batch))
	}
	for i, c := range batch {
		if c.err = err; err == nil {
			c.reply = replies[i]
		}
	}
}

// commits gathers records into batches, as databases do (group commit). One that is alone is
// sent at once; where others are about to come, the first waits a moment for them; and those
// that come while a batch is on its way are the next one. Whoever is in front then sends it.
type commits struct {
	siblings func() int    // how many are at work and may soon have something to record
	patience time.Duration // with which they are waited for

	mu      sync.Mutex
	sending bool
	waiting []*commit
	target  int           // of waiting, at which the next batch is sent
	full    chan struct{} // it is reached
}

// commit is one record on its way.
type commit struct {
	id    stream.AlertID
	args  []any
	size  int       // in bytes
	turn  chan bool // true: to send the next batch; false: answered
	reply string
	err   error
}

const (
	mostCommits     = 128
	mostCommitBytes = 1 << 20
	gatherEnough    = 32
)

func newCommits(siblings func() int) *commits {
	if siblings == nil {
		siblings = func() int { return 0 }
	}
	return &commits{siblings: siblings, patience: time.Millisecond, full: make(chan struct{}, 1)}
}

// do returns when c has been answered.
func (q *commits) do(c *commit, send func([]*commit)) {
	q.mu.Lock()
	q.waiting = append(q.waiting, c)
	if q.sending {
		if len(q.waiting) == q.target {
			q.full <- struct{}{}
		}
		q.mu.Unlock()
		if mine := <-c.turn; !mine {
			return
		}
		q.mu.Lock()
	}
	q.sending = true
	q.gather()
	batch := q.take()
	q.mu.Unlock()

	send(batch)

	for _, other := range batch[1:] {
		other.turn <- false
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.sending = len(q.waiting) > 0; q.sending {
		q.waiting[0].turn <- true
	}
}

// gather waits for those who are about to come. It is called with the lock held, which it
// lets go of meanwhile.
func (q *commits) gather() {
	q.target = min(q.siblings(), gatherEnough)
	if len(q.waiting) < q.target {
		enough := time.NewTimer(q.patience)
		q.mu.Unlock()
		select {
		case <-q.full:
		case <-enough.C:
		}
		q.mu.Lock()
		enough.Stop()
	}
	q.target = 0
	select {
	case <-q.full: // reached just as the time was over
	default:
	}
}

// take removes the next batch from those that wait, at least the first. The script must see
// no alert twice: a record that is sent again by an impatient caller goes with the next one.
func (q *commits) take() []*commit {
	n, size, seen := 0, 0, map[stream.AlertID]bool{}
	for _, c := range q.waiting {
		if size += c.size; n > 0 && (n == mostCommits || size > mostCommitBytes || seen[c.id]) {
			break
		}
		seen[c.id] = true
		n++
	}
	batch := q.waiting[:n:n]
	q.waiting = q.waiting[n:]
	return batch
}
