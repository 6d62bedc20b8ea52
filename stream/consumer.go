package stream

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
)

// Delivery is a stream entry handed to this replica. It gives no right to act.
type Delivery struct {
	StreamID string
	Raw      []byte // the alert's JSON; nil where the entry was deleted from the stream
	GivenID  string // field "id" of the entry, if any
	Problem  string // field "error": the publisher found the alert unusable and says why
	Length   int    // field "length", with Problem: of the whole, of which Raw is the beginning
	SHA256   string // field "sha256", with Problem: of the whole
	Reopened string // field "reopened", without "alert": digest of the alert of this ID, whose entry in the ledger a person has opened again
	Times    int    // deliveries so far, this one included
	Holder   string // consumer under whose name it is pending; of those listed as pending only
}

// When is the time of the entry's XADD on Redis's clock.
func (d Delivery) When() time.Time {
	var ms, seq int64
	if _, err := fmt.Sscanf(d.StreamID, "%d-%d", &ms, &seq); err != nil {
		return time.Time{}
	}
	return fromMilli(ms)
}

// Alert decodes the delivery and says under which ID the ledger knows it: the alert's own,
// else the one in the field "id", else one derived from the content. The field may also
// name the ID of a conflicting alert sent round again, if it is this one's: see
// AlertID.Conflicting. An error says why it is no alert.
func (d Delivery) Alert() (*Alert, AlertID, error) {
	switch {
	case d.Problem != "":
		return nil, "", malformed("%s", d.Problem)
	case len(d.Raw) == 0:
		return nil, "", malformed(`the entry has no field "alert"`)
	}
	a, err := Decode(d.Raw, d.StreamID)
	if err != nil {
		return nil, "", err
	}
	if base, digest, ok := strings.Cut(d.GivenID, "~"); ok && digest == a.Digest() && (a.Given == "" || string(a.Given) == base) {
		id, err := ParseAlertID(base)
		if err != nil {
			return nil, "", malformed("%v", err)
		}
		return a, id.Conflicting(digest), nil
	}
	if a.Given == "" && d.GivenID != "" {
		if a.ID, err = ParseAlertID(d.GivenID); err != nil {
			return nil, "", malformed("%v", err)
		}
	}
	return a, a.ID, nil
}

// DeadLetter is what is kept of a delivery that is buried.
func (d Delivery) DeadLetter(reason string) DeadLetter {
	letter := NewDeadLetter(d.Raw, reason)
	if d.Length > len(d.Raw) {
		letter.Length, letter.SHA256 = d.Length, d.SHA256
	}
	return letter
}

// Consumer reads a host's alerts for a group, under a name that is never reused. Its
// methods are safe for concurrent use.
type Consumer struct {
	rdb   redis.UniversalClient
	key   string
	group string
	name  string
}

// NewConsumer makes a consumer. Nothing is sent yet.
func NewConsumer(rdb redis.UniversalClient, h Host, g Group, name string) *Consumer {
	return &Consumer{rdb, h.AlertsKey(), string(g), name}
}

// Ensure creates the group, and the stream, where they do not exist. The group starts at
// ID 0, never at "$": what was published before it, or before Redis lost it, counts too.
func (c *Consumer) Ensure(ctx context.Context) error {
	err := c.rdb.XGroupCreateMkStream(ctx, c.key, c.group, "0").Err()
	if err == nil || strings.HasPrefix(err.Error(), "BUSYGROUP") {
		return nil
	}
	// A full Redis says so before it says that the group is there; and what is closed at the
	// gate can be recorded in it, and what is settled trimmed.
	if redis.HasErrorPrefix(err, "OOM") {
		if groups, err := c.rdb.XInfoGroups(ctx, c.key).Result(); err == nil &&
			slices.ContainsFunc(groups, func(g redis.XInfoGroup) bool { return g.Name == c.group }) {
			return nil
		}
	}
	return fmt.Errorf("create group %s: %w", c.group, err)
}

// Block is how long Read waits for something new. Cancelling its context does not
// interrupt it, so it is short.
const Block = time.Second

