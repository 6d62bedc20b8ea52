package ledger

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"riposte/stream"
)

// Control is what keeps alerts from being begun: switches that a person turned off, and
// breakers that have tripped. Each host has its own, in its slot, which Begin looks at; the
// fleet has one that every replica reads several times a second.
type Control struct {
	Off     map[Switch]Note // who turned it off, when and why
	Tripped map[string]Trip // by breaker
}

// Switch pauses what it names: "pause:host", "pause:fleet", "pause:group:NAME" or
// "pause:playbook:NAME".
type Switch string

// The switches.
const (
	HostSwitch  Switch = "pause:host"
	FleetSwitch Switch = "pause:fleet"
)

// GroupSwitch pauses one kind of responder.
func GroupSwitch(g stream.Group) Switch { return Switch("pause:group:" + string(g)) }

// PlaybookSwitch pauses all alerts that a playbook is to be run for.
func PlaybookSwitch(name string) Switch { return Switch("pause:playbook:" + name) }

// Breaker counts the alerts on which a playbook is to act.
type Breaker struct {
	Name   string // of its playbook, with "/ACTION" where it counts only those
	Most   int
	Within time.Duration
}

// Trip is a breaker that has tripped. It stays so until a person resets it.
type Trip struct {
	At     time.Time     `json:"at"`
	Most   int           `json:"most"`
	Within time.Duration `json:"within"`
	Alert  string        `json:"alert"` // the one that was too many
}

// breakerPrefix is before the name of a breaker in what holds an alert back.
const breakerPrefix = "breaker:"

func switchesOf(claims []Claim) []string {
	all := map[string]bool{}
	for _, c := range claims {
		for _, s := range c.Switches {
			all[s] = true
		}
	}
	return slices.Sorted(maps.Keys(all))
}

func counted(breakers []Breaker) string {
	var words strings.Builder
	for _, b := range breakers {
		fmt.Fprintf(&words, "%s %d %d ", b.Name, b.Most, b.Within.Microseconds())
	}
	return words.String()
}

// Holds says whether what holds an alert back still does.
func (c Control) Holds(why string) bool {
	if name, ok := strings.CutPrefix(why, breakerPrefix); ok {
		_, tripped := c.Tripped[name]
		return tripped
	}
	_, off := c.Off[Switch(why)]
	return off
}

// Read returns what is off and what has tripped.
func (b *Switchboard) Read(ctx context.Context) (Control, error) {
	c := Control{Off: map[Switch]Note{}, Tripped: map[string]Trip{}}
	// Not HGETALL: what breakers have counted may be long.
	names, err := b.rdb.HKeys(ctx, b.key).Result()
	if err != nil {
		return c, fmt.Errorf("read %s: %w", b.key, err)
	}
	names = slices.DeleteFunc(names, func(n string) bool {
		return !strings.HasPrefix(n, "pause:") && !strings.HasPrefix(n, "tripped:")
	})
	if len(names) == 0 {
		return c, nil
	}
	values, err := b.rdb.HMGet(ctx, b.key, names...).Result()
	if err != nil {
		return c, fmt.Errorf("read %s: %w", b.key, err)
	}
	for i, v := range values {
		text, ok := v.(string)
		if !ok {
			continue // turned on in between
		}
		if name, ok := strings.CutPrefix(names[i], "tripped:"); ok {
			c.Tripped[b.scope+name] = parseTrip(text)
			continue
		}
		var note Note
		if json.Unmarshal([]byte(text), &note) != nil { // whatever it says, it is off
			note = Note{Note: text}
		}
		c.Off[Switch(names[i])] = note
	}
	return c, nil
}

// parseTrip reads what the script writes: microseconds, most, microseconds, alert.
func parseTrip(text string) Trip {
	f := strings.Fields(text)
	if len(f) != 4 {
		return Trip{}
	}
	at, _ := strconv.ParseInt(f[0], 10, 64)
	most, _ := strconv.Atoi(f[1])
	within, _ := strconv.ParseInt(f[2], 10, 64)
	return Trip{time.UnixMicro(at), most, time.Duration(within) * time.Microsecond, f[3]}
}

// Switchboard is what a person turns off and on: of one host, or of the fleet.
type Switchboard struct {
	rdb   redis.Cmdable
	key   string // of the hash with its switches and with what has tripped
	scope string // before the name of a breaker in what holds an alert back
}

// fleetScope tells a breaker of the fleet from a host's: no playbook has a colon in its name.
const fleetScope = "fleet:"

// HostSwitches are those of a host.
func HostSwitches(rdb redis.Cmdable, h stream.Host) *Switchboard {
	return &Switchboard{rdb, h.ControlKey(), ""}
}

// FleetSwitches are those of all hosts on this Redis.
func FleetSwitches(rdb redis.Cmdable) *Switchboard {
	return &Switchboard{rdb, stream.FleetControlKey, fleetScope}
}

