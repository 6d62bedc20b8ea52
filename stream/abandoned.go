package stream

import (
	"context"
	_ "embed"
	"fmt"
	"time"

	"github.com/redis/go-redis/v9"
)

// For is the consumer of a name in another group of the stream.
func (c *Consumer) For(g Group, name string) *Consumer {
	other := *c
	other.group, other.name = string(g), name
	return &other
}

// Groups are the names of all groups of the stream.
func (c *Consumer) Groups(ctx context.Context) ([]Group, error) {
	infos, err := c.rdb.XInfoGroups(ctx, c.key).Result()
	if err != nil {
		return nil, fmt.Errorf("list groups: %w", err)
	}
	groups := make([]Group, len(infos))
	for i, info := range infos {
		groups[i] = Group(info.Name)
	}
	return groups, nil
}

// StrayGroup says what to do about a group that no responder can serve, because its name is
// not one of a group; empty where it is.
func StrayGroup(host Host, g Group) string {
	if _, err := ParseGroup(string(g)); err == nil {
		return ""
	}
	return fmt.Sprintf("no responder can serve a group of such a name, and what it has not acked is kept for ever, with everything newer; if nothing of yours reads it, remove it in redis-cli: XGROUP DESTROY %s %q",
		host.AlertsKey(), clip(string(g)))
}

//go:embed lua/abandoned.lua
var abandonedSource string

var abandoned = redis.NewScript(abandonedSource)

// Estate is what an abandoned group has left.
type Estate struct {
	// Silence is how long none of its consumers has been seen; negative where it has none.
	Silence time.Duration
	Entries []Delivery // pending now, those nobody had read under our own name
}

// Abandoned looks whether the group is abandoned: whether no consumer of it but this one has
// been seen for a time. It returns up to most of its entries that are older than that time
// too, and neither read nor acked; none of a group that is served.
//
// Entries that are not settled then stay pending, and a group that comes back to life finds
// them as it finds all that is pending. Reading makes this consumer one of the group, which
// is a sign of life to everybody else who looks; a call that finds nothing to do removes it,
// unless something is pending under its name.
func (c *Consumer) Abandoned(ctx context.Context, after time.Duration, most int) (Estate, error) {
	reply, err := abandoned.Run(ctx, c.rdb, []string{c.key}, c.group, c.name, after.Milliseconds(), most).Slice()
	if err != nil {
		return Estate{}, fmt.Errorf("look whether group %s is abandoned: %w", c.group, err)
	}
	if len(reply) == 0 {
		return Estate{}, nil
	}
	silence, ok1 := reply[0].(int64)
	rows, ok2 := reply[len(reply)-1].([]any)
	if !ok1 || !ok2 {
		return Estate{}, fmt.Errorf("look whether group %s is abandoned: unexpected reply %v", c.group, reply)
	}
	e := Estate{Silence: time.Duration(silence) * time.Millisecond}
	e.Entries, err = deliveries(rows)
	return e, err
}
