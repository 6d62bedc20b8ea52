package chaos

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"golang.org/x/sys/unix"

	"riposte/playbook/action"
	"riposte/playbook/judge"
	"riposte/stream"
	"riposte/test/build"
	"riposte/test/need"
	"riposte/test/redistest"
)

const (
	host         = "chaos"
	playbookName = "contain"
	endStep      = "terminate"
	logStep      = "log"
	scriptStep   = "script"

	replicas   = 4
	lease      = time.Second
	aim        = 80 * time.Millisecond // how long the killer waits for a good moment
	spareAfter = 3                     // takeovers, of the 5 that make an alert poison
	patience   = 2 * time.Minute       // for what is left to be done; it takes a second
	logsKept   = 1000                  // of the latest replicas
	longest    = 6                     // durations that a run takes at most, until it counts
	backlog    = 60                    // alerts that are not settled, above which no more are published
)

// steps are those of the playbook, in order.
var steps = []struct {
	name  string
	class action.Class
}{{endStep, action.Verifiable}, {logStep, action.Idempotent}, {scriptStep, action.AtMostOnce}}

// zone is where the foreign detector is, for whose timestamps the replicas are told.
var zone = time.FixedZone(zoneName, 8*60*60)

const zoneName = "Asia/Shanghai"

const playbookText = `name: contain
match: alert.level == "HIGH"
steps:
  - name: terminate
    action: terminate_process
    with: {grace: 100ms}
    timeout: 2s
    retry: {attempts: 50, initial: 20ms, max: 200ms}
  - name: log
    action: log
    with: {path: %q}
  - name: script
    action: run_script
    with: {argv: [/bin/sh, -c, %q]}
`

// plan is what a run is to be like.
type plan struct {
	tags     []string // of the binary
	alerts   int
	duration time.Duration
	seed     uint64
	faults   time.Duration // mean time between faults of Redis; zero: none

	between, inside int // kills between Begin and Record, and inside an effect, without which it does not count
}

// run is one run of the chaos.
type run struct {
	t       *testing.T
	plan    plan
	choices *choices
	dir     string
	binary  string
	redis   *redistest.Server
	faults  *faults
	rdb     *redis.Client
	nursery *nursery
	journal *journal
	trace   *trace

	slots   [replicas]*replica
	past    []*replica // all that ever were
	decoys  []*decoy
	alerts  []alert
	unsent  []alert // not acknowledged
	again   []alert // to be published once more
	kills   int
	freezes int
	ended   int // by a peer, which waited for one that was frozen inside an effect

	stillborn int // could not start

	buried map[string]bool // alerts that became dead letters
}

// start makes everything ready for a run.
func start(t *testing.T, p plan) *run {
	t.Helper()
	r := &run{
		t: t, plan: p, choices: newChoices(p.seed), dir: t.ArtifactDir(),
		binary: build.Riposte(t, p.tags...), redis: redistest.Start(t, "--appendfsync", "always"), nursery: newNursery(t),
	}
	var err error
	// One connection, which is the one that CLIENT KILL spares.
	if r.rdb, err = stream.Open(stream.Options{URL: r.redis.URL, PoolSize: 1}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.rdb.Close() })
	r.faults = newFaults(r)
	r.journal = newJournal(r.rdb)
	books := filepath.Join(r.dir, "playbooks")
	if err := os.MkdirAll(books, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(books, "contain.yaml"), fmt.Appendf(nil, playbookText, r.logFile(), r.script()), 0o600); err != nil {
		t.Fatal(err)
	}
	r.trace = newTrace(t, r.traceFile())
	for i := range r.slots {
		r.replace(i)
	}
	return r
}

func (r *run) traceFile() string  { return filepath.Join(r.dir, "trace.jsonl") }
func (r *run) logFile() string    { return filepath.Join(r.dir, "effects.log") }
func (r *run) scriptFile() string { return filepath.Join(r.dir, "script.out") }
func (r *run) runtimeDir() string { return filepath.Join(r.dir, "run") }
func (r *run) stateDir() string   { return filepath.Join(r.dir, "state") }

// script is what run_script runs: a line that tells of it, and time to be killed in.
func (r *run) script() string {
	return fmt.Sprintf(`echo "$RIPOSTE_STEP_KEY" >>'%s'; exec %s 0.05`, r.scriptFile(), need.Binary(r.t, "sleep"))
}

