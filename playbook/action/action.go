package action

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"slices"
	"strings"
	"time"

	"riposte/stream"
	"riposte/stream/proc"
)

// Class says what may be done about an effect that was begun by a replica that died.
type Class string

const (
	Verifiable Class = "verifiable"   // can probe whether this very effect is in place
	Idempotent Class = "idempotent"   // safe to repeat under its key
	AtMostOnce Class = "at-most-once" // neither: in flight at a crash means unknown
)

// Outcome is how a step ended.
type Outcome string

const (
	Terminated     Outcome = "terminated"      // SIGTERM sufficed
	Killed         Outcome = "killed"          // SIGKILL was needed
	AlreadyGone    Outcome = "already_gone"    // the process had exited before
	Blocked        Outcome = "blocked"         //
	AlreadyBlocked Outcome = "already_blocked" // for at least as long as asked
	Unblocked      Outcome = "unblocked"       // the block of an earlier step was lifted
	Suspended      Outcome = "suspended"       // seen not to run any more, by whomever
	Resumed        Outcome = "resumed"         // a suspension was lifted; the reason says if another stands
	Isolated       Outcome = "isolated"        // the host talks to nobody but those it must
	Released       Outcome = "released"        //
	Quarantined    Outcome = "quarantined"     // the file was moved into the vault
	Restored       Outcome = "restored"        //
	Collected      Outcome = "collected"       // evidence was written down and synced
	Notified       Outcome = "notified"        // somebody's server took the message
	Logged         Outcome = "logged"          //
	Ran            Outcome = "ran"             // a script came to its end with exit status 0
	Observed       Outcome = "observed"        // observe mode: the reason says what would have been done
	Refused        Outcome = "refused"         // by a guardrail; the reason says which
	Expired        Outcome = "expired"         // the alert was too old
	NoMatch        Outcome = "no_match"        // nothing to do
	Skipped        Outcome = "skipped"         // its condition did not hold, or an earlier step said stop
	Denied         Outcome = "denied"          // a person said no, or nobody said yes in time
	Failed         Outcome = "failed"          // out of attempts, or another is of no use; the reason is the last error
	Unknown        Outcome = "unknown"         // an at-most-once effect was in flight at a crash
	Dead           Outcome = "dead"            // buried: the alert is a dead letter
)

// Outcomes are all there are.
func Outcomes() []Outcome {
	return []Outcome{
		Terminated, Killed, AlreadyGone, Blocked, AlreadyBlocked, Unblocked, Suspended, Resumed, Isolated, Released, Quarantined, Restored,
		Collected, Notified, Logged, Ran, Observed, Refused, Expired, NoMatch, Skipped, Denied, Failed, Unknown, Dead,
	}
}

// Receipt is what an action saw with its own eyes: the observed outcome, and a reason in
// words for the person who reads the ledger.
type Receipt struct {
	Outcome Outcome `json:"outcome"`
	Reason  string  `json:"reason,omitempty"`
}

// Refusal is the error of a guardrail. It is an answer, not a fault: it is recorded as
// the outcome refused and never retried.
type Refusal struct {
	Reason string
	// Unread says that a guard refuses for what it could not read, and not for what it knows:
	// a reason to leave alone what there is, and none to take it away.
	Unread bool
}

func (r *Refusal) Error() string { return "refused: " + r.Reason }

// Refuse makes a Refusal.
func Refuse(format string, args ...any) error { return &Refusal{Reason: fmt.Sprintf(format, args...)} }

// RefuseUnread makes a Refusal of what could not be read.
func RefuseUnread(format string, args ...any) error {
	return &Refusal{Reason: fmt.Sprintf(format, args...), Unread: true}
}

// Later is an error of Apply with which somebody outside has said how long to leave him alone.
// He may say anything: it is for whoever tries again to bound it.
type Later struct {
	error
	After time.Duration
}

// Effect is one step resolved for one alert: plain data, frozen as JSON in the ledger
// entry, so that a successor runs what the first holder planned. An Effect may hold
// anything an attacker wrote; its methods are what refuses it.
type Effect interface {
	// Targets names what the effect acts on, so that two alerts on one target take
	// turns. The gate locks them, in sorted order, while the effect is in progress.
	Targets() []string
	// Describe says in a few words what Apply would do, e.g. "terminate PID 4711 (bash)".
	Describe() string
	// Probe says, without touching anything, whether the effect is in place already. It
	// returns a *Refusal where a guardrail forbids the effect: callers probe before they
	// apply or observe.
	Probe(ctx context.Context, env Env) (r Receipt, inPlace bool, err error)
	// Apply carries the effect out and reports what it observed afterwards. It checks
	// the guardrails again, on the very object it acts on. It returns an error where the
	// effect is not known to be in place; it may then be called again. Where that would be of
	// no use, it reports Failed.
	Apply(ctx context.Context, env Env) (Receipt, error)
}

// Looker is an Effect that is made out whole by a look at the host, before its step begins for
// the first time. What Look returns is frozen in the ledger before anything else happens, so
// that a successor does not look again. It touches nothing.
type Looker interface {
	Effect
	Look(ctx context.Context, env Env) (Effect, error)
}

// Reversible is an Effect that can be taken back by another one: by riposte undo, or by a
// playbook's on_error.
type Reversible interface {
	Effect
	// Undo is the name of the action that takes this effect back, and what it is to do: only
	// what this very effect did, whatever else has been done to the same target.
	Undo() (name string, e Effect)
}

