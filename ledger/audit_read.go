package ledger

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"riposte/stream"
)

const (
	pendingPage = 1000
	alertPage   = 32 // alerts fetched at once, each of up to 1 MiB
)

// readDeliveries reads what the group has been given, and what of it is not acked.
func (a *audit) readDeliveries(ctx context.Context) (err error) {
	a.pending, a.live = map[string]time.Duration{}, map[stream.AlertID]bool{}
	if a.now, err = a.rdb.Time(ctx).Result(); err != nil {
		return fmt.Errorf("read the clock of Redis: %w", err)
	}
	a.report.At = a.now.UTC()
	key, group := a.host.AlertsKey(), string(a.group)
	there, err := a.rdb.Exists(ctx, key).Result()
	if err != nil {
		return fmt.Errorf("read %s: %w", key, err)
	}
	if there == 0 {
		a.note("there is no stream of alerts")
		return nil
	}
	groups, err := a.rdb.XInfoGroups(ctx, key).Result()
	if err != nil {
		return fmt.Errorf("read %s: %w", key, err)
	}
	for _, g := range groups {
		if g.Name == group {
			a.delivered = g.LastDeliveredID
		}
	}
	if a.delivered == "" {
		a.note("group %s does not exist: no responder has read these alerts yet", group)
		return nil
	}
	for start := "-"; ; {
		page, err := a.rdb.XPendingExt(ctx, &redis.XPendingExtArgs{
			Stream: key, Group: group, Start: start, End: "+", Count: pendingPage,
		}).Result()
		if err != nil {
			return fmt.Errorf("read the pending list: %w", err)
		}
		for _, p := range page {
			a.pending[p.ID] = p.Idle
			start = "(" + p.ID
		}
		if len(page) < pendingPage {
			break
		}
	}
	a.report.Counts.Pending = len(a.pending)
	return nil
}

// readJournal follows each alert through the journal: what was accepted, and under which
// tokens.
func (a *audit) readJournal(ctx context.Context) (err error) {
	a.journal = map[stream.AlertID]*account{}
	if err := a.noteTrimmed(ctx, a.host.JournalKey(), "records before that are not compared"); err != nil {
		return err
	}
	a.lastLine, err = a.events(ctx, "-", func(e Event) error {
		a.follow(a.account(e.ID), e)
		return nil
	})
	return err
}

func (a *audit) account(id stream.AlertID) *account {
	acc := a.journal[id]
	if acc == nil {
		acc = &account{records: map[string]time.Time{}}
		a.journal[id] = acc
	}
	return acc
}

func (a *audit) follow(acc *account, e Event) {
	switch e.Event {
	case "late", "resolve", "lapse": // evidence beside what was accepted
		return
	case "revive", "purge":
		acc.removed = true
		return
	case "run", "resume", "poison":
		if e.Epoch <= acc.epoch {
			a.find(EpochFell, a.key(e.ID), "epoch %d was granted to %s after epoch %d (journal %s)", e.Epoch, e.Owner, acc.epoch, e.Line)
		}
	default:
		if e.Epoch < acc.epoch {
			a.find(EpochFell, a.key(e.ID), "a %s of %s under epoch %d was accepted after epoch %d had been granted (journal %s)",
				e.Event, e.Owner, e.Epoch, acc.epoch, e.Line)
		}
	}
	acc.epoch = max(acc.epoch, e.Epoch)
	acc.removed = acc.removed && e.Event != "bury"
	if e.Event != "record" {
		return
	}
	// Past retention the entry has expired, and what comes under its ID is a new alert.
	if before, twice := acc.records[e.Step]; twice && e.At().Sub(before) < a.cfg.Retention {
		a.find(RecordedTwice, a.key(e.ID), "step %s was recorded again by %s, as %s (journal %s)", e.Step, e.Owner, e.Outcome, e.Line)
	}
	acc.records[e.Step] = e.At()
}

// readLedger reads all entries and judges what can be judged of each by itself.
func (a *audit) readLedger(ctx context.Context) error {
	a.entries = map[stream.AlertID]*standing{}
	contradictions := &receiptCheck{audit: a}
	err := a.keys(ctx, func(ids []stream.AlertID) error {
		found, err := a.fetch(ctx, ids)
		if err != nil {
			return err
		}
		for _, id := range ids {
			if a.entries[id] != nil {
				continue
			}
			raw, ok := found[id]
			if !ok {
				if err := a.missing(ctx, id); err != nil {
					return err
				}
				continue
			}
			st := &standing{}
			a.entries[id] = st
			e, err := a.parse(id, raw)
			st.Header = e.Header
			if err != nil {
				st.unreadable = true
				a.find(Unreadable, a.key(id), "%v", err)
				continue
			}
			a.weigh(e)
			contradictions.compare(e)
		}
		return nil
	})
	contradictions.done()
	return err
}

// missing looks at an entry that could not be fetched: expired since it was listed, or no
// string.
func (a *audit) missing(ctx context.Context, id stream.AlertID) error {
	kind, err := a.rdb.Type(ctx, a.key(id)).Result()
	if err != nil {
		return fmt.Errorf("read the ledger: %w", err)
	}
	if kind != "none" && kind != "string" {
		a.entries[id] = &standing{unreadable: true}
		a.find(Unreadable, a.key(id), "it is a %s, not a string", kind)
	}
	return nil
}

