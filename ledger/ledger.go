package ledger

import (
	"context"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/redis/go-redis/v9"

	"riposte/stream"
)

// ErrLost says that the token does not stand any more: another replica took over, or the
// entry is gone with Redis's memory. The caller stops working on the alert and records
// nothing; whoever holds it now will find the receipts at the gate.
var ErrLost = errors.New("grant lost")

// DefaultRetention is how long a settled entry and its journal stay.
const DefaultRetention = 7 * 24 * time.Hour

// ErrClaim says that a claim cannot be begun as it is, or that its answer is not of this
// version. Asking again does not help; in a batch it may be another claim's fault.
var ErrClaim = errors.New("claim cannot be begun")

// ShortestLease is what a renewal every third of it can keep up with.
const ShortestLease = 100 * time.Millisecond

// Config of a Ledger. Zero values mean the defaults.
type Config struct {
	Host  stream.Host
	Group stream.Group
	Owner string // consumer name of this replica, never reused
	Gate  string // ID of the gate this replica uses, without spaces

	Lease        time.Duration // default 5 s; at least ShortestLease
	Retention    time.Duration // how long a settled entry and its journal stay; default DefaultRetention
	DeathsToBury int           // proven deaths after which an alert is poison; default 5

	// Siblings says how many alerts are being worked on, the one that is being recorded
	// included: the record waits a moment for theirs. Nil means no other.
	Siblings func() int
}

// Validate fills in defaults and checks relations.
func (c *Config) Validate() error {
	if c.Lease == 0 {
		c.Lease = 5 * time.Second
	}
	if c.Retention == 0 {
		c.Retention = DefaultRetention
	}
	if c.DeathsToBury == 0 {
		c.DeathsToBury = 5
	}
	if c.Gate == "" {
		c.Gate = "-"
	}
	switch {
	case c.Lease < ShortestLease:
		return fmt.Errorf("lease %v is shorter than %v", c.Lease, ShortestLease)
	case c.Retention <= 10*c.Lease:
		return fmt.Errorf("retention %v is not well above the lease %v", c.Retention, c.Lease)
	case strings.ContainsAny(c.Owner+c.Gate, " \n") || c.Owner == "":
		return fmt.Errorf("owner %q and gate %q must be words", c.Owner, c.Gate)
	}
	return nil
}

// Ledger is one replica's hand on the ledger of a host and group. It is safe for
// concurrent use.
type Ledger struct {
	cfg     Config
	rdb     redis.Cmdable
	commits *commits
}

// New checks the configuration and returns the ledger.
func New(rdb redis.Cmdable, cfg Config) (*Ledger, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("ledger: %w", err)
	}
	return &Ledger{cfg, rdb, newCommits(cfg.Siblings)}, nil
}

// For is the ledger of another group of the same host.
func (l *Ledger) For(g stream.Group, owner string) *Ledger {
	other := &Ledger{l.cfg, l.rdb, newCommits(nil)}
	other.cfg.Group, other.cfg.Owner = g, owner
	return other
}

// Lease is the length of a lease.
func (l *Ledger) Lease() time.Duration { return l.cfg.Lease }

// DeathsToBury is after how many proven deaths of its holders an alert is poison.
func (l *Ledger) DeathsToBury() int { return l.cfg.DeathsToBury }

// Retention is how long a settled entry stays.
func (l *Ledger) Retention() time.Duration { return l.cfg.Retention }

//go:embed lua/*.lua
var sources embed.FS

var (
	beginScript    = script("begin")
	renewScript    = script("renew")
	recordScript   = script("record")
	buryScript     = script("bury")
	releaseScript  = script("release")
	reviveScript   = script("revive")
	parkScript     = script("park")
	wakeScript     = script("wake")
	registerScript = script("register")
	resolveScript  = script("resolve")
	purgeScript    = script("purge")
	reserveScript  = script("reserve")
	reopenScript   = script("reopen")
	warmScript     = script("warm")
)

func script(name string) *redis.Script { return redis.NewScript(source(name)) }

