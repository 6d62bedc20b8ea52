package stream

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/google/uuid"
)

// Bounds of an alert's JSON. Anything beyond them is a dead letter.
const (
	MaxAlertBytes = 1 << 20 // 1 MiB
	MaxAlertDepth = 32
)

// Alert is what a detector says it saw. Every field may be written by an attacker.
type Alert struct {
	ID            AlertID         // given, or derived: see Decode
	Host          string          // as given; empty means the stream's host
	Source        string          // which detector
	Level         string          // CRITICAL, HIGH, MEDIUM, LOW
	Title         string          //
	Description   string          //
	Details       json.RawMessage // any JSON
	Timestamp     string          // RFC 3339, or without a zone: see When
	ActionablePID *int64          // actionable_pid: nil where the alert names no process
	SourceIP      string          // source_ip: as given, unparsed
	Rule          Rule
	Process       *Process

	// Extra holds the fields Riposte does not know, kept as they came.
	Extra map[string]json.RawMessage
	// Given is the ID as the publisher wrote it, empty where ID was derived.
	Given AlertID
}

// Rule says what matched.
type Rule struct {
	ID     string   `json:"id,omitempty"`
	Name   string   `json:"name,omitempty"`
	Author string   `json:"author,omitempty"`
	Tags   []string `json:"tags,omitempty"`
}

// Process names the process an alert is about. PID, StartTicks, BootID and PIDNS are its
// identity; the rest describes it.
type Process struct {
	PID        int64   `json:"pid"`
	StartTicks uint64  `json:"start_ticks,omitempty"` // field 22 of /proc/PID/stat, proc(5)
	BootID     string  `json:"boot_id,omitempty"`     // /proc/sys/kernel/random/boot_id
	PIDNS      uint64  `json:"pid_ns,omitempty"`      // inode of the namespace in which PID is numbered
	Name       string  `json:"name,omitempty"`
	Exe        string  `json:"exe,omitempty"`
	Cmdline    string  `json:"cmdline,omitempty"` // arguments joined by spaces
	UID        *int64  `json:"uid,omitempty"`
	Parent     *Parent `json:"parent,omitempty"`
}

// Parent describes the process that started the suspicious one.
type Parent struct {
	PID        int64  `json:"pid"`
	StartTicks uint64 `json:"start_ticks,omitempty"`
	Name       string `json:"name,omitempty"`
	Exe        string `json:"exe,omitempty"`
}

// ErrMalformed says that the bytes are not an alert and never will be. The entry is for
// the dead letters; retrying cannot help.
var ErrMalformed = errors.New("malformed alert")

func malformed(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrMalformed, fmt.Sprintf(format, args...))
}

// idSpace is the UUIDv5 name space (RFC 9562) of IDs derived from an alert's content.
var idSpace = uuid.NewSHA1(uuid.NameSpaceURL, []byte("riposte:alert"))

// DeriveID is the deterministic UUIDv5 of its parts.
func DeriveID(parts ...string) AlertID {
	return AlertID(uuid.NewSHA1(idSpace, []byte(strings.Join(parts, "\x00"))).String())
}

// Decode parses an alert. An alert without an ID gets one derived from its content, so
// that the same alert published through any door is one alert; where it has no timestamp
// either, entryID, the ID of its stream entry, goes into the derivation, or a second real
// attack would pass for a copy of the first. Unknown fields are kept. Every error wraps
// ErrMalformed.
func Decode(raw []byte, entryID string) (*Alert, error) {
	if len(raw) > MaxAlertBytes {
		return nil, malformed("%d bytes, more than %d", len(raw), MaxAlertBytes)
	}
	if err := checkDepth(raw); err != nil {
		return nil, err
	}
	a := &Alert{}
	rest, err := decodeObject(raw, a.known()...)
	if err != nil {
		return nil, malformed("%v", err)
	}
	if rest == nil {
		return nil, malformed("not a JSON object: null")
	}
	a.Extra = rest
	if a.Host != "" {
		if _, err := ParseHost(a.Host); err != nil {
			return nil, malformed("%v", err)
		}
	}
	if a.ID != "" {
		id, err := ParseAlertID(string(a.ID))
		if err != nil {
			return nil, malformed("%v", err)
		}
		a.Given = id
		return a, nil
	}
	canonical, err := canonicalJSON(raw)
	if err != nil {
		return nil, malformed("%v", err)
	}
	if a.Timestamp == "" {
		a.ID = DeriveID(string(canonical), entryID)
	} else {
		a.ID = DeriveID(string(canonical))
	}
	return a, nil
}

