package random

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
	"pgregory.net/rapid"

	"riposte/ledger"
	"riposte/stream"
)

const (
	host  stream.Host  = "random"
	group stream.Group = "containment"
	other stream.Group = "forensics" // reads the same alerts and acks them as it likes

	lease        = time.Hour
	retention    = 24 * time.Hour
	deathsToBury = 2
	steps        = 2 // of a plan
)

// replica is a name, a gate and a hand on the ledger.
type replica struct {
	name, gate string
	ledger     *ledger.Ledger
	consumer   *stream.Consumer
}

// grant is what a replica was granted, and still believes it has.
type grant struct {
	*ledger.Grant
	by    replica
	raw   string                       // the alert
	acked int                          // records it was told were accepted
	again func(t *rapid.T, m *machine) // the write whose reply was lost
}

func (g *grant) String() string {
	return fmt.Sprintf("%s, token %s of %s", g.by.name, g.Token.Nonce, g.ID)
}

// request is a Begin whose reply was lost.
type request struct {
	by         replica
	claims     []ledger.Claim
	deliveries []*alert
	dead       []string
}

// machine does everything twice: to Redis and to the model.
type machine struct {
	*model
	ctx      context.Context
	rdb      *redis.Client
	fault    *fault
	replicas []replica
	reader   *ledger.Reader
	tally    map[string]int

	start    time.Time
	grants   []*grant
	begun    []request
	shown    []ledger.Letter // that somebody may still have on the screen
	nonces   int
	lastLine string
	promise  *promise
}

func newMachine(ctx context.Context, t *rapid.T, rdb *redis.Client, f *fault, tally map[string]int) *machine {
	m := &machine{
		model: newModel(), ctx: ctx, rdb: rdb, fault: f, tally: tally, reader: ledger.NewReader(rdb, host, group),
		lastLine: "0-0", promise: newPromise(),
	}
	*f = fault{}
	must(t, rdb.FlushAll(ctx).Err())
	for _, g := range []stream.Group{group, other} {
		must(t, rdb.XGroupCreateMkStream(ctx, host.AlertsKey(), string(g), "0").Err())
	}
	for name, gate := range map[string]string{"r1": "gate1", "r2": "gate1", "r3": "gate2"} {
		l, err := ledger.New(rdb, ledger.Config{
			Host: host, Group: group, Owner: name, Gate: gate, Lease: lease, Retention: retention, DeathsToBury: deathsToBury,
		})
		must(t, err)
		m.replicas = append(m.replicas, replica{name, gate, l, stream.NewConsumer(rdb, host, group, name)})
	}
	slices.SortFunc(m.replicas, func(a, b replica) int { return strings.Compare(a.name, b.name) })
	m.start = m.now(t)
	return m
}

func must(t *rapid.T, err error) {
	t.Helper()
	if err != nil {
		wrong(t, "an unexpected error", "%v", err)
	}
}

// wrong fails the run. What is wrong is said in the same words each time, so that rapid
// knows it again when it shortens the run.
func wrong(t *rapid.T, what, format string, args ...any) {
	t.Helper()
	t.Logf(format, args...)
	t.Fatal(what)
}

func (m *machine) now(t *rapid.T) time.Time {
	now, err := m.rdb.Time(m.ctx).Result()
	must(t, err)
	return now
}

// during says between which readings of Redis's clock something was done.
func (m *machine) during(t *rapid.T, do func()) *moment {
	before := m.now(t)
	do()
	return &moment{before.UnixMicro(), m.now(t).UnixMicro()}
}

// did counts an action and tells it, should the run fail.
func (m *machine) did(t *rapid.T, what, format string, args ...any) {
	m.tally[what]++
	t.Logf(what+": "+format, args...)
}

// choose draws one of several, which must not be none.
func choose[T any](t *rapid.T, what string, from []T) T {
	return from[rapid.IntRange(0, len(from)-1).Draw(t, what)]
}

// one is true once in n times, and never in the simplest case.
func one(t *rapid.T, n int, what string) bool {
	return rapid.IntRange(0, n-1).Draw(t, what) == n-1
}

