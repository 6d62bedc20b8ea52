package action

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"riposte/stream/proc"
)

// suspensionKept is the time of a claim, which must have one. A suspension has none: it ends when it is
// taken back, with its process, or with the boot, and its claim with it. This is far longer than
// the ledger knows of a step that could be undone, and only bounds what is kept of processes
// whose end cannot be seen from here, in another PID namespace.
const suspensionKept = 365 * 24 * time.Hour

// suspension is the Detail of a claim on a process: of which one, because PIDs are used again,
// and what Riposte did to it. Where it did nothing, somebody else had suspended it before.
type suspension struct {
	BootID     string      `json:"boot_id"`
	PIDNS      uint64      `json:"pid_ns"`
	StartTicks uint64      `json:"start_ticks"`
	Stopped    bool        `json:"stopped,omitempty"` // sent SIGSTOP
	Frozen     []groupName `json:"frozen,omitempty"`  // froze these control groups
}

func (s suspension) deeds() bool { return s.Stopped || len(s.Frozen) > 0 }

// takeOver adds what was done for another claim.
func (s *suspension) takeOver(from suspension) {
	s.Stopped = s.Stopped || from.Stopped
	for _, name := range from.Frozen {
		s.freezes(name)
	}
}

func (s *suspension) freezes(name groupName) {
	if !slices.Contains(s.Frozen, name) {
		s.Frozen = append(slices.Clone(s.Frozen), name)
	}
}

// suspender is a claim on a process.
type suspender struct {
	Claim
	suspension
}

func (s suspender) put(env Env, target string, begun bool) error {
	raw, err := json.Marshal(s.suspension)
	if err != nil {
		return err
	}
	s.Detail, s.Begun = raw, begun
	return env.claim(target, s.Claim)
}

func suspenders(list claims) (all []suspender, err error) {
	for _, c := range list {
		s := suspender{Claim: c}
		if err := json.Unmarshal(c.Detail, &s.suspension); err != nil {
			return nil, fmt.Errorf("claim of %q on a process: %w", c.Key, err)
		}
		all = append(all, s)
	}
	return all, nil
}

// suspenders are the claims on the process, which a pidfd holds, and a new one of this step's.
func (t Process) suspenders(env Env) (all []suspender, own suspender, err error) {
	st, err1 := proc.ReadStat(int(t.PID))
	boot, err2 := proc.BootID()
	ns, err3 := proc.Namespace()
	list, err4 := env.claimsOn(t.target())
	found, err5 := suspenders(list)
	if err := errors.Join(err1, err2, err3, err4, err5); err != nil {
		return nil, own, fmt.Errorf("who has suspended PID %d: %w", t.PID, err)
	}
	own.Claim = Claim{Key: env.Key, AlertID: env.AlertID, Made: Duration(suspensionKept), Until: time.Now().Add(suspensionKept).UTC()}
	own.suspension = suspension{BootID: boot, PIDNS: ns, StartTicks: st.StartTicks}
	same := func(s suspension) bool {
		return s.BootID == boot && s.PIDNS == ns && s.StartTicks == st.StartTicks
	}
	return slices.DeleteFunc(found, func(s suspender) bool { return !same(s.suspension) }), own, nil
}

// over says that the process of a claim, which was pid, is certain to be no more.
func (s suspension) over(pid int) (over, rebooted bool) {
	boot, err1 := proc.BootID()
	ns, err2 := proc.Namespace()
	switch {
	case err1 != nil || err2 != nil || Process{}.elsewhere() != nil:
		return false, false
	case boot != s.BootID:
		return true, true
	case ns != s.PIDNS:
		return false, false // for its own responders to say
	}
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil { // a thread has its PID by now, or nobody
		return errors.Is(err, unix.ESRCH) || errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOENT), false
	}
	target := pidfd(fd)
	defer target.close()
	st, err := proc.ReadStat(pid)
	gone, err2 := target.exited(0)
	return err2 == nil && (gone || err == nil && st.StartTicks != s.StartTicks), false
}

// forget drops the claims on processes that are no more. What was frozen for them is thawed:
// who comes into such a group later, as the next run of a service does, would be frozen, too.
func forget(c Claims, target string) error {
	text, _ := strings.CutPrefix(target, processTarget)
	pid, err := strconv.Atoi(text)
	if err != nil || c == nil {
		return err
	}
	list, err := c.List(target)
	if err != nil {
		return err
	}
	all, err := suspenders(list)
	if err != nil {
		return err
	}
	var keys []string
	var errs []error
	for _, s := range all {
		over, rebooted := s.over(pid)
		if !over && s.Left(time.Now()) > 0 {
			continue
		}
		var failed error
		if over && !rebooted {
			failed = thaw(s.Frozen)
		}
		if errs = append(errs, failed); failed == nil {
			keys = append(keys, s.Key)
		}
	}
	return errors.Join(append(errs, c.Drop(target, keys...))...)
}

func thaw(names []groupName) error {
	var errs []error
	for _, name := range names {
		errs = append(errs, name.thaw())
	}
	return errors.Join(errs...)
}

// forgetProcess is forget, where a look without the lock shows that there is something to do.
func forgetProcess(host Claimed, target string, list claims) error {
	text, _ := strings.CutPrefix(target, processTarget)
	pid, err := strconv.Atoi(text)
	if err != nil {
		return err
	}
	all, err := suspenders(list)
	if err != nil {
		return err
	}
	if !slices.ContainsFunc(all, func(s suspender) bool {
		over, _ := s.over(pid)
		return over || s.Left(time.Now()) <= 0
	}) {
		return nil
	}
	held, ok, err := host.TryHold(holdFor, target)
	if !ok {
		return err
	}
	defer held.Release()
	return forget(held, target)
}
