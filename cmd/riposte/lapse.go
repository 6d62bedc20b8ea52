package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/redis/go-redis/v9"

	"riposte/ledger"
	"riposte/playbook/action"
	"riposte/stream"
)

// lapsed has the ledger note that what a step did for a time is over. Whoever owns the claim
// may have been of another group.
func lapsed(rdb redis.UniversalClient, by string) func(context.Context, action.Claim) (bool, error) {
	return func(ctx context.Context, c action.Claim) (bool, error) {
		f := strings.Split(c.Key, "/")
		if len(f) != 5 {
			return true, fmt.Errorf("a claim of a step called %q: nobody can be told that it is over", c.Key)
		}
		r := ledger.NewReader(rdb, stream.Host(f[0]), stream.Group(f[1]))
		return r.Lapse(ctx, stream.AlertID(f[2]), f[3]+"/"+f[4], by, c.Until)
	}
}