// anybody draws a replica.
func (m *machine) anybody(t *rapid.T) replica { return choose(t, "replica", m.replicas) }

// loseReply draws whether the reply of the next script is lost, and sees to it.
func (m *machine) loseReply(t *rapid.T) bool {
	m.fault.lose = one(t, 8, "reply lost")
	return m.fault.lose
}

// unanswered says whether the reply was lost indeed: some calls find that they need no
// script. Nothing of a fault is left after it.
func (m *machine) unanswered(err error) bool {
	m.fault.lose, m.fault.before = false, nil
	if errors.Is(err, errReplyLost) {
		m.tally["reply lost"]++
		return true
	}
	return false
}

// actions are all that can be done. One that is impossible at the moment does nothing.
func (m *machine) actions() map[string]func(*rapid.T) {
	return map[string]func(*rapid.T){
		"":                  m.check,
		"publish":           m.Publish,
		"read":              m.Read,
		"read by others":    m.ReadByOthers,
		"ack by others":     m.AckByOthers,
		"begin":             m.Begin,
		"begin more":        m.Begin,
		"begin again":       m.BeginAgain,
		"renew":             m.Renew,
		"record":            m.Record,
		"record more":       m.Record,
		"record still more": m.Record,
		"record attempt":    m.RecordAttempt,
		"bury":              m.Bury,
		"park":              m.Park,
		"release":           m.Release,
		"forge":             m.Forge,
		"revive":            m.Revive,
		"purge":             m.Purge,
		"resolve":           m.Resolve,
		"wake":              m.Wake,
		"trim":              m.Trim,
		"take over":         m.TakeOver,
		"look":              m.Look,
		"a lease runs out":  m.LeaseRunsOut,
		"a parked is due":   m.ParkedIsDue,
		"flush scripts":     m.FlushScripts,
	}
}

// check compares Redis with the model, and with the promise.
func (m *machine) check(t *rapid.T) {
	s, err := look(m.ctx, m.rdb, m.lastLine)
	must(t, err)
	m.learn(s)
	if broken := m.promise.holds(s); len(broken) > 0 {
		wrong(t, "the promise is broken", "%s", strings.Join(broken, "\n"))
	}
	if diff := differences(m.lines(), s.lines()); len(diff) > 0 {
		wrong(t, "Redis is not as the model says", "%s", strings.Join(diff, "\n"))
	}
	for _, j := range s.journal {
		m.lastLine = j.ID
		m.tally[fmt.Sprint("event ", j.Values["event"])]++
	}
	m.journal = nil
	m.tally["steps"]++
}

// audit asks the ledger's own fsck, with no patience at all.
func (m *machine) audit(t *rapid.T) {
	report, err := m.reader.Audit(m.ctx, ledger.AuditConfig{Retention: retention, Grace: time.Microsecond})
	must(t, err)
	if len(report.Findings) > 0 {
		wrong(t, "the audit has findings", "%+v", report.Findings)
	}
	states := map[ledger.State]int{}
	for _, e := range m.entries {
		states[e.state]++
	}
	c := report.Counts
	got := []int{c.Settled, c.Dead, c.Held, c.Waiting, c.Letters, c.Pending}
	want := []int{states[ledger.Done], states[ledger.Dead], states[ledger.Held], states[ledger.Waiting], len(m.letters), len(m.groups[group].pending)}
	if !slices.Equal(got, want) {
		wrong(t, "the audit counts otherwise", "%v settled, dead, held, waiting, letters and pending; the model %v", got, want)
	}
}

// Publish adds an alert, perhaps one that was added before, or another one under its ID.
func (m *machine) Publish(t *rapid.T) {
	id := choose(t, "alert", []string{"a", "b", "c", "d"})
	pid := 4711
	if one(t, 4, "another alert of this ID") {
		pid++
	}
	raw := fmt.Sprintf(`{"id":%q,"level":"HIGH","title":"t","timestamp":"2026-01-02T03:04:05Z","actionable_pid":%d}`, id, pid)
	streamID, err := m.rdb.XAdd(m.ctx, &redis.XAddArgs{Stream: host.AlertsKey(), Values: []any{"id", id, "alert", raw}}).Result()
	must(t, err)
	m.publish(id, raw).streamID = streamID
	m.did(t, "publish", "%s (PID %d) as delivery %d", id, pid, m.published)
}

