package action

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"riposte/stream/proc"
)

const (
	// maxTree bounds how many processes, and so descriptors, a tree may have.
	maxTree = 4096
	// pinWait is how long members may take to stop. Who waits in vfork(2) cannot before his
	// child lets him.
	pinWait = time.Second
)

// tree is a process and all that descends from it, each held by a descriptor.
type tree struct {
	env     Env
	members []*relative    // the root first, and each after its parent
	seen    map[int]uint64 // start ticks of whoever was looked at, by PID; the dead included
	killing bool           // some are dead already
}

type relative struct {
	pid   int
	fd    pidfd
	asked bool // to stop, or was found stopped
	ours  bool // it was running until it was stopped here
	loose int  // how often it was asked in vain, or is held by a debugger, which may let it run on
}

func newTree(env Env, pid int64, root pidfd) *tree {
	return &tree{env: env, members: []*relative{{pid: int(pid), fd: root}}, seen: map[int]uint64{}}
}

// survey asks about all descendants of a process, without touching any. It refuses what fell
// would refuse.
func (t *TerminateProcess) survey(ctx context.Context, env Env, root pidfd) error {
	all := newTree(env, t.PID, root)
	defer all.close()
	_, err := all.grow(ctx)
	return all.refusal(err)
}

// fell stops the whole tree, and kills it when nobody is left to stop.
func (t *TerminateProcess) fell(ctx context.Context, env Env, root pidfd) (Receipt, error) {
	begun := time.Now()
	if err := t.survey(ctx, env, root); err != nil {
		return Receipt{}, err // before anybody was stopped
	}
	all := newTree(env, t.PID, root)
	defer all.close()
	if err := all.gather(ctx); err != nil {
		return Receipt{}, all.giveUp(err)
	}
	if all.loose() != "" { // who runs goes first, or he starts others in the place of those that die
		order := slices.Clone(all.members)
		slices.SortStableFunc(order, func(a, b *relative) int { return a.loose - b.loose })
		if err := all.kill(ctx, order); err != nil {
			return Receipt{}, all.giveUp(err)
		}
	}
	// Children go before their parents, and the root goes last: were this process to die now,
	// whoever is left could still be found from the root.
	for from := 1; from < len(all.members); {
		next := len(all.members)
		if err := all.kill(ctx, all.members[from:]); err != nil {
			return Receipt{}, all.giveUp(err)
		}
		if err := all.gather(ctx); err != nil { // of whom could not be stopped before
			return Receipt{}, all.giveUp(err)
		}
		from = next
	}
	if err := all.kill(ctx, all.members[:1]); err != nil {
		return Receipt{}, all.giveUp(err)
	}
	return t.receipt(Killed, "and %d descendants were stopped, and exited by SIGKILL, all within %s%s", len(all.members)-1, since(begun), all.loose()), nil
}

// gather stops the members and looks for more of them, until it finds none. Nobody who is
// stopped has another child, so that then there is none. Who does not stop may have more of them
// without an end.
func (t *tree) gather(ctx context.Context) error {
	const patience = 16
	for looks := 1; ; looks++ {
		if err := t.stop(ctx); err != nil {
			return err
		}
		news, err := t.grow(ctx)
		if err != nil || !t.again() && (!news || looks >= patience && t.loose() != "") {
			return err
		}
	}
}

// again has those asked a second time who did not stop: whoever saw to that may be stopped by now.
func (t *tree) again() (any bool) {
	for _, m := range t.members {
		if m.loose == 1 && m.asked {
			m.asked, any = false, true
		}
	}
	return any
}

// loose says who did not stop, for the reason.
func (t *tree) loose() string {
	for _, m := range t.members {
		if m.loose > 0 {
			return fmt.Sprintf("; PID %d could not be kept from running (by its debugger?): look for children that it has left", m.pid)
		}
	}
	return ""
}

// stop stops those who were not asked yet: first all are signalled, then they are waited for.
func (t *tree) stop(ctx context.Context) error {
	var asked []*relative
	for _, m := range t.members {
		if m.asked {
			continue
		}
		if m.asked = true; m.fd.stopped(m.pid) {
			m.loose = 0
			continue
		}
		m.ours = true
		if err := m.fd.signal(unix.SIGSTOP); err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("PID %d: %w", m.pid, err)
		}
		asked = append(asked, m)
	}
	deadline := time.Now().Add(pinWait)
	for _, m := range asked {
		// Who waits in the kernel takes his SIGSTOP before anything else, and begins no fork(2)
		// while it waits for him. So nothing is to be feared of him, but of those that run.
		now, _, err := m.fd.halt(ctx, m.pid, time.Until(deadline))
		switch {
		case err != nil && (ctx.Err() != nil || now.waiting == 0 && now.running == 0):
			return fmt.Errorf("PID %d does not stop: %w", m.pid, err)
		case now.running > 0, now.traced > 0: // a debugger lets it run on when it likes
			m.loose++
		default:
			m.loose = 0
		}
	}
	return nil
}

