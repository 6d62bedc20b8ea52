package ledger

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"riposte/stream"
)

// State of a ledger entry.
type State string

const (
	Held    State = "held"    // somebody has, or had, the right to act
	Done    State = "done"    // settled: every step has its outcome
	Dead    State = "dead"    // settled: buried among the dead letters
	Waiting State = "waiting" // parked for a person or a breaker
)

// Token fences a grant. Epoch is in microseconds of the server's clock or above; Nonce is
// new for each Begin. Both must match wherever a token is compared.
type Token struct {
	Epoch uint64 `json:"epoch"`
	Nonce string `json:"nonce"`
}

// Header is the first line of an entry: all that scripts read.
type Header struct {
	State      State
	Token      Token
	Lease      time.Time // on the server's clock; zero when nobody's lease runs
	Owner      string    // consumer name, "-" when handed back
	Seq        int       // records accepted under the token
	Duplicates int       // further deliveries of the alert, settled without work
	Deaths     int       // holders that died holding it, proven
	Digest     string    // of the alert's actionable fields
	StreamID   string    // the delivery that the last record acks
	Gate       string    // gate ID of all holders so far, "*" once they had several, "-" where none has begun what is left to do
}

// Body is the rest of an entry: the plan and what became of it. The holder is its only
// writer.
type Body struct {
	// Unresolved counts the steps of unknown outcome that nobody has looked at yet. It comes
	// first in the JSON: stream.Inspect reads no further.
	Unresolved int `json:"unresolved,omitempty"`

	Level string `json:"level,omitempty"` // of the alert, for the reader
	Title string `json:"title,omitempty"`
	Rule  string `json:"rule,omitempty"`

	Seen     time.Time `json:"seen"`              // when the alert says it happened
	Expires  time.Time `json:"expires"`           // after this no effect is begun
	Refuse   string    `json:"refuse,omitempty"`  // why the whole alert is refused, decided at planning
	Flags    []string  `json:"flags,omitempty"`   // id_conflict
	Retries  int       `json:"retries,omitempty"` // times a person sent it round again
	Parked   *Parked   `json:"parked,omitempty"`  // while it waits
	Approval *Approval `json:"approval,omitempty"`
	Late     *Late     `json:"late,omitempty"` // where a step is decided on by the outcome of another
	Steps    []Step    `json:"steps"`
}

// Late is the alert, for steps that can be made out only when earlier ones have their outcome.
type Late struct {
	Alert json.RawMessage `json:"alert"`
	Until time.Time       `json:"until"` // it was seen before
}

// compact is what is kept of a settled alert: what was done and to what, and not how patiently
// it was to be tried.
func (b Body) compact() Body {
	b.Late, b.Steps = nil, slices.Clone(b.Steps)
	for i := range b.Steps {
		s := &b.Steps[i]
		s.Class, s.Timeout, s.Retry, s.If, s.OnError, s.Spec, s.Verdict = "", 0, Retry{}, "", "", nil, ""
	}
	return b
}

// Step is one step of the plan, frozen by the first Begin, and its record.
type Step struct {
	Playbook string          `json:"playbook"`
	Step     string          `json:"step"`
	Action   string          `json:"action"`
	Class    string          `json:"class,omitempty"` // of the action; see action.Class
	Mode     string          `json:"mode"`            // observe or enforce
	Hash     string          `json:"hash,omitempty"`  // of the playbook file
	With     json.RawMessage `json:"with,omitempty"`  // resolved parameters
	Timeout  time.Duration   `json:"timeout,omitempty"`
	Retry    Retry           `json:"retry,omitzero"`
	Expires  time.Time       `json:"expires,omitzero"`   // where that is before the alert's own
	If       string          `json:"if,omitempty"`       // condition over earlier outcomes
	Spec     json.RawMessage `json:"spec,omitempty"`     // parameters that wait for earlier outcomes, instead of With
	OnError  string          `json:"on_error,omitempty"` // continue, stop or undo; empty means continue
	Undoes   string          `json:"undoes,omitempty"`   // the step of this playbook that it takes back
	Warm     bool            `json:"warm,omitempty"`     // its playbook warms up, and only observes for that reason
	Verdict  string          `json:"verdict,omitempty"`  // the outcome, where planning left no choice; Reason says why

	Attempts int       `json:"attempts,omitempty"` // times the step was tried, also where it was refused or only observed
	Outcome  string    `json:"outcome,omitempty"`  // empty until recorded
	Reason   string    `json:"reason,omitempty"`
	Epoch    uint64    `json:"epoch,omitempty"` // token under which it was recorded
	Replica  string    `json:"replica,omitempty"`
	Started  time.Time `json:"started,omitzero"` // clock of the replica
	Ended    time.Time `json:"ended,omitzero"`
	Lapsed   time.Time `json:"lapsed,omitzero"`    // since when what was done for a time is over
	Resolved *Note     `json:"resolved,omitempty"` // where the outcome is unknown, and somebody has looked
}

// Retry is how often and how patiently a step is tried.
type Retry struct {
	Attempts int           `json:"attempts,omitempty"`
	Initial  time.Duration `json:"initial,omitempty"`
	Max      time.Duration `json:"max,omitempty"`
}

// Entry is one alert in the ledger.
type Entry struct {
	ID     stream.AlertID
	Host   stream.Host
	Group  stream.Group
	Header Header
	Body   Body
}

// Published is when the delivery that the entry answers for was added, on Redis's clock. What
// the alert itself says of its time is the sender's word. Zero where that delivery is gone.
func (e Entry) Published() time.Time { return stream.Delivery{StreamID: e.Header.StreamID}.When() }

// ParseEntry reads an entry as it is stored.
func ParseEntry(raw []byte) (Header, Body, error) {
	line, rest, ok := bytes.Cut(raw, []byte("\n"))
	if !ok {
		return Header{}, Body{}, fmt.Errorf("ledger entry of one line: %.80q", raw)
	}
	h, err := ParseHeader(string(line))
	if err != nil {
		return Header{}, Body{}, err
	}
	var b Body
	if err := json.Unmarshal(rest, &b); err != nil {
		return h, Body{}, fmt.Errorf("body of the ledger entry: %w", err)
	}
	return h, b, nil
}

// ParseHeader reads the first line of an entry.
func ParseHeader(line string) (Header, error) {
	f := strings.Fields(line)
	if len(f) != 11 {
		return Header{}, fmt.Errorf("ledger header with %d fields, want 11: %.80q", len(f), line)
	}
	var firstErr error
	number := func(s string) int64 {
		n, err := strconv.ParseInt(s, 10, 64)
		if err == nil && n < 0 {
			err = fmt.Errorf("negative number %q", s)
		}
		if err != nil && firstErr == nil {
			firstErr = fmt.Errorf("ledger header: %w", err)
		}
		return n
	}
	h := Header{
		State: State(f[0]),
		Token: Token{Epoch: uint64(number(f[1])), Nonce: f[4]},
		Owner: f[3], Seq: int(number(f[5])), Duplicates: int(number(f[6])), Deaths: int(number(f[7])),
		Digest: f[8], StreamID: f[9], Gate: f[10],
	}
	if us := number(f[2]); us > 0 {
		h.Lease = time.UnixMicro(us)
	}
	switch h.State {
	case Held, Done, Dead, Waiting:
	default:
		return Header{}, fmt.Errorf("ledger header: unknown state %q", f[0])
	}
	return h, firstErr
}

// Settled says that nothing is left to do.
func (h Header) Settled() bool { return h.State == Done || h.State == Dead }
