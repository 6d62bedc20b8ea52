package stream

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
)

// HostStatus is what Redis knows of one host, as of one moment.
type HostStatus struct {
	KnownHost
	At        time.Time     `json:"at"`                  // the moment, on Redis's clock
	Alerts    int64         `json:"alerts"`              // entries in the stream, settled or not
	LastAlert time.Time     `json:"last_alert,omitzero"` // when the newest was added
	Gates     []GateStatus  `json:"gates"`               // through which replicas enforce; more than one is dangerous
	Groups    []GroupStatus `json:"groups"`
	Summary   []string      `json:"summary,omitempty"` // what concerns no group, in words
}

// GroupStatus is the state of one consumer group of a host.
type GroupStatus struct {
	Group     Group            `json:"group"`
	Lag       *int64           `json:"lag"`     // entries not read yet; nil where Redis cannot tell
	Pending   int64            `json:"pending"` // read and not settled
	Ages      Ages             `json:"pending_by_age"`
	Oldest    *PendingAlert    `json:"oldest_pending,omitempty"`
	Consumers []ConsumerStatus `json:"consumers"`
	Unknown   int64            `json:"unknown"`                  // steps that may have happened or not, which nobody has looked into
	Dead      int64            `json:"dead"`                     // dead letters
	LastDead  string           `json:"last_dead,omitempty"`      // reason of the newest
	Waiting   int64            `json:"waiting"`                  // parked for a person or a breaker
	NextDue   *time.Time       `json:"next_due,omitempty"`       // when the first of them is woken; nil: a person decides
	Ledger    map[string]int64 `json:"ledger"`                   // entries by state
	Partial   bool             `json:"ledger_partial,omitempty"` // there are more than were counted
	Summary   []string         `json:"summary"`                  // what an operator should know, in words
}

// Ages counts pending entries by the time since they were added. Of more than 10,000 the
// oldest are counted.
type Ages struct {
	Second int64 `json:"under_1s"`
	Ten    int64 `json:"under_10s"`
	Minute int64 `json:"under_1m"`
	TenMin int64 `json:"under_10m"`
	Older  int64 `json:"older"`
}

func (a *Ages) add(age time.Duration) {
	switch {
	case age < time.Second:
		a.Second++
	case age < 10*time.Second:
		a.Ten++
	case age < time.Minute:
		a.Minute++
	case age < 10*time.Minute:
		a.TenMin++
	default:
		a.Older++
	}
}

// PendingAlert is an entry that was delivered and is not settled.
type PendingAlert struct {
	Entry      string    `json:"entry"` // ID of the stream entry
	Added      time.Time `json:"added"`
	Consumer   string    `json:"consumer"`
	Idle       float64   `json:"idle_s"` // since it was last delivered
	Deliveries int64     `json:"deliveries"`
}

// ConsumerStatus is one replica as the group sees it.
type ConsumerStatus struct {
	Name    string    `json:"name"`
	Active  bool      `json:"active"`    // seen within the last 10 s
	Seen    time.Time `json:"last_seen"` // when it last asked for work
	Pending int64     `json:"pending"`
}

// silence is how long a live replica can go without a sign of life, with room to spare: it
// gives one every 3 s, see Consumer.Alive.
const silence = 10 * time.Second

// pendingRead is how many pending entries are looked at.
const pendingRead = 10_000

// Inspect looks at hosts, or at all that are known where none is named. It changes
// nothing, and costs Redis a bounded effort. A host Redis has never heard of is an
// *UnknownHostError.
func Inspect(ctx context.Context, rdb *redis.Client, hosts ...Host) ([]HostStatus, error) {
	look, err := chooseHosts(ctx, rdb, hosts)
	if err != nil {
		return nil, err
	}
	now, err := rdb.Time(ctx).Result()
	if err != nil {
		return nil, fmt.Errorf("read the clock of Redis: %w", err)
	}
	entries := Host("*")
	if len(look) == 1 {
		entries = look[0].Host
	}
	ledger, complete, err := countLedger(ctx, rdb, entries)
	if err != nil && !redis.IsPermissionError(err) {
		return nil, fmt.Errorf("count ledger entries: %w", err)
	}
	all := make([]HostStatus, 0, len(look))
	for _, known := range look {
		s, err := inspectHost(ctx, rdb, known, now)
		if err != nil {
			return nil, fmt.Errorf("status of host %s: %w", known.Host, err)
		}
		for i := range s.Groups {
			g := &s.Groups[i]
			g.Ledger, g.Partial = map[string]int64{}, !complete
			if counted := ledger[s.Host][g.Group]; counted != nil {
				g.Ledger, g.Unknown = counted.states, counted.unresolved
			}
			g.Summary = g.words(s.Host, now)
		}
		all = append(all, s)
	}
	return all, nil
}

