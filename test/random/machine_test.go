package random

import (
	"context"
	"errors"
	"fmt"
	"maps"
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

// replica is a name, a gate and a hand on the ledger of its group.
type replica struct {
	name, gate string
	group      stream.Group
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

// machine does everything twice: to Redis and to the model. It is of one group; that of the
// other group hangs on it.
type machine struct {
	*model
	*world
	replicas []replica
	reader   *ledger.Reader
	others   *machine

	grants []*grant
	begun  []request
	shown  []ledger.Letter // that somebody may still have on the screen
	nonces int
}

// world is what the machines of both groups share.
type world struct {
	ctx   context.Context
	rdb   *redis.Client
	fault *fault
	tally map[string]int

	start    time.Time
	past     int // alerts that were published as if it had been two hours before
	lastLine string
	promise  *promise
}

func newMachine(ctx context.Context, t *rapid.T, rdb *redis.Client, f *fault, tally map[string]int) *machine {
	w := &world{ctx: ctx, rdb: rdb, fault: f, tally: tally, lastLine: "0-0", promise: newPromise()}
	*f = fault{}
	must(t, rdb.FlushAll(ctx).Err())
	must(t, rdb.HSet(ctx, host.ControlKey(), pause, "no").Err())
	w.start = w.now(t)
	all := newShared()
	m := w.machine(t, all, group, map[string]string{"r1": "gate1", "r2": "gate1", "r3": "gate2"})
	m.others = w.machine(t, all, other, map[string]string{"f1": "gate1", "f2": "gate2"})
	return m
}

// machine makes that of a group, with replicas and their gates.
func (w *world) machine(t *rapid.T, s *shared, g stream.Group, gates map[string]string) *machine {
	m := &machine{model: newModel(s, g), world: w, reader: ledger.NewReader(w.rdb, host, g)}
	must(t, w.rdb.XGroupCreateMkStream(w.ctx, host.AlertsKey(), string(g), "0").Err())
	for _, name := range slices.Sorted(maps.Keys(gates)) {
		l := w.hand(t, g, name, gates[name])
		m.replicas = append(m.replicas, replica{name, gates[name], g, l, stream.NewConsumer(w.rdb, host, g, name)})
	}
	return m
}

// hand is that of a replica on the ledger.
func (w *world) hand(t *rapid.T, g stream.Group, name, gate string) *ledger.Ledger {
	l, err := ledger.New(w.rdb, ledger.Config{
		Host: host, Group: g, Owner: name, Gate: gate, Lease: lease, Retention: retention, DeathsToBury: deathsToBury,
	})
	must(t, err)
	return l
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

func (w *world) now(t *rapid.T) time.Time {
	now, err := w.rdb.Time(w.ctx).Result()
	must(t, err)
	return now
}

// during says between which readings of Redis's clock something was done.
func (w *world) during(t *rapid.T, do func()) *moment {
	before := w.now(t)
	do()
	return &moment{before.UnixMicro(), w.now(t).UnixMicro()}
}

// did counts an action and tells it, should the run fail.
func (w *world) did(t *rapid.T, what, format string, args ...any) {
	w.tally[what]++
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
func (w *world) loseReply(t *rapid.T) bool {
	w.fault.lose = one(t, 8, "reply lost")
	return w.fault.lose
}

// unanswered says whether the reply was lost indeed: some calls find that they need no
// script. Nothing of a fault is left after it.
func (w *world) unanswered(err error) bool {
	w.fault.lose, w.fault.before = false, nil
	if errors.Is(err, errReplyLost) {
		w.tally["reply lost"]++
		return true
	}
	return false
}

// actions are all that can be done. One that is impossible at the moment does nothing. Rapid
// prefers what comes first in the alphabet.
func (m *machine) actions() map[string]func(*rapid.T) {
	return map[string]func(*rapid.T){
		"":                   m.check,
		"publish":            m.Publish,
		"add an alert":       m.Publish,
		"read":               m.Read,
		"read by others":     m.others.Read,
		"ack by others":      m.others.Ack,
		"others leave":       m.others.Leave,
		"undertake":          m.others.Abandon,
		"undertake on":       m.others.Bury,
		"undertake again":    m.others.BeginAgain,
		"begin":              m.Begin,
		"begin more":         m.Begin,
		"begin again":        m.BeginAgain,
		"renew":              m.Renew,
		"record":             m.Record,
		"record more":        m.Record,
		"record still more":  m.Record,
		"record attempt":     m.RecordAttempt,
		"bury":               m.Bury,
		"park":               m.Park,
		"pause":              m.Pause,
		"free":               m.Free,
		"release":            m.Release,
		"forge":              m.Forge,
		"revive":             m.Revive,
		"purge":              m.Purge,
		"resolve":            m.Resolve,
		"undo":               m.Undo,
		"wake":               m.Wake,
		"trim":               m.Trim,
		"take over":          m.TakeOver,
		"look":               m.Look,
		"register":           m.Register,
		"register more":      m.Register,
		"unregister":         m.Unregister,
		"the gate runs out":  m.RegistrationRunsOut,
		"write garbage":      m.Garbage,
		"a lease runs out":   m.LeaseRunsOut,
		"their lease is out": m.others.LeaseRunsOut,
		"a parked is due":    m.ParkedIsDue,
		"flush scripts":      m.FlushScripts,
	}
}

// check compares Redis with the model, and with the promise.
func (m *machine) check(t *rapid.T) {
	s, err := look(m.ctx, m.rdb, m.lastLine)
	must(t, err)
	m.shared.learn(s)
	m.learn(s)
	m.others.learn(s)
	if broken := m.promise.holds(s); len(broken) > 0 {
		wrong(t, "the promise is broken", "%s", strings.Join(broken, "\n"))
	}
	if diff := differences(slices.Concat(m.shared.lines(), m.lines(), m.others.lines()), s.lines()); len(diff) > 0 {
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
	raw, err := m.rdb.Get(m.ctx, host.LedgerKey(m.group, id)).Result()
	must(t, err)
	past := m.start.Add(-lease).UnixMicro()
	header := strings.SplitN(raw, " ", 4)
	header[2] = fmt.Sprint(past)
	must(t, m.rdb.Set(m.ctx, host.LedgerKey(m.group, id), strings.Join(header, " "), redis.KeepTTL).Err())
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