// Load has Redis compile the scripts, so that the first call of each, which may be a renewal
// in need, is not sent twice.
func (l *Ledger) Load(ctx context.Context) error {
	_, err := l.rdb.Pipelined(ctx, func(p redis.Pipeliner) error {
		// Not Script.Load: in a pipeline it takes the reply that is still to come for the hash.
		for _, name := range []string{"begin", "renew", "record", "bury", "release", "park", "wake", "register"} {
			p.ScriptLoad(ctx, source(name))
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("load scripts: %w", err)
	}
	return nil
}

func source(name string) string {
	src, err := sources.ReadFile("lua/" + name + ".lua")
	if err != nil {
		panic(err) // the file is part of the binary
	}
	return weaken(name, string(src))
}

// Claim asks for the right to act on one alert.
type Claim struct {
	ID         stream.AlertID
	StreamID   string // the delivery that will be acked
	SHA1       string // of the delivered alert, in hex: it is acked only where it stands so in the stream; empty where it was gone when it was delivered
	Nonce      string // new for each Begin, kept when the same Begin is sent again: NewNonce
	Floor      uint64 // the newest epoch the gate has seen, where it refused a grant of ours
	Digest     string // of the actionable fields
	Deliveries int    // earlier deliveries that never reached a Begin
	Body       Body   // the plan, in case nothing is stored yet
	Reopened   bool   // there is none: see Reader.Undo

	Switches []string  // that pause it: see Switch
	Breakers []Breaker // of this host that count it
	Hold     string    // what keeps it from being begun that this host's Redis keys do not show; empty: nothing
	Park     *Body     // to be parked with, where it must not begin; nil: ask, with Wait
	ParkFrom uint64    // epoch of the entry that Park was made from, see Answer.StoredAt
}

// NewNonce makes the nonce of one Begin.
func NewNonce() string { return strings.ReplaceAll(uuid.NewString(), "-", "")[:16] }

// Verdict is Begin's answer for one alert.
type Verdict string

const (
	Run       Verdict = "run"      // granted; a hint that nothing was done, never a proof: the receipt decides
	Resume    Verdict = "resume"   // granted; somebody held it before
	Poison    Verdict = "poison"   // granted, but only to be buried
	Settled   Verdict = "settled"  // done, dead or parked before; this delivery is acked now
	Busy      Verdict = "busy"     // somebody holds it, perhaps this replica
	Conflict  Verdict = "conflict" // the ID belongs to an alert with other actionable fields
	Paused    Verdict = "paused"   // under way when its holder died, and a switch is off: it stays pending
	Wait      Verdict = "wait"     // must not begin: claim it again with a body to park
	ParkedNow Verdict = "parked"   // must not begin, and waits now; this delivery is acked
)

// Answer is what Begin says of one alert.
type Answer struct {
	Verdict Verdict
	Grant   *Grant        // with Run, Resume and Poison
	Left    time.Duration // with Busy: what is left of the holder's lease
	Holder  string        // with Busy
	Why     string        // with Paused, Wait and Parked: the switch or breaker that holds it back
	Stored  *Body         // with Wait: what is stored of it; nil: nothing
	// StoredAt is the epoch of the entry that Stored is of. A body to park is accepted only as
	// long as it is: else it might undo what somebody else has recorded meanwhile.
	StoredAt uint64
}

// Grant is the right to act on one alert, for as long as it is renewed.
type Grant struct {
	ID       stream.AlertID
	StreamID string
	Token    Token
	Body     Body
	Prior    string   // gate ID of the holders before, "*" if they had several; empty with Run
	Deadline Deadline // as of Begin
	seq      int
}

// Deadline is when a lease runs out, on a local clock that counts the time the host is
// suspended. It was taken before the request was sent, so it is never later than the
// server's.
type Deadline struct{ at time.Duration }

// Left is what is left of the lease; negative when it has run out.
func (d Deadline) Left() time.Duration { return d.at - uptime() }

func (l *Ledger) deadline() Deadline { return Deadline{uptime() + l.cfg.Lease} }

// Begin asks for a batch of alerts, of which no two have the same ID, and answers in the
// same order. After an error the caller may send the very same claims again: a grant that
// was made belongs to its nonce. dead names owners proven dead.
func (l *Ledger) Begin(ctx context.Context, claims []Claim, dead []string) ([]Answer, error) {
	if len(claims) == 0 {
		return nil, nil
	}
	keys := []string{l.cfg.Host.AlertsKey(), l.cfg.Host.JournalKey(), l.cfg.Host.ControlKey(), l.cfg.Host.WaitingKey(l.cfg.Group)}
	args := []any{
		string(l.cfg.Group), l.cfg.Owner, l.cfg.Gate, l.cfg.Lease.Microseconds(), l.cfg.DeathsToBury,
		l.cfg.Retention.Milliseconds(), " " + strings.Join(dead, " ") + " ", strings.Join(switchesOf(claims), " "),
	}
	asks := make(map[stream.AlertID]bool, len(claims))
	for _, c := range claims {
		if asks[c.ID] { // the script would grant it twice
			return nil, fmt.Errorf("%w: alert %s is asked for twice in one batch", ErrClaim, c.ID)
		}
		asks[c.ID] = true
		var body []byte
		if !c.Reopened {
			var err error
			if body, err = json.Marshal(c.Body); err != nil {
				return nil, fmt.Errorf("%w: plan of %s: %w", ErrClaim, c.ID, err)
			}
		}
		var parked []byte
		score := ""
		if c.Park != nil {
			var err error
			score = heldScore(c.Park.Parked.For)
			if parked, err = json.Marshal(c.Park); err != nil {
				return nil, fmt.Errorf("%w: plan of %s: %w", ErrClaim, c.ID, err)
			}
		}
		keys = append(keys, l.cfg.Host.LedgerKey(l.cfg.Group, c.ID))
		args = append(args, c.StreamID, c.Nonce, c.Floor, c.Digest, c.Deliveries, body, c.SHA1,
			strings.Join(c.Switches, " "), counted(c.Breakers), c.Hold, parked, c.ParkFrom, score)
	}
	until := l.deadline()
	replies, err := beginScript.Run(ctx, l.rdb, keys, args...).Slice()
	if err != nil {
		return nil, fmt.Errorf("begin: %w", err)
	}
	if len(replies) != len(claims) {
		return nil, fmt.Errorf("begin: %d answers to %d claims", len(replies), len(claims))
	}
	answers := make([]Answer, len(claims))
	for i, reply := range replies {
		if answers[i], err = l.answer(claims[i], reply, until); err != nil {
			return nil, fmt.Errorf("%w: begin %s: %w", ErrClaim, claims[i].ID, err)
		}
	}
	return answers, nil
}

func (l *Ledger) answer(c Claim, reply any, until Deadline) (Answer, error) {
	f, ok := reply.([]any)
	if !ok || len(f) != 5 {
		return Answer{}, fmt.Errorf("reply of another version: %v", reply)
	}
	word := func(i int) string { s, _ := f[i].(string); return s }
	epoch, err1 := strconv.ParseUint(word(1), 10, 64)
	n, err2 := strconv.ParseInt(word(2), 10, 64)
	if err := errors.Join(err1, err2); err != nil {
		return Answer{}, err
	}
	a := Answer{Verdict: Verdict(word(0))}
	switch a.Verdict {
	case Settled, Conflict:
		return a, nil
	case Busy:
		a.Left, a.Holder = time.Duration(n)*time.Microsecond, word(3)
		return a, nil
	case Paused, Wait, ParkedNow:
		a.Why, a.StoredAt = word(3), uint64(n)
		if stored := word(4); a.Verdict == Wait && stored != "" {
			a.Stored = new(Body)
			if err := json.Unmarshal([]byte(stored), a.Stored); err != nil {
				return Answer{}, fmt.Errorf("body of the entry: %w", err)
			}
		}
		return a, nil
	case Run, Resume, Poison:
		a.Grant = &Grant{
			ID: c.ID, StreamID: c.StreamID, Token: Token{epoch, c.Nonce}, Prior: word(3),
			Deadline: until, Body: c.Body,
		}
		a.Grant.Body.Steps = slices.Clone(c.Body.Steps) // they get outcomes; the claim may be sent again
		if stored := word(4); stored != "" {
			a.Grant.Body = Body{}
			if err := json.Unmarshal([]byte(stored), &a.Grant.Body); err != nil {
				return Answer{}, fmt.Errorf("body of the entry: %w", err)
			}
		}
		return a, nil
	}
	return Answer{}, fmt.Errorf("unknown verdict %q", word(0))
}

// Renew extends the leases of grants and returns those whose token does not stand any
// more, whose work must be cancelled. On an error nothing is known: leases that were not
// renewed simply run out at their Deadline.
func (l *Ledger) Renew(ctx context.Context, grants []*Grant) (renewed, lost []*Grant, until Deadline, err error) {
	if len(grants) == 0 {
		return nil, nil, Deadline{}, nil
	}
	keys, args := make([]string, len(grants)), []any{l.cfg.Lease.Microseconds()}
	for i, g := range grants {
		keys[i] = l.cfg.Host.LedgerKey(l.cfg.Group, g.ID)
		args = append(args, g.Token.Epoch, g.Token.Nonce)
	}
	until = l.deadline()
	replies, err := renewScript.Run(ctx, l.rdb, keys, args...).Int64Slice()
	if err != nil {
		return nil, nil, Deadline{}, fmt.Errorf("renew %d leases: %w", len(grants), err)
	}
	for i, ok := range replies {
		if ok == 1 {
			renewed = append(renewed, grants[i])
		} else {
			lost = append(lost, grants[i])
		}
	}
	return renewed, lost, until, nil
}

// Bury moves the alert to the dead letters and settles it.
func (l *Ledger) Bury(ctx context.Context, g *Grant, letter stream.DeadLetter) error {
	g.Body.Unresolved = g.Body.unresolved() // outcomes closed at the gate may have been found
	body, err := json.Marshal(g.Body)
	if err != nil {
		return fmt.Errorf("bury %s: %w", g.ID, err)
	}
	keys := []string{
		l.cfg.Host.AlertsKey(), l.cfg.Host.JournalKey(),
		l.cfg.Host.LedgerKey(l.cfg.Group, g.ID), l.cfg.Host.DeadKey(l.cfg.Group),
	}
	reply, err := buryScript.Run(ctx, l.rdb, keys,
		string(l.cfg.Group), g.Token.Epoch, g.Token.Nonce, l.cfg.Retention.Milliseconds(), l.cfg.Retention.Milliseconds(),
		letter.Reason, l.cfg.Owner, letter.Raw, letter.Length, letter.SHA256, body).Text()
	return l.outcome("bury", g, reply, err)
}

// outcome turns the reply of a fenced write into an error.
func (l *Ledger) outcome(what string, g *Grant, reply string, err error) error {
	switch {
	case err != nil:
		return fmt.Errorf("%s %s: %w", what, g.ID, err)
	case reply == "ok":
		return nil
	case reply == "stale":
		return fmt.Errorf("%s %s: %w: another replica holds it", what, g.ID, ErrLost)
	case reply == "absent":
		return fmt.Errorf("%s %s: %w: its entry is gone from Redis", what, g.ID, ErrLost)
	}
	return fmt.Errorf("%s %s: unexpected reply %q; look at its entry with GET", what, g.ID, reply)
}

// Release hands a grant back, so that its successor need not wait for the lease.
func (l *Ledger) Release(ctx context.Context, g *Grant, reason string) error {
	keys := []string{l.cfg.Host.JournalKey(), l.cfg.Host.LedgerKey(l.cfg.Group, g.ID)}
	err := releaseScript.Run(ctx, l.rdb, keys,
		string(l.cfg.Group), g.Token.Epoch, g.Token.Nonce, l.cfg.Retention.Milliseconds(), l.cfg.Owner, reason).Err()
	if err != nil {
		return fmt.Errorf("release %s: %w", g.ID, err)
	}
	return nil
}