// grow takes in the descendants that are not members yet. news says that there was anybody
// whom no look before has seen, even if he has gone meanwhile: he may have left a child to
// another relative.
func (t *tree) grow(ctx context.Context) (news bool, err error) {
	if err := ctx.Err(); err != nil {
		return false, fmt.Errorf("stopped looking for descendants: %w", err)
	}
	found, err := t.descendants()
	if err != nil {
		return false, err
	}
	for _, st := range found {
		if ticks, ok := t.seen[st.PID]; ok && ticks == st.StartTicks {
			continue
		}
		news, t.seen[st.PID] = true, st.StartTicks
		if err := t.take(ctx, st); err != nil {
			return false, err
		}
	}
	return news, nil
}

// take makes a relative of a process, once it is held and its parent is certain.
func (t *tree) take(ctx context.Context, st proc.Stat) error {
	fd, gone, err := Process{PID: int64(st.PID), StartTicks: st.StartTicks}.doom(ctx, t.env)
	if gone {
		return nil
	}
	if err != nil {
		if again, err := proc.ReadStat(st.PID); err == nil && again.StartTicks != st.StartTicks {
			return nil // it has gone too, and what was refused is another
		}
		return err
	}
	mine, err := t.mine(st.PID, fd)
	if err != nil || !mine {
		return errors.Join(err, fd.close())
	}
	t.members = append(t.members, &relative{pid: st.PID, fd: fd})
	if len(t.members) > maxTree {
		return Refuse("it has more than %d members", maxTree)
	}
	return nil
}

// mine says that the parent of a process is a relative. That is certain where both are still
// there after it was read: their PIDs were then nobody else's.
func (t *tree) mine(pid int, fd pidfd) (bool, error) {
	for parent := 0; ; {
		st, err := proc.ReadStat(pid)
		if gone, err2 := fd.exited(0); gone || err2 != nil || err != nil {
			if gone {
				return false, err2
			}
			return false, errors.Join(err, err2)
		}
		if st.PPID == parent { // its number is another's by now
			return false, nil
		}
		parent = 0
		for _, m := range t.members {
			if m.pid == st.PPID {
				if gone, err := m.fd.exited(0); !gone || err != nil {
					return err == nil, err
				}
				parent = m.pid // which may have left it to another relative
			}
		}
		if parent == 0 {
			return false, nil
		}
	}
}

// descendants lists those of the members, parents first, as /proc shows them now.
func (t *tree) descendants() ([]proc.Stat, error) {
	dir, err := os.Open("/proc")
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return nil, fmt.Errorf("list of processes: %w", err)
	}
	children := map[int][]proc.Stat{}
	for _, name := range names {
		pid, err := strconv.Atoi(name)
		if err != nil {
			continue
		}
		st, err := proc.ReadStat(pid)
		if errors.Is(err, proc.ErrGone) {
			continue
		}
		if err != nil {
			return nil, Refuse("PID %d: whose child it is cannot be read: %v", pid, err)
		}
		children[st.PPID] = append(children[st.PPID], st)
	}
	var found []proc.Stat
	visit := func(pid int) {
		found = append(found, children[pid]...)
		delete(children, pid) // so that no circle of PIDs that were used again is without end
	}
	for _, m := range t.members {
		visit(m.pid)
	}
	for i := 0; i < len(found); i++ {
		visit(found[i].PID)
	}
	return found, nil
}

// kill kills members, the last first, and waits until all have gone.
func (t *tree) kill(ctx context.Context, members []*relative) error {
	for _, m := range slices.Backward(members) {
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("all are stopped, but PID %d is not killed yet: %w", m.pid, err)
		}
		t.killing = true
		if err := m.fd.signal(unix.SIGKILL); err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("PID %d: %w", m.pid, err)
		}
	}
	deadline := time.Now().Add(exitWait)
	for _, m := range slices.Backward(members) {
		exited, err := m.fd.wait(ctx, time.Until(deadline))
		if err != nil {
			return fmt.Errorf("PID %d was sent SIGKILL, then: %w", m.pid, err)
		}
		if !exited {
			return fmt.Errorf("PID %d: no exit observed within %s of SIGKILL: is it in uninterruptible sleep (state D in ps)?", m.pid, exitWait)
		}
	}
	return nil
}

// giveUp resumes whom this tree has stopped, and nobody else. Once some are dead, it leaves the
// others as they are, for the next attempt; a refusal has none.
func (t *tree) giveUp(err error) error {
	err = t.refusal(err)
	if _, refused := Reason(err); t.killing && !refused {
		return err
	}
	for _, m := range t.members {
		if !m.ours {
			continue
		}
		if err2 := m.fd.signal(unix.SIGCONT); err2 != nil && !errors.Is(err2, unix.ESRCH) {
			err = errors.Join(err, fmt.Errorf("PID %d stays stopped: %w", m.pid, err2))
		}
	}
	return err
}

// refusal says that what was refused for one relative is refused for all.
func (t *tree) refusal(err error) error {
	reason, refused := Reason(err)
	switch {
	case refused && t.killing:
		return Refuse("of the tree of PID %d only descendants are ended, and not all: %s", t.members[0].pid, reason)
	case refused:
		return Refuse("nothing of the tree of PID %d is ended: %s", t.members[0].pid, reason)
	}
	return err
}

// close closes the descriptors of all but the root, which is the caller's.
func (t *tree) close() {
	for _, m := range t.members[1:] {
		m.fd.close()
	}
}