// Env is what an effect needs from the host it runs on.
type Env struct {
	Guard   Guard
	State   string    // folder of this user's alone that keeps what effects leave behind, across reboots
	OwnUID  bool      // act only on processes of this process's own user
	Key     string    // the step's key, see stream.StepKey
	AlertID string    // for comments on firewall rules
	Undoes  string    // the key of the step that this one takes back; empty where it takes back none
	Out     io.Writer // where log writes by default
	// Claims are those on the step's targets. Where it is nil none are kept: an effect then
	// stands for itself alone, and is not put back after a reboot.
	Claims Claims
	// Reach makes a fresh connection to Redis, by its name and not by one that stands already.
	// Where it is nil nothing is done that could cut Redis off.
	Reach func(ctx context.Context) error
	// Lapsed tells that the time of a claim is over, and says whether that is known by now. Nil:
	// nobody wants to know. Only Reassert asks.
	Lapsed func(context.Context, Claim) (known bool, err error)
	// Locks are the gate's locked descriptors. An action that starts a process passes them on
	// (ExtraFiles), so that the locks stand until that process is gone too.
	Locks []*os.File
}

// Guard is the floor that no configuration removes. What it forbids is a *Refusal, and so is
// what cannot be read.
type Guard interface {
	Process(st proc.Stat) error
	Address(addr netip.Addr) error
	Network(what netip.Prefix) error // as a whole: one protected address in it is enough
	// Lifelines are what an isolated host must still talk to.
	Lifelines() (Lifelines, error)
}

// FileGuard is a Guard that knows of files that must stay where they are, beside those that
// protected processes run.
type FileGuard interface {
	File(path string) error
}

// Spec is the `with` block of a step, filled with defaults and decoded strictly.
type Spec interface {
	// Validate says what is wrong, in terms of the YAML field.
	Validate() error
	// Resolve binds the spec to an alert. It returns nil where the alert names nothing
	// for this action to act on.
	Resolve(a *stream.Alert, seen Seen) Effect
	// Capabilities are what Apply needs of Linux, e.g. CAP_KILL.
	Capabilities(ownUID bool) []Capability
}

// Wary is a Spec that takes less from an alert than from the author of a playbook. TakeFrom
// says what is wrong with a text that a template has made of an alert, in a field by its YAML name.
type Wary interface {
	TakeFrom(field, text string) error
}

// Tamer is a Spec that can make a harmless text of whatever an alert has filled in. A message is
// not to be lost because an attacker has put a line feed into its subject.
type Tamer interface{ Tame() }

// Seen is when the alert was seen: any moment in [From, Until).
type Seen struct{ From, Until time.Time }

// Kind is one sort of action, under the name playbooks know it by.
type Kind struct {
	Name     string
	Class    Class
	Targeted bool          // needs something in the alert to act on
	Spec     func() Spec   // with defaults
	Effect   func() Effect // empty, to be decoded from the plan
}

var kinds = []Kind{
	{"block_ip", Verifiable, true, func() Spec { return newBlockSpec() }, func() Effect { return new(BlockIP) }},
	{"collect_evidence", Idempotent, true, func() Spec { return newEvidenceSpec() }, func() Effect { return new(CollectEvidence) }},
	{"isolate_host", Verifiable, false, func() Spec { return new(IsolateSpec) }, func() Effect { return new(IsolateHost) }},
	{"log", Idempotent, false, func() Spec { return new(LogSpec) }, func() Effect { return new(Log) }},
	{"notify", Idempotent, false, func() Spec { return new(NotifySpec) }, func() Effect { return new(Notify) }},
	{"quarantine_file", Verifiable, true, func() Spec { return newQuarantineSpec() }, func() Effect { return new(QuarantineFile) }},
	{"release_host", Verifiable, false, func() Spec { return new(ReleaseSpec) }, func() Effect { return new(ReleaseHost) }},
	{"restore_file", Verifiable, true, func() Spec { return newRestoreSpec() }, func() Effect { return new(RestoreFile) }},
	{"resume_process", Verifiable, true, func() Spec { return newResumeSpec() }, func() Effect { return new(ResumeProcess) }},
	{"run_script", AtMostOnce, false, func() Spec { return new(ScriptSpec) }, func() Effect { return new(RunScript) }},
	{"suspend_process", Verifiable, true, func() Spec { return newSuspendSpec() }, func() Effect { return new(SuspendProcess) }},
	{"terminate_process", Verifiable, true, func() Spec { return newTerminateSpec() }, func() Effect { return new(TerminateProcess) }},
	{"unblock_ip", Verifiable, true, func() Spec { return newUnblockSpec() }, func() Effect { return new(UnblockIP) }},
}

// Names are the names of all actions, sorted.
func Names() []string {
	var names []string
	for _, k := range kinds {
		names = append(names, k.Name)
	}
	return names
}

// Lookup finds an action by name.
func Lookup(name string) (Kind, bool) {
	i := slices.IndexFunc(kinds, func(k Kind) bool { return k.Name == name })
	if i < 0 {
		return Kind{}, false
	}
	return kinds[i], true
}

// Decode reads back an effect frozen in a plan.
func Decode(name string, raw json.RawMessage) (Effect, Class, error) {
	k, ok := Lookup(name)
	if !ok {
		return nil, "", fmt.Errorf("action %q is not one of %s; it was planned by another version of riposte", name, strings.Join(Names(), ", "))
	}
	e := k.Effect()
	if err := json.Unmarshal(raw, e); err != nil {
		return nil, "", fmt.Errorf("parameters of %s: %w", name, err)
	}
	return e, k.Class, nil
}

// Reason is the reason of a Refusal within err, if there is one.
func Reason(err error) (string, bool) {
	var r *Refusal
	if errors.As(err, &r) {
		return r.Reason, true
	}
	return "", false
}