// Read takes at most n new entries, waiting up to Block for the first. A read whose reply
// is lost leaves its entries pending under this name: after an error, see Orphans.
func (c *Consumer) Read(ctx context.Context, n int) ([]Delivery, error) {
	streams, err := c.rdb.XReadGroup(ctx, &redis.XReadGroupArgs{
		Group: c.group, Consumer: c.name, Streams: []string{c.key, ">"}, Count: int64(n), Block: Block,
	}).Result()
	if errors.Is(err, redis.Nil) || (err == nil && len(streams) == 0) {
		return nil, nil
	}
	if err != nil {
		return nil, c.recreate(ctx, "read alerts", err)
	}
	deliveries := make([]Delivery, len(streams[0].Messages))
	for i, m := range streams[0].Messages {
		deliveries[i] = delivery(m, 1)
	}
	return deliveries, nil
}

// recreate brings the group back after Redis has lost it.
func (c *Consumer) recreate(ctx context.Context, what string, err error) error {
	if strings.HasPrefix(err.Error(), "NOGROUP") {
		err = errors.Join(err, c.Ensure(ctx))
	}
	return fmt.Errorf("%s: %w", what, err)
}

func delivery(m redis.XMessage, times int) Delivery {
	d := Delivery{StreamID: m.ID, Times: times}
	if m.Values == nil {
		return d
	}
	text := func(name string) string { s, _ := m.Values[name].(string); return s }
	d.Raw, d.GivenID, d.Problem, d.Reopened = []byte(text("alert")), text("id"), text("error"), text("reopened")
	if len(d.Raw) > 0 {
		d.Reopened = "" // no alert comes with that, and one that does must not be lost
	}
	if d.Problem != "" {
		d.Length, _ = strconv.Atoi(text("length")) // whoever leaves it out has sent the whole
		d.SHA256 = text("sha256")
	}
	return d
}

//go:embed lua/takeover.lua
var takeoverSource string

var takeover = redis.NewScript(takeoverSource)

// Takeover says what to take over from a consumer proven gone.
type Takeover struct {
	Most int // entries
	// Died says that it did not stop in good order. Then what it had counts as delivered once
	// more: an entry that kills whoever touches it is known by that.
	Died bool
	// Suspect is the number of deliveries from which an entry is left where it is, but for
	// Suspects of them: whoever has several dies with all of them, and they would count as
	// delivered for no fault of theirs.
	Suspect, Suspects int
	// Remove removes the consumer if nothing is pending under its name.
	Remove bool
}

// TakeOver claims entries that are pending under the name of a consumer proven gone. With
// Remove, a consumer with nothing pending is removed in the same step; that is
// safe only when no read of it can still be in flight. gone says that the consumer does
// not exist any more.
func (c *Consumer) TakeOver(ctx context.Context, from string, t Takeover) (ds []Delivery, gone bool, err error) {
	flag := map[bool]int{true: 1}
	reply, err := takeover.Run(ctx, c.rdb, []string{c.key}, c.group, c.name, from,
		t.Most, flag[t.Remove], flag[t.Died], t.Suspect, t.Suspects).Slice()
	if err != nil {
		return nil, false, c.recreate(ctx, "take over from "+from, err)
	}
	if len(reply) == 1 && reply[0] == "removed" {
		return nil, true, nil
	}
	if ds, err = deliveries(reply); err != nil {
		return nil, false, fmt.Errorf("take over from %s: %w", from, err)
	}
	return ds, false, nil
}

// deliveries reads {stream ID, deliveries so far, fields} as scripts reply it.
func deliveries(rows []any) ([]Delivery, error) {
	ds := make([]Delivery, len(rows))
	for i, r := range rows {
		f, ok := r.([]any)
		if !ok || len(f) != 3 {
			return nil, fmt.Errorf("unexpected reply %v", r)
		}
		id, _ := f[0].(string)
		times, _ := f[1].(int64)
		fields, _ := f[2].([]any)
		m := redis.XMessage{ID: id}
		if len(fields) > 0 {
			m.Values = make(map[string]any, len(fields)/2)
		}
		for j := 0; j+1 < len(fields); j += 2 {
			name, _ := fields[j].(string)
			m.Values[name] = fields[j+1]
		}
		ds[i] = delivery(m, int(times))
	}
	return ds, nil
}

