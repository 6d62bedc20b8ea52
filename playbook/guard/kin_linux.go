package guard

import (
	"errors"
	"maps"
	"os"
	"slices"
	"sync"

	"golang.org/x/sys/unix"

	"riposte/stream/proc"
)

// kinship remembers the processes of Riposte and their ancestors for as long as all of them
// live: the parent of a process changes only when that parent exits. Whether one has exited
// is asked of all of them at once, by their descriptors, which stand for no other process.
type kinship struct {
	mu      sync.Mutex
	members []int
	kin     map[int]string // of each PID, what it is
	alive   []unix.PollFd  // of each of them
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
	slices.Sort(members)
	k := &f.kinship
	k.mu.Lock()
	defer k.mu.Unlock()
	if slices.Equal(members, k.members) && k.stands() {
		return k.kin, nil
	}
	kin, err := family(members)
	if err != nil {
		return nil, err
	}
	return kin, k.remember(members, kin)
}

// stands says whether all whom it remembers live.
func (k *kinship) stands() bool {
	for {
		n, err := unix.Poll(k.alive, 0)
		if err != unix.EINTR {
			return err == nil && n == 0
		}
	}
}

// remember keeps what was found, if it is the same after each process is held by a descriptor:
// it was then read of those very processes.
func (k *kinship) remember(members []int, kin map[int]string) error {
	k.forget()
	for pid := range kin {
		fd, err := unix.PidfdOpen(pid, 0)
		if err != nil { // gone, or a kernel before 5.3: then it is not remembered
			return nil
		}
		k.alive = append(k.alive, unix.PollFd{Fd: int32(fd), Events: unix.POLLIN})
	}
	again, err := family(members)
	if err == nil && maps.Equal(kin, again) {
		k.members, k.kin = members, kin
	}
	return err
}

func (k *kinship) forget() {
	for _, p := range k.alive {
		unix.Close(int(p.Fd))
	}
	k.members, k.kin, k.alive = nil, nil, nil
}

// Close lets go of the descriptors of Riposte's processes and their ancestors. The floor may be
// asked again, and then holds new ones.
func (f *Floor) Close() error {
	f.kinship.mu.Lock()
	defer f.kinship.mu.Unlock()
	f.kinship.forget()
	return nil
}

// family reads who is above the members, and names them all.
func family(members []int) (map[int]string, error) {
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
