package stream

import (
	"fmt"
	"regexp"
	"strings"
	"time"
)

// Host names the machine an alert is about and on which it is acted upon. Everything of
// one host lives under one Redis hash tag, so it is one slot of a cluster.
type Host string

// Group is a consumer group on a host's alert stream: one kind of responder.
type Group string

// AlertID identifies an alert within a host. Two stream entries with one AlertID are
// the same alert delivered twice.
type AlertID string

// DefaultGroup is the consumer group of the replicas that contain attacks.
const DefaultGroup Group = "containment"

var (
	hostForm  = regexp.MustCompile(`^[A-Za-z0-9._-]{1,253}$`)
	groupForm = regexp.MustCompile(`^[A-Za-z0-9._-]{1,64}$`)
	alertForm = regexp.MustCompile(`^[A-Za-z0-9._:-]{1,128}$`)
)

// ParseHost accepts 1 to 253 of the characters A-Z a-z 0-9 . _ -
func ParseHost(s string) (Host, error) {
	if !hostForm.MatchString(s) {
		return "", fmt.Errorf("host %q: want 1 to 253 of A-Z a-z 0-9 . _ -", clip(s))
	}
	return Host(s), nil
}

// ParseGroup accepts 1 to 64 of the characters A-Z a-z 0-9 . _ -
func ParseGroup(s string) (Group, error) {
	if !groupForm.MatchString(s) {
		return "", fmt.Errorf("group %q: want 1 to 64 of A-Z a-z 0-9 . _ -", clip(s))
	}
	return Group(s), nil
}

// ParseAlertID accepts 1 to 128 of the characters A-Z a-z 0-9 . _ : -
// IDs that Riposte itself makes up contain a '~', which no outside ID can.
func ParseAlertID(s string) (AlertID, error) {
	if !alertForm.MatchString(s) {
		return "", fmt.Errorf("alert ID %q: want 1 to 128 of A-Z a-z 0-9 . _ : -", clip(s))
	}
	return AlertID(s), nil
}

// Conflicting is the ID of an alert that came under an ID already taken by an alert
// with other actionable fields. It is an alert of its own, so that nobody can mask a
// real attack by publishing its predictable ID first.
func (id AlertID) Conflicting(digest string) AlertID { return id + AlertID("~"+digest) }

// EntryID is the ID of a stream entry that carries no usable alert ID of its own.
func EntryID(streamID string) AlertID { return AlertID("entry~" + streamID) }

// Keys in Redis. DESIGN of the key space: one hash tag a host.
func (h Host) tag() string { return "riposte:{" + string(h) + "}:" }

// AlertsKey is the stream of alerts of the host.
func (h Host) AlertsKey() string { return h.tag() + "alerts" }

// JournalKey is the stream with one entry per change of a ledger entry.
func (h Host) JournalKey() string { return h.tag() + "journal" }

// ControlKey is the hash with the host's switches and its registered gates.
func (h Host) ControlKey() string { return h.tag() + "control" }

// LedgerPrefix precedes the alert ID in the keys of a group's ledger entries.
func (h Host) LedgerPrefix(g Group) string { return h.tag() + "ledger:" + string(g) + ":" }

// LedgerKey is the ledger entry of one alert.
func (h Host) LedgerKey(g Group, id AlertID) string { return h.LedgerPrefix(g) + string(id) }

// DeadKey is the stream of dead letters of a group.
func (h Host) DeadKey(g Group) string { return h.tag() + "dead:" + string(g) }

// HeldBack is the least score, among the waiting, of what is due at no time because a switch or a
// breaker holds it back.
const HeldBack = 1 << 52

// WaitingKey is the sorted set of parked alerts of a group, by deadline.
func (h Host) WaitingKey(g Group) string { return h.tag() + "waiting:" + string(g) }

// HostsKey is the sorted set of hosts by last sign of life, in Unix milliseconds.
const HostsKey = "riposte:hosts"

// StepKey names one step of one playbook for one alert, everywhere: at the gate, in the
// receipt, in the trace and in an Idempotency-Key.
func StepKey(h Host, g Group, id AlertID, playbook, step string) string {
	return strings.Join([]string{string(h), string(g), string(id), playbook, step}, "/")
}

// lastMilli begins the last day that JSON can write in every zone. Who may write to Redis may
// have an ID or a score say anything.
const lastMilli = 253402214400_000

func fromMilli(ms int64) time.Time { return time.UnixMilli(max(0, min(ms, lastMilli))) }

func fromScore(score float64) time.Time { return fromMilli(int64(max(0, min(score, lastMilli)))).UTC() }

func clip(s string) string {
	if len(s) > 80 {
		return s[:80] + "..."
	}
	return s
}

// FleetControlKey is the hash with the switches of all hosts on one Redis.
const FleetControlKey = "riposte:{fleet}:control"

// FleetBreakerKey is the hash of a breaker that counts over all hosts.
func FleetBreakerKey(name string) string { return "riposte:{fleet}:breaker:" + name }
