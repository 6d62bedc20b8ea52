package judge

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"time"
)

// Token fences a grant: see package ledger.
type Token struct {
	Epoch uint64 `json:"epoch"`
	Nonce string `json:"nonce"`
}

// Event is one line of a trace.
type Event struct {
	TimeUS int64  `json:"t_us"`  // Unix microseconds on the host's clock
	Event  string `json:"event"` // Begin, End, Closed or Recorded
	Key    string `json:"key"`   // HOST/GROUP/ALERTID/PLAYBOOK/STEP
	Token
	Replica string `json:"replica"`
	Action  string `json:"action"`
	Outcome string `json:"outcome"` // empty with Begin, and with the End of an effect that failed
}

// What an Event can be.
const (
	Begin    = "begin"    // an effect is about to begin
	End      = "end"      // it is over, and this came of it
	Closed   = "closed"   // the outcome was decided at the gate
	Recorded = "recorded" // the ledger has accepted it
)

// Time is when it happened, on the host's clock.
func (e Event) Time() time.Time { return time.UnixMicro(e.TimeUS) }

func (e Event) String() string {
	return fmt.Sprintf("%s %s of %s by %s under %d/%s", clock(e.Time()), e.Event, e.Key, e.Replica, e.Epoch, e.Nonce)
}

func clock(t time.Time) string { return t.UTC().Format("15:04:05.000000") }

// ReadFile reads a trace.
func ReadFile(path string) ([]Event, error) {
	raw, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("trace: %w", err)
	}
	events, rest, err := Read(raw)
	if err != nil {
		return nil, fmt.Errorf("trace %s: %w", path, err)
	}
	if len(rest) > 0 {
		return nil, fmt.Errorf("trace %s: its last line has no end: %q", path, rest)
	}
	return events, nil
}

// Read reads the whole lines of a trace, and returns what follows the last of them.
func Read(raw []byte) (events []Event, rest []byte, err error) {
	whole := bytes.LastIndexByte(raw, '\n') + 1
	for line := range bytes.Lines(raw[:whole]) {
		var e Event
		if err := json.Unmarshal(untorn(line), &e); err != nil {
			return nil, nil, fmt.Errorf("unreadable line %q: %w", line, err)
		}
		if !slices.Contains([]string{Begin, End, Closed, Recorded}, e.Event) || e.Key == "" || e.Replica == "" || e.TimeUS == 0 {
			return nil, nil, fmt.Errorf("unknown event %q", line)
		}
		events = append(events, e)
	}
	return events, raw[whole:], nil
}

// untorn drops what a replica left that was killed in the middle of a line: the kernel
// may cut a write short where the line crosses a page. The effect it would have told of
// was not begun then, or had not ended.
func untorn(line []byte) []byte {
	if i := bytes.LastIndex(line, []byte(`{"t_us":`)); i > 0 {
		return line[i:]
	}
	return line
}

// Inside are, of each replica, the steps it has begun and not ended.
func (t Trial) Inside() map[string][]string { return t.unfinished(End) }

// Unclosed are, of each replica, the steps whose effect it has begun and whose outcome it
// has not closed.
func (t Trial) Unclosed() map[string][]string { return t.unfinished(Closed) }

// Unrecorded are, of each replica, the steps whose effect it has begun, or whose outcome
// it has closed, and that it has not recorded. The ledger's Begin is not in the trace, so
// this is less than all it held: each of these steps lay between Begin and Record.
func (t Trial) Unrecorded() map[string][]string { return t.unfinished(Recorded) }

// Unclosed is the same of replicas that all live.
func Unclosed(events []Event) map[string][]string { return Trial{Events: events}.Unclosed() }

// Unrecorded is the same of replicas that all live.
func Unrecorded(events []Event) map[string][]string { return Trial{Events: events}.Unrecorded() }

// unfinished are the steps that each replica left open when it died, or has open now. A
// replica that lost its grant while it lived never finishes the step; it lost it at the
// latest when somebody else came to that step.
func (t Trial) unfinished(last string) map[string][]string {
	steps, at := map[string][]string{}, map[string][]string{} // by replica, and by step who has it open
	open := func(replica, key string) {
		steps[replica], at[key] = append(steps[replica], key), append(at[key], replica)
	}
	close := func(replica, key string) {
		steps[replica] = slices.DeleteFunc(steps[replica], func(k string) bool { return k == key })
		at[key] = slices.DeleteFunc(at[key], func(r string) bool { return r == replica })
	}
	for _, e := range t.Events {
		for _, name := range slices.Clone(at[e.Key]) {
			if died, ok := t.LastAlive[name]; name != e.Replica && !(ok && died.Before(e.Time())) {
				close(name, e.Key)
			}
		}
		mine := slices.Contains(at[e.Key], e.Replica)
		switch {
		case e.Event == last && mine:
			close(e.Replica, e.Key)
		case !mine && (e.Event == Begin || e.Event == Closed && last == Recorded):
			open(e.Replica, e.Key)
		}
	}
	return steps
}
