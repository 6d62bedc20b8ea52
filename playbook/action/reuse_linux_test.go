package action_test

import (
	"fmt"
	"os"
	"testing"
	"time"

	"riposte/playbook/action"
	"riposte/stream/proc"
)

// TestTerminateReused has the PID given to another process while the identity of the first
// is looked at. The descriptor that was opened before is the first one's, which is gone.
func TestTerminateReused(t *testing.T) {
	if !inside(t) {
		return
	}
	for range 100 {
		v := sleeper(t)
		var next *victim
		r := apply(t, v.effect(time.Second), action.Env{Guard: during{do: func() { next = v.successor() }}})
		if next == nil {
			continue // a thread of this test was given the PID
		}
		if r.Outcome != action.AlreadyGone {
			t.Errorf("got %v", r)
		}
		next.untouched()
		return
	}
	t.Error("no PID could be used again")
}

// successor ends the process and has its PID given to another, if that can be.
func (v victim) successor() *victim {
	v.t.Helper()
	v.Process.Kill()
	v.Wait()
	for range 100 {
		last := []byte(fmt.Sprint(v.Process.Pid - 1))
		if err := os.WriteFile("/proc/sys/kernel/ns_last_pid", last, 0); err != nil {
			v.t.Fatal(err)
		}
		if next := sleeper(v.t); next.Process.Pid == v.Process.Pid {
			return &next
		}
	}
	return nil
}

// during does something while the guard is asked, which is after the identity was read.
type during struct {
	action.Guard
	do func()
}

func (d during) Process(proc.Stat) error { d.do(); return nil }
