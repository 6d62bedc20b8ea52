package ledger

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"riposte/stream"
)

// readStream goes through the alerts and finds the ledger entry of each.
func (a *audit) readStream(ctx context.Context) error {
	key := a.host.AlertsKey()
	if err := a.noteTrimmed(ctx, key, "deliveries before that are not checked"); err != nil {
		return err
	}
	unread := map[string]bool{}
	for id := range a.pending {
		unread[id] = true
	}
	strangers := map[stream.AlertID]bool{} // alerts without an entry
	expired := 0
	_, err := pages(ctx, a.rdb, key, "-", alertPage, func(m redis.XMessage) error {
		delete(unread, m.ID)
		_, pending := a.pending[m.ID]
		undelivered := a.delivered == "" || before(a.delivered, m.ID)
		if undelivered {
			a.report.Counts.Undelivered++
		}
		alerts := a.under(m)
		known := slices.ContainsFunc(alerts, func(id stream.AlertID) bool { return a.entries[id] != nil })
		switch {
		case pending || undelivered:
			a.bringBack(alerts)
		case !known && reopened(m):
			return nil // another group's, or its entry has expired: there was nothing to do here
		case !known && a.now.Sub(stream.Delivery{StreamID: m.ID}.When()) > a.cfg.Retention:
			expired++
			return nil
		default:
			a.acked(m.ID, alerts, known)
		}
		if !known {
			strangers[alerts[0]] = true
		}
		return nil
	})
	if err != nil {
		return err
	}
	if expired > 0 {
		a.note("%d alerts are older than the retention of %v; their entries have expired", expired, a.cfg.Retention)
	}
	a.report.Counts.Accepted = len(a.entries) + len(strangers)
	for id := range unread {
		a.suspect(Deleted, id, "", id, "it was deleted from the stream while it was pending; nobody can act on it any more")
	}
	return nil
}

// reopened says that a person has opened an entry again: it brings no alert.
func reopened(m redis.XMessage) bool {
	alert, _ := m.Values["alert"].(string)
	return alert == "" && m.Values["reopened"] != nil
}

// under lists the IDs under which the ledger may know an alert, the likeliest first: its
// own, unless another alert has that; that of a conflict; that of the stream entry, for
// what is no alert and for what killed all who touched it.
func (a *audit) under(m redis.XMessage) []stream.AlertID {
	text := func(name string) string { s, _ := m.Values[name].(string); return s }
	d := stream.Delivery{StreamID: m.ID, Raw: []byte(text("alert")), GivenID: text("id"), Problem: text("error")}
	if reopened(m) {
		return []stream.AlertID{stream.AlertID(d.GivenID), stream.EntryID(m.ID)}
	}
	alert, id, err := d.Alert()
	if err != nil {
		return []stream.AlertID{stream.EntryID(m.ID)}
	}
	ids := []stream.AlertID{id.Conflicting(alert.Digest()), stream.EntryID(m.ID)}
	if st := a.entries[id]; st == nil || st.unreadable || st.Digest == alert.Digest() {
		ids = slices.Insert(ids, 0, id)
	}
	return ids
}

func (a *audit) bringBack(alerts []stream.AlertID) {
	for _, id := range alerts {
		a.live[id] = true
	}
}

// acked judges a delivery that is not pending any more: the ledger must answer for it.
func (a *audit) acked(entry string, alerts []stream.AlertID, known bool) {
	if !known {
		a.suspect(Dropped, entry, alerts[0], entry, "alert %s was delivered and acked, and the ledger knows nothing of it", alerts[0])
		return
	}
	for _, id := range alerts {
		if st := a.entries[id]; st != nil && (st.unreadable || a.answered(st.Header)) {
			return
		}
	}
	for _, id := range alerts {
		if st := a.entries[id]; st != nil && !a.abandoned(st.Header) { // else it is an orphan
			a.suspect(Dropped, entry, id, entry, "alert %s was acked while it was held by %s and not settled", id, st.Owner)
		}
	}
}

func (a *audit) answered(h Header) bool { return h.Settled() || h.State == Waiting }

// abandoned says that nobody's lease on a held entry has run lately.
func (a *audit) abandoned(h Header) bool {
	return h.State == Held && (h.Lease.IsZero() || a.now.Sub(h.Lease) > a.cfg.Grace)
}