func (r *run) replace(slot int) {
	r.t.Helper()
	r.slots[slot] = startReplica(r.t, r.dir, r.binary, "responder", "--redis", r.redis.URL, "--host", host,
		"--mode", "enforce", "--own-uid", "--playbooks", filepath.Join(r.dir, "playbooks"),
		"--lease", lease.String(), "--timezone", zoneName, "--trace", r.traceFile(),
		"--runtime-dir", r.runtimeDir(), "--state-dir", r.stateDir())
	r.past = append(r.past, r.slots[slot])
	if n := len(r.past) - logsKept; n > 0 {
		_ = os.Remove(r.past[n-1].log)
	}
}

// chaos publishes all alerts, spread over the duration, while replicas die and freeze. A machine
// that cannot keep up is not given more, or it would be at work on processes alone: it goes on
// until all alerts are published and enough kills fell at a bad moment.
func (r *run) chaos(ctx context.Context) {
	r.t.Helper()
	tick := time.NewTicker(*kills)
	defer tick.Stop()
	said, enough := time.Now(), r.plan.duration
	for begun, over := time.Now(), false; !over; {
		<-tick.C
		elapsed := time.Since(begun)
		if elapsed >= enough { // counting reads the whole trace
			over = len(r.decoys) >= r.plan.alerts && r.counts() || elapsed >= longest*r.plan.duration
			enough = elapsed + r.plan.duration/4
		}
		due := int(int64(r.plan.alerts)*int64(elapsed)/int64(r.plan.duration)) - len(r.decoys)
		r.announce(max(0, min(due, backlog-(len(r.alerts)-r.journal.settled))))
		r.faults.turn(ctx)
		r.publish(ctx)
		r.freeze()
		r.kill(ctx)
		r.bury()
		if time.Since(said) >= time.Minute {
			said = time.Now()
			r.progress(time.Since(begun))
		}
	}
	r.faults.stop(ctx)
	r.announce(0) // what is left to be published again
	for _, f := range r.slots {
		if f.frozen {
			f.thaw()
		}
	}
}

// progress shows a person that an hour's run lives.
func (r *run) progress(after time.Duration) {
	r.t.Logf("%v: %d alerts, %d not acknowledged yet; %d settled, %d unsettled; %d kills, %d freezes; faults of Redis: %v",
		after.Round(time.Second), len(r.alerts), len(r.unsent), r.journal.settled, len(r.journal.alerts), r.kills, r.freezes, r.faults.seen)
}

// announce starts decoys, and has alerts about them to be published.
func (r *run) announce(n int) {
	r.t.Helper()
	r.unsent = append(r.unsent, r.again...)
	r.again = nil
	for range n {
		r.decoys = append(r.decoys, r.nursery.start(len(r.decoys)%3 == 0))
	}
	for i := len(r.decoys) - n; i < len(r.decoys); i++ {
		d, seen := r.decoys[i], r.choices.decoy(i)
		await(r.t, d.ready, "a decoy to be ready")
		var fresh []alert
		if seen.foreign {
			fresh = append(fresh, foreign(r.t, d))
		}
		if seen.sensed {
			fresh = append(fresh, sensed(r.t, d))
		}
		r.alerts = append(r.alerts, fresh...)
		r.unsent = append(r.unsent, fresh...)
		if seen.twice {
			r.unsent = append(r.unsent, fresh...)
		}
		if seen.later {
			r.again = append(r.again, fresh...)
		}
	}
}

// publish sends alerts until they are acknowledged. Where it was the reply that got lost,
// the next attempt makes a duplicate, which is settled like any other.
func (r *run) publish(ctx context.Context) {
	r.t.Helper()
	if len(r.unsent) == 0 {
		return
	}
	ctx, cancel := r.faults.patient(ctx)
	defer cancel()
	replies, err := r.rdb.Pipelined(ctx, func(pipe redis.Pipeliner) error {
		for _, a := range r.unsent {
			pipe.XAdd(ctx, &redis.XAddArgs{Stream: stream.Host(host).AlertsKey(), Values: []any{"alert", a.raw}})
		}
		return nil
	})
	r.faults.excuse("publish", err)
	sent := r.unsent
	r.unsent = nil
	for i, a := range sent {
		if replies[i].Err() != nil {
			r.unsent = append(r.unsent, a)
		}
	}
}