// field is a name that Riposte knows, and where its value goes.
type field struct {
	name string
	into any
}

// decodeObject spreads the fields of a JSON object over into and returns those it does
// not know; nil for null. Names are matched exactly: encoding/json on a struct would take
// "PID" for "pid" too, and an alert must not name one process to this reader and another
// to the next.
func decodeObject(raw []byte, into ...field) (rest map[string]json.RawMessage, err error) {
	if err := json.Unmarshal(raw, &rest); err != nil {
		return nil, fmt.Errorf("not a JSON object: %w", err)
	}
	for _, f := range into {
		value, ok := rest[f.name]
		if !ok {
			continue
		}
		if err := decodeValue(value, f.into); err != nil {
			return nil, fmt.Errorf("field %q: %w", f.name, err)
		}
		delete(rest, f.name)
	}
	return rest, nil
}

// decodeValue is json.Unmarshal of a value that is known to be valid JSON. Most values are
// text without escapes, or short numbers, and those need no parser.
func decodeValue(value []byte, into any) error {
	switch into := into.(type) {
	case *string:
		if text, ok := plainText(value); ok {
			*into = text
			return nil
		}
	case *int64:
		if n, ok := plainNumber(value); ok {
			*into = n
			return nil
		}
	case *uint64:
		if n, ok := plainNumber(value); ok {
			*into = uint64(n)
			return nil
		}
	}
	return json.Unmarshal(value, into)
}

func plainText(value []byte) (string, bool) {
	if len(value) < 2 || value[0] != '"' || bytes.IndexByte(value, '\\') >= 0 || !utf8.Valid(value) {
		return "", false
	}
	return string(value[1 : len(value)-1]), true
}

func plainNumber(value []byte) (n int64, ok bool) {
	if len(value) > 18 { // more may not fit
		return 0, false
	}
	for _, c := range value {
		if c < '0' || c > '9' {
			return 0, false
		}
		n = 10*n + int64(c-'0')
	}
	return n, len(value) > 0
}

// known are the fields Riposte knows.
func (a *Alert) known() []field {
	return []field{
		{"id", (*string)(&a.ID)}, {"host", &a.Host}, {"source", &a.Source},
		{"level", &a.Level}, {"title", &a.Title}, {"description", &a.Description}, {"details", &a.Details},
		{"timestamp", &a.Timestamp}, {"actionable_pid", &a.ActionablePID}, {"source_ip", &a.SourceIP},
		{"rule", &a.Rule}, {"process", &a.Process},
	}
}

// UnmarshalJSON reads a rule; unknown fields are ignored.
func (r *Rule) UnmarshalJSON(raw []byte) error {
	_, err := decodeObject(raw, field{"id", &r.ID}, field{"name", &r.Name}, field{"author", &r.Author}, field{"tags", &r.Tags})
	return err
}

// UnmarshalJSON reads a process; unknown fields are ignored.
func (p *Process) UnmarshalJSON(raw []byte) error {
	_, err := decodeObject(raw,
		field{"pid", &p.PID}, field{"start_ticks", &p.StartTicks}, field{"boot_id", &p.BootID}, field{"pid_ns", &p.PIDNS},
		field{"name", &p.Name}, field{"exe", &p.Exe}, field{"cmdline", &p.Cmdline}, field{"uid", &p.UID}, field{"parent", &p.Parent})
	return err
}

// UnmarshalJSON reads a parent; unknown fields are ignored.
func (p *Parent) UnmarshalJSON(raw []byte) error {
	_, err := decodeObject(raw,
		field{"pid", &p.PID}, field{"start_ticks", &p.StartTicks}, field{"name", &p.Name}, field{"exe", &p.Exe})
	return err
}

