package ledger

import (
	"context"
	"fmt"
	"strings"
	"time"
)

// OtherGateError says that replicas with another gate enforce on this host: no fence
// stands between their effects and ours. The caller does not enforce beside them.
type OtherGateError struct {
	Gate    string // ours
	Replica string // one of theirs
	Theirs  string // its gate
}

func (e *OtherGateError) Error() string {
	return fmt.Sprintf("replica %s enforces on this host through another gate (%s, ours is %s), so nothing would keep the two from doing the same thing twice; "+
		"give all replicas of the host the same --runtime-dir, or accept it with --unfenced on every one of them", e.Replica, e.Theirs, e.Gate)
}

// Register tells the host for how long this replica enforces through its gate, unless
// replicas with another gate do: then the error is an *OtherGateError, and nothing was
// written. unfenced accepts such replicas, if they accept it too. What has run out binds
// nobody and is cleared away; so is what no replica can have written, or holds for more than
// ten times as long, for a clock that ran ahead before a failover.
func (l *Ledger) Register(ctx context.Context, hold time.Duration, unfenced bool) error {
	fence := "fenced"
	if unfenced {
		fence = "unfenced"
	}
	others, err := registerScript.Run(ctx, l.rdb, []string{l.cfg.Host.ControlKey()},
		l.cfg.Owner, l.cfg.Gate, hold.Microseconds(), fence, string(l.cfg.Group)).StringSlice()
	if err != nil {
		return fmt.Errorf("register the gate: %w", err)
	}
	if len(others) < 2 {
		return nil
	}
	theirs, _, _ := strings.Cut(others[1], " ")
	return &OtherGateError{Gate: l.cfg.Gate, Replica: strings.TrimPrefix(others[0], "gate:"), Theirs: theirs}
}

// Unregister takes the registration back.
func (l *Ledger) Unregister(ctx context.Context) error { return l.Register(ctx, 0, false) }