// follow reads the journal along, as far as Redis lets it.
func (r *run) follow(ctx context.Context) {
	r.t.Helper()
	ctx, cancel := r.faults.patient(ctx)
	defer cancel()
	r.faults.excuse("follow", r.journal.follow(ctx))
}

// freeze freezes one replica at a time, and thaws it when its lease is long over. One that
// stays frozen beyond the deadline of the gate may be ended by a peer that waits there.
func (r *run) freeze() {
	for _, f := range r.slots {
		if f.frozen && time.Now().After(f.until) {
			f.thaw()
			return
		}
		if f.frozen {
			return
		}
	}
	slot, pause := r.choices.freeze()
	f := r.slots[slot]
	if f.freeze(pause); f.frozen {
		r.freezes++
	}
}

// kill kills a replica, but no frozen one, which is to be thawed.
func (r *run) kill(ctx context.Context) {
	r.t.Helper()
	choice := r.choices.kill()
	r.follow(ctx)
	var candidates []*replica
	for _, slot := range choice.order {
		if c := r.slots[slot]; !c.frozen && !r.journal.fragile(c) {
			candidates = append(candidates, c)
		}
	}
	if len(candidates) == 0 {
		return
	}
	victim := candidates[0]
	var prey *replica
	switch {
	case choice.moment < inEffect:
		prey = r.trace.await(candidates, whereabouts.insideEffect)
	case choice.moment < recording:
		r.disconnect(ctx)
		prey = r.trace.await(candidates, whereabouts.recording)
	default: // any moment of the work will do
		<-time.After(choice.wait)
	}
	if prey != nil {
		victim = prey
	}
	r.follow(ctx) // it may have taken over a fragile alert meanwhile
	if r.journal.fragile(victim) || r.overdelivered(ctx, victim) {
		return
	}
	if victim.kill(); victim.killed {
		r.kills++
	}
}

// overdelivered says whether a replica was delivered an alert that must not lose many more
// holders: also those count that have died before they began it, of whom the journal does
// not tell.
func (r *run) overdelivered(ctx context.Context, victim *replica) bool {
	r.t.Helper()
	ctx, cancel := r.faults.patient(ctx)
	defer cancel()
	rows, err := r.rdb.XPendingExt(ctx, &redis.XPendingExtArgs{
		Stream: stream.Host(host).AlertsKey(), Group: string(stream.DefaultGroup), Start: "-", End: "+", Count: 1000, Consumer: victim.name(),
	}).Result()
	r.faults.excuse("look at what is pending", err)
	return slices.ContainsFunc(rows, func(p redis.XPendingExt) bool { return p.RetryCount > spareAfter })
}

// moments are how many kills fell at a bad moment, by what the dead left in the trace.
type moments struct{ between, closed, inside int }

func (r *run) moments(trial judge.Trial) (m moments) {
	unrecorded, unclosed, unended := trial.Unrecorded(), trial.Unclosed(), trial.Inside()
	for _, p := range r.past {
		name := p.name()
		if !p.killed {
			continue
		}
		if len(unrecorded[name]) > 0 { // between Begin and Record
			m.between++
		}
		if len(unrecorded[name]) > len(unclosed[name]) { // between closing an outcome and recording it
			m.closed++
		}
		if len(unended[name]) > 0 {
			m.inside++
		}
	}
	return m
}

// counts says whether enough kills fell at a bad moment so far.
func (r *run) counts() bool {
	r.t.Helper()
	raw, err := os.ReadFile(r.traceFile())
	if err != nil {
		r.t.Fatal(err)
	}
	events, _, err := judge.Read(raw)
	if err != nil {
		r.t.Fatal(err)
	}
	return r.enough(r.moments(judge.Trial{Events: events, LastAlive: r.lastAlive()}))
}

func (r *run) enough(m moments) bool { return m.between >= r.plan.between && m.inside >= r.plan.inside }

// disconnect drops the replicas' connections to Redis, so that requests and replies get
// lost, and outcomes that are closed wait for a moment to be recorded.
func (r *run) disconnect(ctx context.Context) {
	r.t.Helper()
	ctx, cancel := r.faults.patient(ctx)
	defer cancel()
	r.faults.excuse("drop connections", r.rdb.ClientKillByFilter(ctx, "TYPE", "normal", "SKIPME", "yes").Err())
}