// Pause turns a switch off. Who did it first, and why, stands.
func (b *Switchboard) Pause(ctx context.Context, s Switch, by, why string) (Note, error) {
	now, err := b.rdb.Time(ctx).Result()
	if err != nil {
		return Note{}, fmt.Errorf("pause: %w", err)
	}
	note := Note{by, now.UTC(), why}
	raw, err := json.Marshal(note)
	if err != nil {
		return Note{}, fmt.Errorf("pause: %w", err)
	}
	first, err := b.rdb.HSetNX(ctx, b.key, string(s), raw).Result()
	if err != nil {
		return Note{}, fmt.Errorf("pause: %w", err)
	}
	if first {
		return note, nil
	}
	c, err := b.Read(ctx)
	if earlier, off := c.Off[s]; err == nil && off {
		return earlier, nil
	}
	return note, err
}

// Resume turns a switch on again, and says whether it was off. What waits for it is begun
// within seconds, where it has not expired.
func (b *Switchboard) Resume(ctx context.Context, s Switch) (bool, error) {
	n, err := b.rdb.HDel(ctx, b.key, string(s)).Result()
	if err != nil {
		return false, fmt.Errorf("resume: %w", err)
	}
	return n > 0, nil
}

// Reset re-arms a breaker: it counts from zero, and what waits for it is begun within
// seconds, where it has not expired. It says whether the breaker had tripped.
func (b *Switchboard) Reset(ctx context.Context, breaker string) (bool, error) {
	var was *redis.IntCmd
	_, err := b.rdb.TxPipelined(ctx, func(p redis.Pipeliner) error {
		if b.scope == fleetScope {
			p.Del(ctx, stream.FleetBreakerKey(breaker))
		}
		p.HDel(ctx, b.key, "window:"+breaker)
		was = p.HDel(ctx, b.key, "tripped:"+breaker)
		return nil
	})
	if err != nil {
		return false, fmt.Errorf("reset: %w", err)
	}
	return was.Val() == 1, nil
}

// Reserve asks a breaker of the fleet for alerts, each by a name of its own in the fleet, and
// says which it has counted. One that it has counted before is not counted again. tripped says
// that it is this call that tripped it.
func Reserve(ctx context.Context, rdb redis.Cmdable, b Breaker, alerts []string) (granted []bool, tripped bool, err error) {
	args := []any{b.Name, b.Most, b.Within.Microseconds()}
	for _, a := range alerts {
		args = append(args, a)
	}
	replies, err := reserveScript.Run(ctx, rdb, []string{stream.FleetBreakerKey(b.Name), stream.FleetControlKey}, args...).Int64Slice()
	if err != nil {
		return nil, false, fmt.Errorf("breaker %s of the fleet: %w", b.Name, err)
	}
	granted = make([]bool, len(alerts))
	for i, r := range replies {
		if i < len(granted) {
			granted[i] = r == 1
			tripped = tripped || r == 2
		}
	}
	return granted, tripped, nil
}

// Warm asks whether a playbook of this hash still only observes: its first so many matches, and
// for so long after it was first seen on this host. It says so of each alert; one that was
// observed for that reason is so for whoever asks again.
func (l *Ledger) Warm(ctx context.Context, playbook, hash string, matches int, during time.Duration, alert stream.AlertID) (bool, error) {
	warm, err := warmScript.Run(ctx, l.rdb, []string{l.cfg.Host.ControlKey()}, string(l.cfg.Group)+"/"+playbook, hash, matches, during.Microseconds(), string(alert)).Int64Slice()
	if err != nil || len(warm) != 1 {
		return false, fmt.Errorf("warm-up of playbook %s: %w", playbook, err)
	}
	return warm[0] == 1, nil
}

// heldScore is where an alert stands among the waiting that a switch or a breaker holds back:
// beside all others that wait for the same, and due at no time.
func heldScore(why string) string {
	h := fnv.New64a()
	h.Write([]byte(why))
	return strconv.FormatUint(stream.HeldBack+h.Sum64()>>16, 10)
}

// Free sends alerts round again that wait for a switch or a breaker which no longer holds
// them back, looking at up to n. Of those that still wait for the same it looks at the first
// only: else a pause of the fleet would have every replica read all that waits, again and again,
// and what waits for something else would come last.
func (l *Ledger) Free(ctx context.Context, holds func(why string) bool, n int) (freed int, err error) {
	var errs []error
	from, skip := strconv.FormatInt(stream.HeldBack, 10), 0
	for n > 0 {
		page, err := l.rdb.ZRangeByScoreWithScores(ctx, l.cfg.Host.WaitingKey(l.cfg.Group), &redis.ZRangeBy{
			Min: from, Max: "(+inf", Offset: int64(skip), Count: int64(n),
		}).Result()
		if err != nil || len(page) == 0 {
			return freed, errors.Join(append(errs, err)...)
		}
		for _, z := range page {
			n--
			id, held := z.Member.(string), false
			ok, err := l.wake(ctx, stream.AlertID(id), waking{event: "wake", early: true, change: func(b *Body) bool {
				held = b.Parked.For == "" || holds(b.Parked.For)
				return !held
			}})
			if err != nil {
				errs = append(errs, fmt.Errorf("wake %s: %w", id, err))
			}
			if held {
				from, skip = "("+strconv.FormatFloat(z.Score, 'f', 0, 64), 0
				break
			}
			if ok {
				freed++
			} else {
				skip++ // or it would be in the way of all that are behind it
			}
		}
	}
	return freed, errors.Join(errs...)
}
