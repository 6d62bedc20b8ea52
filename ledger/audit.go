package ledger

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"riposte/stream"
)

// AuditConfig configures an audit. Zero values mean the defaults.
type AuditConfig struct {
	Retention time.Duration // of the replicas' ledger; default DefaultRetention
	Grace     time.Duration // how long what ought to be settled may be under way; default 1 min
	Receipts  Receipts      // the host's gate; nil: receipts are not compared
}

// Receipts are what the host's gate holds, read without entering it.
type Receipts interface {
	// Receipt returns the outcome closed in a step's receipt, empty while it is open, and
	// the newest epoch that has passed the gate. ok is false where there is no receipt.
	Receipt(key string) (outcome string, epoch uint64, ok bool, err error)
}

// Kind is a way in which the promise can be broken.
type Kind string

const (
	Dropped       Kind = "dropped"        // delivered, acked, and not settled
	Orphaned      Kind = "orphaned"       // held, but nobody's lease runs and no delivery will bring it back
	Deleted       Kind = "deleted"        // gone from the stream before it was settled
	RecordedTwice Kind = "recorded-twice" // more than one accepted record of a step
	EpochFell     Kind = "epoch-fell"     // something was accepted under an older token than before
	Unfinished    Kind = "unfinished"     // done, with a step that has no outcome
	NotAcked      Kind = "not-acked"      // settled, with its own delivery still pending
	NoLetter      Kind = "no-letter"      // dead, with no dead letter
	Stranded      Kind = "stranded"       // parked, and nothing will wake it; or to be woken, and not parked
	Unreadable    Kind = "unreadable"     // an entry nobody can read
	Contradicted  Kind = "contradicted"   // the host's receipt says otherwise
)

// Finding is one violation of the promise.
type Finding struct {
	Kind Kind   `json:"kind"`
	Key  string `json:"key"`  // of the ledger entry in Redis, or the ID of the stream entry
	Text string `json:"text"` // what is wrong, in words
}

// Counts are the figures of an audit.
type Counts struct {
	Accepted    int `json:"accepted"`    // alerts the group was ever given, as far as Redis remembers
	Settled     int `json:"settled"`     // of these: done
	Dead        int `json:"dead"`        // of these: buried
	Held        int `json:"held"`        // of these: somebody's to act on
	Waiting     int `json:"waiting"`     // of these: parked for a person or a breaker
	Pending     int `json:"pending"`     // deliveries not settled yet
	Undelivered int `json:"undelivered"` // entries no replica has read yet
	Unknown     int `json:"unknown"`     // steps of which nobody can say whether they happened
	Unresolved  int `json:"unresolved"`  // of these: steps that no person has looked into yet
	Duplicates  int `json:"duplicates"`  // further deliveries of a settled alert
	Letters     int `json:"letters"`     // dead letters
}

// Report is what an audit found.
type Report struct {
	Host     stream.Host  `json:"host"`
	Group    stream.Group `json:"group"`
	At       time.Time    `json:"at"` // on Redis's clock
	Counts   Counts       `json:"counts"`
	Findings []Finding    `json:"findings"`
	Notes    []string     `json:"notes"` // what could not be checked, and what is no violation but good to know
}

// Audit compares everything that is known of the group's alerts and reports each violation
// of the promise in this package's documentation. It shares no code with the scripts that
// keep the promise, changes nothing, and may run at any time: what looks wrong because it
// was under way is looked at again before it is reported.
//
// The order of reading matters. Whatever is not pending was acked before the pending list
// was read, so it must be settled in the ledger, which is read later; and whatever is held
// there has a delivery in the pending list, or in the stream, which is read after that. The
// journal is read before the ledger, so an entry is never older than its journal, and dead
// letters and what waits to be woken after it.
func (r *Reader) Audit(ctx context.Context, cfg AuditConfig) (*Report, error) {
	if cfg.Retention == 0 {
		cfg.Retention = DefaultRetention
	}
	if cfg.Grace == 0 {
		cfg.Grace = time.Minute
	}
	a := &audit{Reader: r, cfg: cfg, report: &Report{Host: r.host, Group: r.group, Findings: []Finding{}, Notes: []string{}}}
	for _, step := range []func(context.Context) error{
		a.readDeliveries, a.readJournal, a.readLedger, a.readLetters, a.readWaiting, a.readStream, a.judge,
	} {
		if err := step(ctx); err != nil {
			return nil, fmt.Errorf("audit: %w", err)
		}
	}
	slices.SortFunc(a.report.Findings, func(x, y Finding) int {
		return strings.Compare(string(x.Kind)+x.Key+x.Text, string(y.Kind)+y.Key+y.Text)
	})
	return a.report, nil
}

// audit is one run.
type audit struct {
	*Reader
	cfg    AuditConfig
	report *Report

	now       time.Time
	delivered string                   // the group's last-delivered ID; empty: there is no group
	pending   map[string]time.Duration // stream ID -> time since it was last delivered
	journal   map[stream.AlertID]*account
	lastLine  string // of the journal that was read
	entries   map[stream.AlertID]*standing
	letters   map[stream.AlertID]bool
	parked    map[stream.AlertID]bool // what stands to be woken
	live      map[stream.AlertID]bool // alerts with a delivery that will bring them back
	suspects  []suspect
}

// account is what the journal says of one alert.
type account struct {
	epoch   uint64               // the newest accepted
	records map[string]time.Time // step -> when its last record was accepted
	removed bool                 // its dead letter was purged or sent round again, and none was written since
}

// standing is what the ledger says of one alert.
type standing struct {
	Header
	unreadable bool
}

// suspect is what may be a violation, or may just have been under way.
type suspect struct {
	Finding
	alert stream.AlertID
	entry string // the delivery it is about
}

func (a *audit) find(kind Kind, key, format string, args ...any) {
	a.report.Findings = append(a.report.Findings, Finding{kind, key, fmt.Sprintf(format, args...)})
}

func (a *audit) suspect(kind Kind, key string, alert stream.AlertID, entry, format string, args ...any) {
	a.suspects = append(a.suspects, suspect{Finding{kind, key, fmt.Sprintf(format, args...)}, alert, entry})
}

func (a *audit) note(format string, args ...any) {
	a.report.Notes = append(a.report.Notes, fmt.Sprintf(format, args...))
}

func (a *audit) key(id stream.AlertID) string { return a.host.LedgerKey(a.group, id) }