// bury replaces the dead, and looks into deaths that were not ordered.
func (r *run) bury() {
	r.t.Helper()
	for i, d := range r.slots {
		if d.killed {
			await(r.t, d.done, "a killed replica to be gone")
		}
		if !d.dead() {
			continue
		}
		switch {
		case d.killed:
		case !d.ready() && d.gaveUp():
			r.stillborn++ // its first words to Redis were lost
		case d.stuck() && d.err != nil && d.err.Error() == "signal: killed":
			r.ended++
		default:
			r.t.Errorf("a replica died by itself: %v\n%s", d.err, d.words())
		}
		d.name() // as long as there is a log
		d.release()
		r.replace(i)
	}
}

// drain waits until nothing is left to be done, and stops the replicas in good order.
func (r *run) drain(ctx context.Context) {
	r.t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		r.publish(ctx)
		r.bury()
		left := r.left(ctx)
		if left == "" {
			break
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			r.t.Errorf("still not done: %s", left)
			for _, s := range r.slots {
				r.t.Log(s.words())
			}
			return
		}
	}
	for _, s := range r.slots {
		_ = s.signal(unix.SIGTERM)
	}
	for _, s := range r.slots {
		await(r.t, s.done, "a replica to stop")
		if s.err != nil {
			r.t.Errorf("a replica did not stop in good order: %v\n%s", s.err, s.words())
		}
	}
	r.follow(ctx)
	r.buried = r.journal.buried()
	// While Redis is broken the killer cannot see whom it must spare: deliveries and Begins
	// that were under way count, and those who sent them have died meanwhile.
	if n := len(r.buried); n > 0 && (r.plan.faults == 0 || n > len(r.alerts)/20) {
		for id := range r.buried {
			r.t.Errorf("%s was buried:%s", id, r.journal.history(id))
		}
	}
}

// left says what the group has still to do; empty if nothing.
func (r *run) left(ctx context.Context) string {
	if n := len(r.unsent); n > 0 {
		return fmt.Sprintf("%d alerts not acknowledged", n)
	}
	groups, err := r.rdb.XInfoGroups(ctx, stream.Host(host).AlertsKey()).Result()
	r.faults.excuse("groups", err)
	alerts, err := r.rdb.XInfoStream(ctx, stream.Host(host).AlertsKey()).Result()
	r.faults.excuse("alerts", err)
	if len(groups) != 1 || alerts == nil {
		return "no group yet"
	}
	for _, s := range r.slots {
		if s.name() == "" { // and would not know what to do with SIGTERM
			return "a replica is still starting"
		}
	}
	if g := groups[0]; g.Pending > 0 || g.LastDeliveredID != alerts.LastGeneratedID {
		return fmt.Sprintf("%d pending, delivered to %s of %s", g.Pending, g.LastDeliveredID, alerts.LastGeneratedID)
	}
	return ""
}

// judge hands everything over to the judge.
func (r *run) judge() (judge.Trial, judge.Verdict) {
	r.t.Helper()
	events, err := judge.ReadFile(r.traceFile())
	if err != nil {
		r.t.Fatal(err)
	}
	trial := judge.Trial{Events: events, LastAlive: r.lastAlive(), Exits: map[string]time.Time{}}
	for _, a := range r.alerts {
		if !r.buried[string(a.id)] {
			trial.Alerts = append(trial.Alerts, a.trial())
		}
	}
	for _, d := range r.decoys {
		select {
		case <-d.gone:
			trial.Exits[d.name] = d.exit
		default:
		}
	}
	return trial, trial.Judge()
}

// lastAlive says of each replica that has died when it was last seen alive.
func (r *run) lastAlive() map[string]time.Time {
	seen := map[string]time.Time{}
	for _, p := range r.past {
		if p.dead() {
			seen[p.name()] = p.lastAlive
		}
	}
	return seen
}

func await(t testing.TB, done <-chan struct{}, what string) {
	t.Helper()
	select {
	case <-done:
	case <-time.After(patience):
		t.Fatalf("waited %v for %s", patience, what)
	}
}
