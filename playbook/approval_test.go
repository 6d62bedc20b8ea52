package playbook_test

import (
	"context"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"riposte/ledger"
	"riposte/test/redistest"
)

// behind is a Redis whose clock is a day behind this host's.
type behind struct{}

func (behind) DialHook(next redis.DialHook) redis.DialHook { return next }

func (behind) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return next
}

func (behind) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		err := next(ctx, cmd)
		if c, ok := cmd.(*redis.TimeCmd); ok && err == nil {
			c.SetVal(c.Val().Add(-24 * time.Hour))
		}
		return err
	}
}

// Until when a person may say yes is told by the clock that also says when that is over.
func TestApprovalIsDueByTheClockOfRedis(t *testing.T) {
	t.Parallel()
	srv := redistest.Start(t)
	rdb := srv.Client()
	book, _ := noted(t, "mode: approve\n")
	r := newReplica(t, srv, "h1-1-a", t.TempDir(), book, nil)
	r.rdb.AddHook(behind{})
	r.start()
	publish(t, rdb, fresh("a"))
	waits(t, rdb, 1)
	e, err := ledger.NewReader(rdb, host, group).Entry(t.Context(), "a")
	if err != nil {
		t.Fatal(err)
	}
	if until := e.Body.Approval.Until; until.IsZero() || until.After(time.Now().Add(-23*time.Hour)) {
		t.Errorf("it waits until %v", until)
	}
}