// Consumers are the names of all consumers of the group.
func (c *Consumer) Consumers(ctx context.Context) ([]string, error) {
	infos, err := c.rdb.XInfoConsumers(ctx, c.key, c.group).Result()
	if err != nil {
		return nil, c.recreate(ctx, "list consumers", err)
	}
	names := make([]string, len(infos))
	for i, info := range infos {
		names[i] = info.Name
	}
	return names, nil
}

// Idle lists up to n entries that have been pending for longer than idle, whoever has
// them, from after a stream ID on. It changes nothing: no delivery is counted and no entry
// moves, because most of these are being worked on; what should move, Begin moves. next
// is where to go on, empty at the end.
func (c *Consumer) Idle(ctx context.Context, idle time.Duration, after string, n int) (ds []Delivery, next string, err error) {
	return c.pending(ctx, "", idle, after, n)
}

// Orphans lists entries pending under this very name: those this replica does not know of
// were served by a read whose reply was lost.
func (c *Consumer) Orphans(ctx context.Context, after string, n int) (ds []Delivery, next string, err error) {
	return c.pending(ctx, c.name, 0, after, n)
}

func (c *Consumer) pending(ctx context.Context, consumer string, idle time.Duration, after string, n int) ([]Delivery, string, error) {
	start := "-"
	if after != "" {
		start = "(" + after
	}
	rows, err := c.rdb.XPendingExt(ctx, &redis.XPendingExtArgs{
		Stream: c.key, Group: c.group, Idle: idle, Start: start, End: "+", Count: int64(n), Consumer: consumer,
	}).Result()
	if err != nil {
		return nil, "", c.recreate(ctx, "list pending", err)
	}
	pipe := c.rdb.Pipeline()
	bodies := make([]*redis.XMessageSliceCmd, len(rows))
	for i, row := range rows {
		bodies[i] = pipe.XRange(ctx, c.key, row.ID, row.ID)
	}
	if _, err := pipe.Exec(ctx); err != nil && len(rows) > 0 {
		return nil, "", fmt.Errorf("read pending: %w", err)
	}
	ds := make([]Delivery, len(rows))
	for i, row := range rows {
		m := redis.XMessage{ID: row.ID}
		if found := bodies[i].Val(); len(found) == 1 {
			m = found[0]
		}
		ds[i] = delivery(m, int(row.RetryCount))
		ds[i].Holder = row.Consumer
	}
	if len(rows) < n {
		return ds, "", nil
	}
	return ds, rows[len(rows)-1].ID, nil
}

// lastID is the highest ID an entry can have, one short of what stands for ">".
const lastID = "18446744073709551615-18446744073709551614"

// Alive writes the host's sign of life, and this consumer's. A read that waits in vain is
// none to Redis 7.0, which would show a replica as silent for as long as there is peace; so
// the replica asks for what it was delivered beyond the last ID, which is always nothing.
func (c *Consumer) Alive(ctx context.Context, h Host, now time.Time) error {
	host := c.rdb.ZAdd(ctx, HostsKey, redis.Z{Score: float64(now.UnixMilli()), Member: string(h)}).Err()
	consumer := c.rdb.XReadGroup(ctx, &redis.XReadGroupArgs{
		Group: c.group, Consumer: c.name, Streams: []string{c.key, lastID}, Count: 1, Block: -1,
	}).Err()
	if errors.Is(consumer, redis.Nil) {
		consumer = nil
	}
	return errors.Join(host, consumer)
}

//go:embed lua/trim.lua
var trimSource string

var trim = redis.NewScript(trimSource)

// Trim drops entries that every group has acked and that are older than keep, or as many
// as it may where the stream is longer than most. It never drops what some group has yet
// to read or to ack. Redis drops whole nodes of a stream at a time, so some stay longer.
func (c *Consumer) Trim(ctx context.Context, keep time.Duration, most int) (dropped int64, err error) {
	dropped, err = trim.Run(ctx, c.rdb, []string{c.key}, keep.Milliseconds(), most).Int64()
	if err != nil {
		return 0, fmt.Errorf("trim alerts: %w", err)
	}
	return dropped, nil
}
