//go:build !linux

package sensor

import (
	"errors"
	"fmt"
	"time"

	"github.com/shirou/gopsutil/v3/process"
)

// identify asks gopsutil who a process is. The time it was created names it together with
// its PID, well enough to tell processes apart, not well enough to act on one.
func identify(pid int) (s snapshot, err error) {
	defer func() { // gopsutil panics on some machines
		if r := recover(); r != nil {
			err = fmt.Errorf("process %d: %v", pid, r)
		}
	}()
	p := process.Process{Pid: int32(pid)}
	created, err1 := p.CreateTime()
	name, err2 := p.Name()
	if err := errors.Join(err1, err2); err != nil {
		return s, fmt.Errorf("process %d: %w", pid, err)
	}
	ppid, _ := p.Ppid() // 0: unknown
	return snapshot{pid: pid, ppid: int(ppid), start: uint64(created), comm: name, name: name, uid: -1}, nil
}

// readNames reads what rules compare names with.
func (s *snapshot) readNames() {
	s.exe = ask(s.pid, (*process.Process).Exe)
	s.index()
}

// readRest reads what is left.
func (s *snapshot) readRest() {
	s.readCmdline()
	if uids := ask(s.pid, (*process.Process).Uids); len(uids) > 1 {
		s.uid = int64(uids[1]) // the effective one
	}
}

func (s *snapshot) readCmdline() {
	line := ask(s.pid, (*process.Process).Cmdline)
	s.cmdline = line[:min(len(line), maxCmdline)]
}

// startedAt is when the process started.
func (s *snapshot) startedAt() (time.Time, error) { return time.UnixMilli(int64(s.start)), nil }

// userName is the name of the owner, empty where there is none.
func (s *snapshot) userName() string { return ask(s.pid, (*process.Process).Username) }

// startTicks is the start as an alert carries it: ticks are Linux's.
func (s *snapshot) startTicks() uint64 { return 0 }

// ask is the answer of gopsutil, or zero where it has none.
func ask[T any](pid int, question func(*process.Process) (T, error)) (answer T) {
	defer func() { _ = recover() }() // gopsutil panics on some machines
	answer, _ = question(&process.Process{Pid: int32(pid)})
	return answer
}

// machine: the milliseconds in which processes start tell boots apart here.
func machine() (bootID string, pidNS uint64, err error) { return "", 0, nil }
