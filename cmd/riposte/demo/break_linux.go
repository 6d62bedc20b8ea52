package demo

import (
	"context"
	"errors"
	"io"
	"os"
	"slices"
	"syscall"
	"time"

	"riposte/playbook/judge"
	"riposte/stream/proc"
)

const (
	warmUp = 6 // recorded steps before anything is broken
	freeze = 5 * lease / 2
)

// follower reads a trace as it grows.
type follower struct {
	file   *os.File
	rest   []byte
	events []judge.Event
}

func follow(path string) (*follower, error) {
	f, err := os.Open(path)
	return &follower{file: f}, err
}

func (f *follower) read() error {
	raw, err := io.ReadAll(f.file)
	if err != nil {
		return err
	}
	events, rest, err := judge.Read(append(f.rest, raw...))
	f.events, f.rest = append(f.events, events...), rest
	return err
}

func (f *follower) recorded() (n int) {
	for _, e := range f.events {
		if e.Event == judge.Recorded {
			n++
		}
	}
	return n
}

// inside returns an effect that a replica has begun and not closed.
func (f *follower) inside(replica string) (key string, ok bool) {
	keys := judge.Unclosed(f.events)[replica]
	if len(keys) == 0 {
		return "", false
	}
	return keys[0], true
}

// unrecorded says whether a replica has begun a step and not recorded it.
func (f *follower) unrecorded(replica, key string) bool {
	return slices.Contains(judge.Unrecorded(f.events)[replica], key)
}

// breakReplicas kills one replica and freezes another past its lease, each while it holds
// an alert it has not recorded.
func (s *show) breakReplicas(ctx context.Context) error {
	trace, err := follow(s.trace())
	if err != nil {
		return err
	}
	defer trace.file.Close()
	killed, err := s.catch(ctx, trace, s.team, syscall.SIGKILL)
	if err != nil {
		return err
	}
	var left []*process
	for _, p := range s.team {
		if p != killed {
			left = append(left, p)
		}
	}
	frozen, err := s.catch(ctx, trace, left, syscall.SIGSTOP)
	if err != nil {
		return err
	}
	select {
	case <-time.After(freeze):
	case <-ctx.Done():
		return ctx.Err()
	}
	if err := frozen.signal(syscall.SIGCONT); err != nil {
		return err
	}
	s.report.ReplicasFrozen++
	s.say("%-8s  %s thawed: its lease has run out, the gate refuses what it left undone", "", frozen.id)
	return nil
}

// errMissed says that a replica had recorded its work before the signal reached it.
var errMissed = errors.New("missed")

// catch signals a replica in the middle of its work, and makes sure that it was.
func (s *show) catch(ctx context.Context, trace *follower, team []*process, sig syscall.Signal) (*process, error) {
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for {
		if err := trace.read(); err != nil {
			return nil, err
		}
		for _, p := range team {
			key, ok := trace.inside(p.id)
			if !ok || trace.recorded() < warmUp {
				continue
			}
			switch err := s.strike(p, trace, key, sig); {
			case errors.Is(err, errMissed):
			case err != nil:
				return nil, err
			default:
				return p, nil
			}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// strike stops the replica, looks at what it has left undone, and lets it go on if it had
// finished; else it stays frozen, or is killed.
func (s *show) strike(p *process, trace *follower, key string, sig syscall.Signal) error {
	if err := p.signal(syscall.SIGSTOP); err != nil {
		return err
	}
	if err := stopped(p.cmd.Process.Pid); err != nil {
		return err
	}
	if err := trace.read(); err != nil {
		return err
	}
	if !trace.unrecorded(p.id, key) {
		return errors.Join(errMissed, p.signal(syscall.SIGCONT))
	}
	if sig == syscall.SIGSTOP {
		s.say("%-8s  %s FROZEN inside %s, for longer than its lease of %v", "", p.id, key, lease)
		return nil
	}
	s.mu.Lock()
	s.killed, s.killedAt = p.id, time.Now()
	s.mu.Unlock()
	if err := p.signal(syscall.SIGKILL); err != nil {
		return err
	}
	<-p.gone
	s.report.ReplicasKilled++
	s.say("%-8s  %s KILLED inside %s", "", p.id, key)
	return nil
}

// stopped waits until a process has really stopped.
func stopped(pid int) error {
	for {
		st, err := proc.ReadStat(pid)
		if err != nil {
			return err
		}
		if st.State == 'T' {
			return nil
		}
		time.Sleep(time.Millisecond)
	}
}
