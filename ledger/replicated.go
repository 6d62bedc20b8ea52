package ledger

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
)

// Replication says how much of Redis must have a grant before an effect begins that can
// never be repeated. The zero value asks for nothing.
type Replication struct {
	Replicas int  // that have acknowledged it: WAIT
	Synced   bool // also written to the append-only files, the master's and theirs: WAITAOF, Redis 7.2 and above
	Patience time.Duration
}

// Replicated returns nil once a grant is as safe as asked for. The error says what is missing;
// with ErrLost the grant does not stand any more.
//
// WAIT speaks of the writes of its own connection, so the grant is renewed on it: whoever
// has that write has the grant as well, because replication keeps the order.
func (l *Ledger) Replicated(ctx context.Context, g *Grant, want Replication) error {
	if want.Replicas == 0 && !want.Synced {
		return nil
	}
	var renewed, acked *redis.Cmd
	_, err := l.rdb.Pipelined(ctx, func(p redis.Pipeliner) error {
		renewed = p.Eval(ctx, source("renew"), []string{l.cfg.Host.LedgerKey(l.cfg.Group, g.ID)},
			l.cfg.Lease.Microseconds(), g.Token.Epoch, g.Token.Nonce)
		if want.Synced {
			acked = p.Do(ctx, "WAITAOF", 1, want.Replicas, want.Patience.Milliseconds())
		} else {
			acked = p.Do(ctx, "WAIT", want.Replicas, want.Patience.Milliseconds())
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("wait for %s to be replicated: %w", g.ID, err)
	}
	if stands, err := renewed.Int64Slice(); err != nil || len(stands) != 1 || stands[0] != 1 {
		return fmt.Errorf("wait for %s to be replicated: %w", g.ID, errors.Join(ErrLost, err))
	}
	var local, replicas int64 = 1, 0
	if want.Synced {
		n, err := acked.Int64Slice()
		if err != nil || len(n) != 2 {
			return fmt.Errorf("wait for %s to be replicated: reply %v: %w", g.ID, n, err)
		}
		local, replicas = n[0], n[1]
	} else if replicas, err = acked.Int64(); err != nil {
		return fmt.Errorf("wait for %s to be replicated: %w", g.ID, err)
	}
	switch {
	case replicas < int64(want.Replicas):
		return fmt.Errorf("%d of %d replicas of Redis have the grant after %v; see INFO replication", replicas, want.Replicas, want.Patience)
	case local < 1:
		return fmt.Errorf("the grant is not in the append-only file of Redis after %v; see INFO persistence", want.Patience)
	}
	return nil
}

// CheckReplication says whether this Redis can be asked for that much.
func CheckReplication(ctx context.Context, rdb *redis.Client, want Replication) error {
	if !want.Synced {
		return nil
	}
	err := rdb.Do(ctx, "WAITAOF", 1, 0, 1).Err() // also an error where there is no append-only file
	if err != nil && strings.Contains(err.Error(), "unknown command") {
		return errors.New("this Redis has no WAITAOF, which --wait-aof needs; it came with Redis 7.2")
	}
	return err
}
