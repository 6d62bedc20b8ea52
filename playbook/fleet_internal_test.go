package playbook

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"riposte/ledger"
	"riposte/test/redistest"
)

// slow keeps the first reply of a kind back until it is let go.
type slow struct {
	first  atomic.Bool
	asked  chan time.Time // when the reply was there
	letGo  chan struct{}
	called string
}

func (s *slow) DialHook(next redis.DialHook) redis.DialHook { return next }

func (s *slow) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return next
}

func (s *slow) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		err := next(ctx, cmd)
		if cmd.Name() == s.called && s.first.CompareAndSwap(false, true) {
			s.asked <- time.Now()
			<-s.letGo
		}
		return err
	}
}

// A look at the fleet's switches is as old as its question, and an answer that is late does not
// undo what was seen since.
func TestLateLookAtTheFleet(t *testing.T) {
	t.Parallel()
	srv := redistest.Start(t)
	rdb := srv.Client()
	f := &fleet{rdb: rdb}
	hook := &slow{asked: make(chan time.Time, 1), letGo: make(chan struct{}), called: "hkeys"}
	rdb.AddHook(hook)
	first := make(chan error, 1)
	go func() { first <- f.look(t.Context()) }()
	<-hook.asked
	if _, err := ledger.FleetSwitches(srv.Client()).Pause(t.Context(), ledger.FleetSwitch, "me", "why"); err != nil {
		t.Fatal(err)
	}
	if err := f.look(t.Context()); err != nil {
		t.Fatal(err)
	}
	close(hook.letGo)
	if err := <-first; err != nil {
		t.Fatal(err)
	}
	if why := f.holds(nil); why != string(ledger.FleetSwitch) {
		t.Errorf("a late answer turned the switch on: %q", why)
	}
	f = &fleet{rdb: rdb}
	hook.first.Store(false)
	hook.letGo = make(chan struct{})
	go func() { first <- f.look(t.Context()) }()
	asked := <-hook.asked
	close(hook.letGo)
	if err := <-first; err != nil || f.at.After(asked) {
		t.Errorf("it was asked at %v, and counts as %v: %v", asked, f.at, err)
	}
}