// unread counts what a group has not been given yet.
func (m *machine) unread(g stream.Group) (n int) {
	for _, a := range m.alerts {
		if a.number > m.groups[g].last.number {
			n++
		}
	}
	return n
}

// Read delivers up to four alerts to a replica.
func (m *machine) Read(t *rapid.T) {
	if m.unread(group) == 0 {
		return // it would wait
	}
	by, n := m.anybody(t), rapid.IntRange(1, 4).Draw(t, "n")
	m.loseReply(t)
	got, err := by.consumer.Read(m.ctx, n)
	want := m.read(group, by.name, n)
	m.did(t, "read", "%s is given %v", by.name, numbers(want))
	if m.unanswered(err) {
		return
	}
	must(t, err)
	m.same(t, got, want)
}

// same compares deliveries with what the model has of them.
func (m *machine) same(t *rapid.T, got []stream.Delivery, want []*alert) {
	t.Helper()
	if len(got) != len(want) {
		wrong(t, "other deliveries", "%d; the model has %d", len(got), len(want))
	}
	for i, d := range got {
		a := want[i]
		times := m.groups[group].pending[a].times
		if d.StreamID != a.streamID || string(d.Raw) != a.raw || d.GivenID != a.id || d.Times != times {
			wrong(t, "another delivery", "%+v; the model has %+v, delivered %d times", d, a, times)
		}
	}
}

func numbers(of []*alert) (all []int) {
	for _, a := range of {
		all = append(all, a.number)
	}
	return all
}

// ReadByOthers has the other group read.
func (m *machine) ReadByOthers(t *rapid.T) {
	n := rapid.IntRange(1, 8).Draw(t, "n")
	err := m.rdb.XReadGroup(m.ctx, &redis.XReadGroupArgs{
		Group: string(other), Consumer: "f1", Streams: []string{host.AlertsKey(), ">"}, Count: int64(n), Block: -1,
	}).Err()
	if !errors.Is(err, redis.Nil) {
		must(t, err)
	}
	m.did(t, "read by others", "they are given %v", numbers(m.read(other, "f1", n)))
}

// AckByOthers has the other group ack some of what it has, in any order.
func (m *machine) AckByOthers(t *rapid.T) {
	for range rapid.IntRange(1, 4).Draw(t, "n") {
		all := m.pendingWith(other, "")
		if len(all) == 0 {
			return
		}
		a := choose(t, "delivery", all)
		must(t, m.rdb.XAck(m.ctx, host.AlertsKey(), string(other), a.streamID).Err())
		delete(m.groups[other].pending, a)
		m.did(t, "ack by others", "%d", a.number)
	}
}

// TakeOver claims from somebody proven dead, who may go on all the same, and perhaps
// removes him.
func (m *machine) TakeOver(t *rapid.T) {
	by, dead := m.anybody(t), m.anybody(t)
	if by.name == dead.name {
		return
	}
	ask := stream.Takeover{
		Most: rapid.IntRange(1, 3).Draw(t, "most"), Died: !one(t, 4, "stopped in good order"),
		Suspect: rapid.IntRange(2, 4).Draw(t, "suspect"), Suspects: rapid.IntRange(0, 2).Draw(t, "suspects"),
		Remove: rapid.Bool().Draw(t, "remove"),
	}
	m.loseReply(t)
	wantGone := ask.Remove && len(m.pendingWith(group, dead.name)) == 0
	got, gone, err := by.consumer.TakeOver(m.ctx, dead.name, ask)
	want := m.takeOver(by.name, dead.name, ask)
	m.did(t, "take over", "%s takes %v from %s: %+v", by.name, numbers(want), dead.name, ask)
	if wantGone {
		m.promise.mayGo(dead.name)
	}
	if m.unanswered(err) {
		return
	}
	must(t, err)
	m.same(t, got, want)
	if gone != wantGone {
		wrong(t, "a consumer is removed otherwise", "gone: %v; the model: %v", gone, wantGone)
	}
	names, err := by.consumer.Consumers(m.ctx)
	must(t, err)
	if gone && slices.Contains(names, dead.name) {
		wrong(t, "a consumer was removed and is still there", "%s, %v", dead.name, names)
	}
}

