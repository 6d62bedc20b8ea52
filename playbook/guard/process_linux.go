package guard

import (
	"errors"
	"os"

	"riposte/playbook/action"
	"riposte/stream/proc"
)

// Process implements action.Guard.
func (f *Floor) Process(st proc.Stat) error {
	if st.PID <= 1 {
		return action.Refuse("PID %d is init", st.PID)
	}
	if st.KernelThread() {
		return action.Refuse("PID %d is a kernel thread", st.PID)
	}
	kin, err := f.kin()
	if err != nil {
		return action.Refuse("the processes of Riposte cannot be told from others: %v", err)
	}
	if what, ok := kin[st.PID]; ok {
		return action.Refuse("PID %d is %s", st.PID, what)
	}
	return service(st)
}

// kin says of each process of Riposte, and of each of their ancestors, what it is.
func (f *Floor) kin() (map[int]string, error) {
	members := []int{os.Getpid()}
	if f.Members != nil {
		others, err := f.Members()
		if err != nil {
			return nil, err
		}
		members = append(members, others...)
	}
	kin := make(map[int]string)
	for _, pid := range members {
		if err := climb(pid, kin); err != nil {
			return nil, err
		}
	}
	for _, pid := range members {
		kin[pid] = "a process of Riposte"
	}
	return kin, nil
}

// climb adds the ancestors of a process up to those that are there already. A process
// that is gone has none; one whose parent dies while we look gets another one, so it is
// asked again.
func climb(pid int, kin map[int]string) error {
	st, err := proc.ReadStat(pid)
	for {
		if errors.Is(err, proc.ErrGone) {
			return nil
		}
		if err != nil {
			return err
		}
		if st.PPID == 0 {
			return nil // init, or a parent outside this namespace
		}
		if _, known := kin[st.PPID]; known {
			return nil
		}
		parent, err2 := proc.ReadStat(st.PPID)
		if err2 != nil && !errors.Is(err2, proc.ErrGone) {
			return err2
		}
		if err2 != nil {
			again, gone := proc.ReadStat(pid)
			if gone == nil && again.PPID != st.PPID {
				st = again
				continue
			}
		}
		kin[st.PPID] = "an ancestor of Riposte"
		pid, st, err = st.PPID, parent, err2
	}
}