// MarshalJSON writes the known fields that are set and the unknown ones as they came.
func (a *Alert) MarshalJSON() ([]byte, error) {
	out := make(map[string]any, len(a.Extra)+12)
	for name, value := range a.Extra {
		out[name] = value
	}
	set := func(name, value string) {
		if value != "" {
			out[name] = value
		}
	}
	set("id", string(a.ID))
	set("host", a.Host)
	set("source", a.Source)
	set("level", a.Level)
	set("title", a.Title)
	set("description", a.Description)
	set("timestamp", a.Timestamp)
	set("source_ip", a.SourceIP)
	if len(a.Details) > 0 {
		out["details"] = a.Details
	}
	if a.ActionablePID != nil {
		out["actionable_pid"] = *a.ActionablePID
	}
	if a.Rule.ID != "" || a.Rule.Name != "" || a.Rule.Author != "" || len(a.Rule.Tags) > 0 {
		out["rule"] = a.Rule
	}
	if a.Process != nil {
		out["process"] = a.Process
	}
	return json.Marshal(out)
}

// PID is the process the alert asks to act on: actionable_pid, else process.pid. ok is
// false where it names none.
func (a *Alert) PID() (pid int64, ok bool) {
	switch {
	case a.ActionablePID != nil:
		return *a.ActionablePID, true
	case a.Process != nil && a.Process.PID != 0:
		return a.Process.PID, true
	}
	return 0, false
}

// Digest is a short hash of what decides whether, and to whom, something is done: process,
// start, address, host, rule, and the level and names that can turn the answer into "no".
// Two alerts under one ID with other digests are two alerts. A detector that was restarted may
// see the same attack again, later, when the parent has exited and another has taken in its
// child: so timestamp and parent are left out. Whoever acts on a parent checks its identity.
func (a *Alert) Digest() string {
	p := a.Process
	if p == nil {
		p = &Process{}
	}
	pid, named := a.PID()
	// As JSON no field can run into the next one.
	decisive, _ := json.Marshal([]any{ // strings and numbers always marshal
		named, pid, p.PID, p.StartTicks, p.BootID, p.PIDNS, p.Name, p.Exe,
		a.SourceIP, a.Host, a.Rule.ID, a.Level,
	})
	sum := sha256.Sum256(decisive)
	return hex.EncodeToString(sum[:8])
}

// When is the span of time the timestamp can mean: [from, until). A timestamp without a
// fraction means any moment of its second. One without a zone, as Python's isoformat()
// writes it, is read in zone; in the hour a zone repeats in autumn that is one of two
// hours, and an alert of the other comes out as old or as of the future.
func (a *Alert) When(zone *time.Location) (from, until time.Time, err error) {
	for _, layout := range []string{
		time.RFC3339Nano, "2006-01-02 15:04:05.999999999Z07:00",
		"2006-01-02T15:04:05.999999999", "2006-01-02 15:04:05.999999999",
	} {
		t, err := time.ParseInLocation(layout, a.Timestamp, zone)
		if err == nil {
			return t, t.Add(precision(a.Timestamp)), nil
		}
	}
	return time.Time{}, time.Time{}, fmt.Errorf("timestamp %q is not RFC 3339, with or without a zone", clip(a.Timestamp))
}

// precision is the length of time that the last digit of a timestamp stands for.
func precision(timestamp string) time.Duration {
	point := strings.IndexAny(timestamp, ".,") // time.Parse takes either
	if point < 0 {
		return time.Second
	}
	p := time.Second
	for _, c := range timestamp[point+1:] {
		if c < '0' || c > '9' {
			break
		}
		p /= 10
	}
	return max(p, 1)
}

// checkDepth refuses deep nesting before encoding/json recurses into it.
func checkDepth(raw []byte) error {
	depth, quoted, escaped := 0, false, false
	for _, c := range raw {
		switch {
		case escaped:
			escaped = false
		case quoted:
			escaped, quoted = c == '\\', c != '"'
		case c == '"':
			quoted = true
		case c == '{' || c == '[':
			if depth++; depth > MaxAlertDepth {
				return malformed("nested deeper than %d", MaxAlertDepth)
			}
		case c == '}' || c == ']':
			depth--
		}
	}
	return nil
}

// canonicalJSON is the JSON with sorted keys and without white space, numbers as written.
func canonicalJSON(raw []byte) ([]byte, error) {
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.UseNumber()
	var v any
	if err := dec.Decode(&v); err != nil {
		return nil, err
	}
	if _, err := dec.Token(); err != io.EOF {
		return nil, errors.New("more than one JSON value")
	}
	var out bytes.Buffer
	enc := json.NewEncoder(&out)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil { // sorts the keys of maps
		return nil, err
	}
	return bytes.TrimRight(out.Bytes(), "\n"), nil
}