// judge brings it all together.
func (a *audit) judge(ctx context.Context) error {
	for id, st := range a.entries {
		if st.unreadable {
			continue
		}
		idle, pending := a.pending[st.StreamID]
		switch {
		case a.parked[id] != (st.State == Waiting):
			a.suspect(Stranded, a.key(id), id, "", "%s", strandedText(st.State))
		case pending && !a.answered(st.Header): // it will come back
		case a.abandoned(st.Header):
			holder := "handed back"
			if !st.Lease.IsZero() {
				holder = "held by " + st.Owner + " until " + Stamp(st.Lease)
			}
			a.suspect(Orphaned, a.key(id), id, st.StreamID, "it was %s, and no delivery is left that would bring it back", holder)
		case a.answered(st.Header) && pending && idle >= a.cfg.Grace:
			a.suspect(NotAcked, a.key(id), id, st.StreamID, "it is %s, and its delivery %s has been pending for more than %v",
				st.State, st.StreamID, a.cfg.Grace)
		case st.State == Dead && !a.letters[id] && !a.account(id).removed:
			a.suspect(NoLetter, a.key(id), id, st.StreamID, "it is dead, and there is no dead letter of it; nobody has purged it or sent it round again")
		}
	}
	for id := range a.parked {
		if a.entries[id] == nil {
			a.suspect(Stranded, a.key(id), id, "", "%s", strandedText(""))
		}
	}
	a.noteOpen()
	if len(a.suspects) == 0 {
		return nil
	}
	if err := a.readOn(ctx); err != nil {
		return err
	}
	if err := a.lookForLetters(ctx); err != nil {
		return err
	}
	for _, s := range a.suspects {
		guilty, err := a.still(ctx, s)
		if err != nil {
			return err
		}
		if guilty {
			a.report.Findings = append(a.report.Findings, s.Finding)
		}
	}
	return nil
}

func strandedText(s State) string {
	switch s {
	case Waiting:
		return "it is parked, and nothing stands to wake it"
	case "":
		return "it stands to be woken, and there is no entry of it"
	}
	return fmt.Sprintf("it stands to be woken, and is not parked but %s", s)
}

// readOn follows the journal from where it was read to.
func (a *audit) readOn(ctx context.Context) (err error) {
	a.lastLine, err = a.events(ctx, a.lastLine, func(e Event) error {
		a.follow(a.account(e.ID), e)
		return nil
	})
	return err
}

// lookForLetters looks again for the letters that seemed to be missing. One that the journal
// says stood, before the letters were read and after, must be among them.
func (a *audit) lookForLetters(ctx context.Context) error {
	removed := func(s suspect) bool { return s.Kind == NoLetter && a.account(s.alert).removed }
	a.suspects = slices.DeleteFunc(a.suspects, removed)
	if !slices.ContainsFunc(a.suspects, func(s suspect) bool { return s.Kind == NoLetter }) {
		return nil
	}
	if err := a.readLetters(ctx); err != nil {
		return err
	}
	if err := a.readOn(ctx); err != nil {
		return err
	}
	a.suspects = slices.DeleteFunc(a.suspects, func(s suspect) bool {
		return removed(s) || s.Kind == NoLetter && a.letters[s.alert]
	})
	return nil
}

// noteOpen says how long the oldest open delivery has been waiting, if it is long.
func (a *audit) noteOpen() {
	oldest := ""
	for id := range a.pending {
		if oldest == "" || before(id, oldest) {
			oldest = id
		}
	}
	if oldest == "" {
		return
	}
	if age := a.now.Sub(stream.Delivery{StreamID: oldest}.When()); age > a.cfg.Grace {
		a.note("the oldest pending delivery, %s, is %v old", oldest, age.Round(time.Second))
	}
}

// still says whether a suspicion stands: what was under way when it was read is looked at
// again.
func (a *audit) still(ctx context.Context, s suspect) (bool, error) {
	switch s.Kind {
	case NotAcked, Deleted: // settled, and perhaps trimmed, after the pending list was read
		rows, err := a.rdb.XPendingExt(ctx, &redis.XPendingExtArgs{
			Stream: a.host.AlertsKey(), Group: string(a.group), Start: s.entry, End: s.entry, Count: 1,
		}).Result()
		if err != nil {
			return false, fmt.Errorf("read the pending list: %w", err)
		}
		return len(rows) == 1, nil
	case NoLetter: // was looked for again
		return true, nil
	case Stranded:
		return a.strandedStill(ctx, s.alert)
	}
	return !a.live[s.alert], nil
}

// strandedStill looks at an entry before and after it looks whether it stands to be woken.
// Each change of an entry's state changes its first line, so if that is the same the two
// belong to one moment.
func (a *audit) strandedStill(ctx context.Context, id stream.AlertID) (bool, error) {
	line := func() (string, error) {
		found, err := a.fetch(ctx, []stream.AlertID{id})
		line, _, _ := strings.Cut(string(found[id]), "\n")
		return line, err
	}
	first, err := line()
	if err != nil {
		return false, err
	}
	_, err = a.rdb.ZScore(ctx, a.host.WaitingKey(a.group), string(id)).Result()
	parked := err == nil
	if err != nil && !errors.Is(err, redis.Nil) {
		return false, fmt.Errorf("read what waits: %w", err)
	}
	second, err := line()
	return first == second && parked != strings.HasPrefix(first, string(Waiting)+" "), err
}