// weigh counts an entry and judges what needs nothing but it and its journal.
func (a *audit) weigh(e Entry) {
	counts, key := &a.report.Counts, a.key(e.ID)
	switch e.Header.State {
	case Done:
		counts.Settled++
	case Dead:
		counts.Dead++
	case Held:
		counts.Held++
	case Waiting:
		counts.Waiting++
	}
	counts.Duplicates += e.Header.Duplicates
	if acc := a.journal[e.ID]; acc != nil && e.Header.Token.Epoch < acc.epoch {
		a.find(EpochFell, key, "the entry stands at epoch %d, and its journal at %d", e.Header.Token.Epoch, acc.epoch)
	}
	counts.Unresolved += e.Body.unresolved()
	for _, s := range e.Body.Steps {
		name := s.Name()
		switch {
		case s.Outcome == "" && e.Header.State == Done:
			a.find(Unfinished, key, "it is done, but step %s has no outcome", name)
		case s.Outcome == unknown:
			counts.Unknown++
		}
		if s.Epoch > e.Header.Token.Epoch {
			a.find(EpochFell, key, "step %s was recorded under epoch %d, and the entry stands at %d", name, s.Epoch, e.Header.Token.Epoch)
		}
	}
}

func (a *audit) readLetters(ctx context.Context) error {
	a.letters, a.report.Counts.Letters = map[stream.AlertID]bool{}, 0
	return a.Letters(ctx, func(l Letter) error {
		a.letters[l.Alert] = true
		a.report.Counts.Letters++
		return nil
	})
}

// readWaiting reads which alerts stand to be woken.
func (a *audit) readWaiting(ctx context.Context) error {
	members, err := a.rdb.ZRange(ctx, a.host.WaitingKey(a.group), 0, -1).Result()
	if err != nil {
		return fmt.Errorf("read what waits: %w", err)
	}
	a.parked = make(map[stream.AlertID]bool, len(members))
	for _, id := range members {
		a.parked[stream.AlertID(id)] = true
	}
	return nil
}

// noteTrimmed says so where a stream does not go back to its beginning any more.
func (a *audit) noteTrimmed(ctx context.Context, key, consequence string) error {
	first, err := a.rdb.XRangeN(ctx, key, "-", "+", 1).Result()
	if err != nil {
		return fmt.Errorf("read %s: %w", key, err)
	}
	if len(first) == 0 {
		return nil
	}
	info, err := a.rdb.XInfoStream(ctx, key).Result()
	if err != nil {
		return fmt.Errorf("read %s: %w", key, err)
	}
	if gone := info.EntriesAdded - info.Length; gone > 0 {
		a.note("%d entries of %s are gone; it begins at %s, and %s", gone, key, Stamp(stream.Delivery{StreamID: first[0].ID}.When()), consequence)
	}
	return nil
}

// before orders stream IDs.
func before(x, y string) bool {
	xms, xseq := splitID(x)
	yms, yseq := splitID(y)
	return xms < yms || xms == yms && xseq < yseq
}

func splitID(id string) (ms, seq uint64) {
	left, right, _ := strings.Cut(id, "-")
	ms, _ = strconv.ParseUint(left, 10, 64)
	seq, _ = strconv.ParseUint(right, 10, 64)
	return ms, seq
}

// receiptCheck compares records with the receipts of the host's gate.
type receiptCheck struct {
	*audit
	compared, failed int
	err              error // the first
}

func (c *receiptCheck) compare(e Entry) {
	if c.cfg.Receipts == nil {
		return
	}
	for _, s := range e.Body.Steps {
		if s.Outcome == "" {
			continue
		}
		step := s.Step
		if s.Playbook == "-" && s.Step == "bury" { // each burial is decided anew
			step += strconv.Itoa(e.Body.Retries)
		}
		outcome, epoch, ok, err := c.cfg.Receipts.Receipt(stream.StepKey(c.host, c.group, e.ID, s.Playbook, step))
		name := s.Playbook + "/" + s.Step
		switch {
		case err != nil:
			if c.failed++; c.err == nil {
				c.err = err
			}
			continue
		case !ok:
			continue
		case outcome == "" && epoch == s.Epoch:
			c.find(Contradicted, c.key(e.ID), "step %s was recorded as %s while its receipt is still open", name, s.Outcome)
		case outcome != "" && outcome != s.Outcome:
			c.find(Contradicted, c.key(e.ID), "step %s is recorded as %s, and its receipt was closed as %s", name, s.Outcome, outcome)
		}
		c.compared++
	}
}

func (c *receiptCheck) done() {
	if c.cfg.Receipts == nil {
		c.note("receipts were not compared: no runtime folder was named")
		return
	}
	c.note("%d records were compared with their receipts", c.compared)
	if c.failed > 0 {
		c.note("%d receipts could not be read: %v", c.failed, c.err)
	}
}