func chooseHosts(ctx context.Context, rdb *redis.Client, wanted []Host) ([]KnownHost, error) {
	known, err := Hosts(ctx, rdb)
	if err != nil {
		if len(wanted) == 0 || !redis.IsPermissionError(err) {
			return nil, err
		}
		for _, h := range wanted { // a user who sees only this host's keys
			known = append(known, KnownHost{Host: h})
		}
		return known, nil
	}
	if len(wanted) == 0 {
		return known, nil
	}
	var chosen []KnownHost
	for _, h := range wanted {
		i := slices.IndexFunc(known, func(k KnownHost) bool { return k.Host == h })
		if i < 0 {
			unknown := &UnknownHostError{Host: h}
			for _, k := range known {
				unknown.Known = append(unknown.Known, k.Host)
			}
			return nil, unknown
		}
		chosen = append(chosen, known[i])
	}
	return chosen, nil
}

func inspectHost(ctx context.Context, rdb *redis.Client, known KnownHost, now time.Time) (HostStatus, error) {
	s := HostStatus{KnownHost: known, At: now.UTC(), Groups: []GroupStatus{}}
	control, err := rdb.HGetAll(ctx, s.Host.ControlKey()).Result()
	if err != nil {
		return s, err
	}
	s.Gates = gates(control, now)
	s.Summary = gateWords(s.Gates)
	key := s.Host.AlertsKey()
	n, err := rdb.Exists(ctx, key).Result()
	if err != nil {
		return s, err
	}
	if n == 0 {
		s.Summary = append(s.Summary, fmt.Sprintf("no stream of alerts yet: nothing was published and no responder has started; start one with `riposte responder --host %s`", s.Host))
		return s, nil
	}
	info, err := rdb.XInfoStream(ctx, key).Result()
	if err != nil {
		return s, err
	}
	s.Alerts = info.Length
	if t := entryTime(info.LastGeneratedID); t.UnixMilli() > 0 {
		s.LastAlert = t
	}
	groups, err := rdb.XInfoGroups(ctx, key).Result()
	if err != nil {
		return s, err
	}
	for _, g := range groups {
		status, err := inspectGroup(ctx, rdb, s.Host, g, now)
		if err != nil {
			return s, fmt.Errorf("group %s: %w", g.Name, err)
		}
		s.Groups = append(s.Groups, status)
	}
	if len(groups) == 0 {
		s.Summary = append(s.Summary, fmt.Sprintf("%s in the stream and no responder has ever read it; start one with `riposte responder --host %s`",
			count(s.Alerts, "alert"), s.Host))
	}
	return s, nil
}

func inspectGroup(ctx context.Context, rdb *redis.Client, host Host, info redis.XInfoGroup, now time.Time) (GroupStatus, error) {
	g := GroupStatus{Group: Group(info.Name), Pending: info.Pending, Consumers: []ConsumerStatus{}}
	if info.Lag >= 0 {
		g.Lag = &info.Lag
	}
	pipe := rdb.Pipeline()
	consumers := pipe.XInfoConsumers(ctx, host.AlertsKey(), info.Name)
	pending := pipe.XPendingExt(ctx, &redis.XPendingExtArgs{
		Stream: host.AlertsKey(), Group: info.Name, Start: "-", End: "+", Count: pendingRead,
	})
	dead := pipe.XLen(ctx, host.DeadKey(g.Group))
	lastDead := pipe.XRevRangeN(ctx, host.DeadKey(g.Group), "+", "-", 1)
	waiting := pipe.ZCard(ctx, host.WaitingKey(g.Group))
	next := pipe.ZRangeWithScores(ctx, host.WaitingKey(g.Group), 0, 0)
	if _, err := pipe.Exec(ctx); err != nil {
		return g, err
	}
	for _, c := range consumers.Val() {
		g.Consumers = append(g.Consumers, ConsumerStatus{
			Name: c.Name, Active: c.Idle < silence, Seen: now.Add(-c.Idle).UTC(), Pending: c.Pending,
		})
	}
	for i, p := range pending.Val() {
		added := entryTime(p.ID)
		g.Ages.add(now.Sub(added))
		if i == 0 {
			g.Oldest = &PendingAlert{p.ID, added, p.Consumer, p.Idle.Seconds(), p.RetryCount}
		}
	}
	g.Dead, g.Waiting = dead.Val(), waiting.Val()
	if first := next.Val(); len(first) > 0 && first[0].Score < HeldBack {
		due := fromScore(first[0].Score)
		g.NextDue = &due
	}
	if last := lastDead.Val(); len(last) > 0 {
		g.LastDead, _ = last[0].Values["reason"].(string)
	}
	return g, nil
}

