package random

import (
	"context"
	"errors"
	"strings"

	"github.com/redis/go-redis/v9"
)

var errReplyLost = errors.New("the connection was cut before the reply came")

// fault is what can happen on the way between a replica and Redis.
type fault struct {
	lose   bool   // the reply of the next script or read, which Redis has carried out
	before func() // happens before the next script
}

func (f *fault) DialHook(next redis.DialHook) redis.DialHook { return next }

func (f *fault) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return next
}

func (f *fault) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		if !strings.HasPrefix(cmd.Name(), "eval") && cmd.Name() != "xreadgroup" {
			return next(ctx, cmd)
		}
		if do := f.before; do != nil {
			lose := f.lose
			f.before, f.lose = nil, false
			do()
			f.lose = lose
		}
		err := next(ctx, cmd)
		if f.lose && err == nil {
			f.lose = false
			return errReplyLost
		}
		return err
	}
}