// Look does what changes nothing: it lists what is pending, and gives a sign of life.
func (m *machine) Look(t *rapid.T) {
	by := m.anybody(t)
	m.did(t, "look", "%s", by.name)
	must(t, by.consumer.Alive(m.ctx, host, m.start))
	must(t, by.consumer.Ensure(m.ctx))
	page := rapid.IntRange(1, 3).Draw(t, "page")
	for what, list := range map[string]func(after string) ([]stream.Delivery, string, error){
		by.name: func(after string) ([]stream.Delivery, string, error) { return by.consumer.Orphans(m.ctx, after, page) },
		"":      func(after string) ([]stream.Delivery, string, error) { return by.consumer.Idle(m.ctx, 0, after, page) },
	} {
		var all []stream.Delivery
		for after, first := "", true; first || after != ""; first = false {
			ds, next, err := list(after)
			must(t, err)
			all, after = append(all, ds...), next
		}
		m.same(t, all, m.pendingWith(group, what))
	}
}

// Trim drops what everybody has acked. An age of minus an hour is what an age of none will
// be in an hour.
func (m *machine) Trim(t *rapid.T) {
	keep, most, drops := time.Hour, math.MaxInt32, false
	switch rapid.IntRange(0, 2).Draw(t, "why") {
	case 1:
		keep, drops = -time.Hour, true
	case 2:
		most, drops = max(0, len(m.alerts)-1), len(m.alerts) > 0
	}
	got, err := m.replicas[0].consumer.Trim(m.ctx, keep, most)
	must(t, err)
	want := 0
	if drops {
		want = m.trim()
	}
	m.did(t, "trim", "%d", want)
	m.tally["alerts trimmed"] += want
	if int(got) != want {
		wrong(t, "other alerts are trimmed", "%d; the model %d", got, want)
	}
}

// LeaseRunsOut lets an hour pass for one lease: see the package's documentation.
func (m *machine) LeaseRunsOut(t *rapid.T) {
	var running []stream.AlertID
	for id, e := range m.entries {
		if e.lease.least > m.start.UnixMicro() {
			running = append(running, id)
		}
	}
	if len(running) == 0 {
		return
	}
	slices.Sort(running)
	id := choose(t, "entry", running)
	raw, err := m.rdb.Get(m.ctx, host.LedgerKey(group, id)).Result()
	must(t, err)
	past := m.start.Add(-lease).UnixMicro()
	header := strings.SplitN(raw, " ", 4)
	header[2] = fmt.Sprint(past)
	must(t, m.rdb.Set(m.ctx, host.LedgerKey(group, id), strings.Join(header, " "), redis.KeepTTL).Err())
	m.entries[id].lease = exactly(past)
	m.did(t, "a lease runs out", "of %s, held by %s", id, m.entries[id].owner)
}

// ParkedIsDue lets time pass for one parked alert.
func (m *machine) ParkedIsDue(t *rapid.T) {
	var waiting []stream.AlertID
	for id := range m.waiting {
		waiting = append(waiting, id)
	}
	if len(waiting) == 0 {
		return
	}
	slices.Sort(waiting)
	id := choose(t, "entry", waiting)
	m.waiting[id] = float64(m.start.UnixMilli())
	must(t, m.rdb.ZAdd(m.ctx, host.WaitingKey(group), redis.Z{Score: m.waiting[id], Member: string(id)}).Err())
	m.did(t, "a parked is due", "%s", id)
}

// FlushScripts has Redis forget them.
func (m *machine) FlushScripts(t *rapid.T) {
	must(t, m.rdb.ScriptFlush(m.ctx).Err())
	m.did(t, "flush scripts", "")
}