// words says what an operator should know.
func (g *GroupStatus) words(host Host, now time.Time) []string {
	if stray := StrayGroup(host, g.Group); stray != "" {
		return []string{stray}
	}
	var say []string
	if g.Unknown > 0 {
		say = append(say, fmt.Sprintf("UNKNOWN: %s may or may not have happened; look, then note what you found with `riposte ledger resolve ALERT --note ...`; see `riposte ledger list --outcome unknown --host %s --group %s`",
			count(g.Unknown, "step"), host, g.Group))
	}
	active := 0
	for _, c := range g.Consumers {
		if c.Active {
			active++
		}
	}
	switch {
	case active == 0:
		say = append(say, fmt.Sprintf("no responder has asked for work within %s; start one with `riposte responder --host %s --group %s`",
			Span(silence), host, g.Group))
	case g.Lag != nil && *g.Lag > 0:
		say = append(say, fmt.Sprintf("%s not read yet; if that number stays, every replica has its hands full", count(*g.Lag, "alert")))
	}
	if g.Lag == nil {
		say = append(say, "how many alerts are unread is unknown: Redis cannot tell after entries were deleted from the stream")
	}
	for _, c := range g.Consumers {
		if c.Pending > 0 && !c.Active {
			verb, when := "are", "they are taken over when its lease ends"
			if c.Pending == 1 {
				verb, when = "is", "it is taken over when its lease ends"
			}
			if active == 0 {
				when = "a responder that is started takes over when its lease has ended"
			}
			say = append(say, fmt.Sprintf("%s %s held by consumer %s, which has been silent for %s; %s",
				count(c.Pending, "alert"), verb, c.Name, Span(now.Sub(c.Seen)), when))
		}
	}
	if g.Oldest != nil && now.Sub(g.Oldest.Added) > time.Minute {
		say = append(say, fmt.Sprintf("the oldest unsettled alert (entry %s) is %s old and was delivered %s, last to %s",
			g.Oldest.Entry, Span(now.Sub(g.Oldest.Added)), count(g.Oldest.Deliveries, "time"), g.Oldest.Consumer))
	}
	if g.Waiting > 0 {
		next := "a person decides"
		if g.NextDue != nil {
			next = "the next is woken in " + Span(g.NextDue.Sub(now))
			if late := now.Sub(*g.NextDue); late > 0 {
				next = fmt.Sprintf("the next was to be woken %s ago", Span(late))
			}
		}
		say = append(say, fmt.Sprintf("%s parked, waiting for a person or a breaker; %s; see `riposte ledger list --state waiting --host %s --group %s`",
			count(g.Waiting, "alert"), next, host, g.Group))
	}
	if g.Dead > 0 {
		say = append(say, fmt.Sprintf("%s, the last because: %s; see `riposte dead list --host %s --group %s`",
			count(g.Dead, "dead letter"), clip(g.LastDead), host, g.Group))
	}
	if n := g.Ledger["unreadable"]; n > 0 {
		say = append(say, fmt.Sprintf("%d ledger entries cannot be read; see `riposte ledger audit --host %s --group %s`", n, host, g.Group))
	}
	if g.Partial {
		say = append(say, "the ledger was counted in part: it is too large to be counted whole, or this user may not list keys")
	}
	if len(say) == 0 {
		say = []string{"all is well: every alert is read, nothing is stuck"}
	}
	return say
}

// Span is a length of time for a person: two digits of it, and never less than nothing.
func Span(d time.Duration) string {
	switch d = max(d, 0); {
	case d < time.Second:
		return strconv.FormatInt(d.Milliseconds(), 10) + " ms"
	case d < 2*time.Minute:
		return strconv.Itoa(int(d.Seconds())) + " s"
	case d < 2*time.Hour:
		return strconv.Itoa(int(d.Minutes())) + " min"
	case d < 48*time.Hour:
		return strconv.Itoa(int(d.Hours())) + " h"
	}
	return strconv.Itoa(int(d.Hours()/24)) + " days"
}

func count(n int64, thing string) string {
	if n == 1 {
		return "1 " + thing
	}
	return fmt.Sprintf("%d %ss", n, thing)
}

// entryTime is when a stream entry was added, as its ID says.
func entryTime(id string) time.Time {
	ms, _, _ := strings.Cut(id, "-")
	n, err := strconv.ParseInt(ms, 10, 64)
	if err != nil {
		return time.Time{}
	}
	return fromMilli(n).UTC()
}
