package crash

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"riposte/ledger"
	"riposte/playbook/action"
	"riposte/playbook/judge"
	"riposte/stream"
	"riposte/stream/proc"
)

const (
	alertID  = stream.AlertID("alert")
	bookName = "contain"
)

// scene is a host of its own, with one alert and the replicas that handle it.
type scene struct {
	t       *testing.T
	rdb     *redis.Client
	reader  *ledger.Reader
	host    stream.Host
	dir     string
	binary  string
	url     string // what replicas are given
	class   class
	lease   time.Duration
	timeout time.Duration // of the step

	decoy    *decoy   // of a verifiable step
	trickle  *trickle // the victim's trace, where attempts are to fail
	replicas []*replica
}

// staging is what scenes of one test have in common.
type staging struct {
	binary, url string
	rdb         *redis.Client
}

func (st staging) scene(t *testing.T, host string, c class, lease, timeout time.Duration) *scene {
	t.Helper()
	s := &scene{
		t: t, rdb: st.rdb, host: stream.Host(host), dir: t.TempDir(), binary: st.binary, url: st.url,
		reader: ledger.NewReader(st.rdb, stream.Host(host), stream.DefaultGroup),
		class:  c, lease: lease, timeout: timeout,
	}
	t.Cleanup(s.explain)
	if c.class == action.Verifiable {
		s.decoy = newDecoy(t, meek)
	}
	return s
}

// book writes the playbook. Its last step says that the others are through.
func (s *scene) book(steps ...string) {
	s.t.Helper()
	text := fmt.Sprintf("name: %s\nmatch: \"true\"\nsteps:\n", bookName)
	for _, step := range steps {
		text += "  - " + step + "\n"
	}
	dir := filepath.Join(s.dir, "playbooks")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		s.t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "contain.yaml"), []byte(text), 0o600); err != nil {
		s.t.Fatal(err)
	}
}

// after is a step that shows how often its turn has come.
func (s *scene) after() string {
	return fmt.Sprintf("{name: after, action: log, with: {path: %q}}", s.afterFile())
}

func (s *scene) afterFile() string  { return filepath.Join(s.dir, "after") }
func (s *scene) traceFile() string  { return filepath.Join(s.dir, "trace") }
func (s *scene) runtimeDir() string { return filepath.Join(s.dir, "run") }
func (s *scene) stateDir() string   { return filepath.Join(s.dir, "state") }

func (s *scene) key(step string) string { return s.keyOf(alertID, step) }

func (s *scene) keyOf(id stream.AlertID, step string) string {
	return stream.StepKey(s.host, stream.DefaultGroup, id, bookName, step)
}

// start starts a replica and waits until it is at work; with crash it will stop at a
// boundary. One that cannot start, because its first words to Redis were lost, is started
// again, as whatever supervises it would.
func (s *scene) start(crash string, more ...string) *replica {
	s.t.Helper()
	var r *replica
	for range 3 {
		args := []string{"responder", "--redis", s.url, "--host", string(s.host), "--mode", "enforce", "--own-uid",
			"--playbooks", filepath.Join(s.dir, "playbooks"), "--lease", s.lease.String(), "--trace", s.traceFile(),
			"--runtime-dir", s.runtimeDir(), "--state-dir", s.stateDir()}
		r = launch(s.t, s.dir, crash, s.binary, append(args, more...)...)
		s.replicas = append(s.replicas, r)
		await(s.t, "a replica to be ready", func() bool { return r.ready() || r.dead() || r.frozen() })
		if !r.dead() {
			return r
		}
	}
	s.t.Fatalf("no replica starts: %v\n%s", r.err, r.words())
	return nil
}

// publish XADDs the alert.
func (s *scene) publish() {
	s.t.Helper()
	s.publishAbout(alertID, s.decoy)
}

// publishAbout XADDs an alert about a process, which may be nil.
func (s *scene) publishAbout(id stream.AlertID, d *decoy) {
	s.t.Helper()
	a := &stream.Alert{
		ID: id, Host: string(s.host), Source: "crash", Level: "HIGH", Title: s.t.Name(),
		Timestamp: time.Now().UTC().Format(time.RFC3339Nano),
	}
	if d != nil {
		info, err1 := proc.Read(d.pid)
		boot, err2 := proc.BootID()
		ns, err3 := proc.Namespace()
		if err1 != nil || err2 != nil || err3 != nil {
			s.t.Fatal(err1, err2, err3)
		}
		pid := int64(d.pid)
		a.ActionablePID = &pid
		a.Process = &stream.Process{PID: pid, StartTicks: info.StartTicks, BootID: boot, PIDNS: ns, Name: info.Name, Exe: info.Exe}
	}
	raw, err := json.Marshal(a)
	if err != nil {
		s.t.Fatal(err)
	}
	s.add(raw)
}

func (s *scene) add(raw []byte) {
	s.t.Helper()
	if err := s.rdb.XAdd(s.t.Context(), &redis.XAddArgs{Stream: s.host.AlertsKey(), Values: []any{"alert", raw}}).Err(); err != nil {
		s.t.Fatal(err)
	}
}

// settle waits until nothing is left to be done.
func (s *scene) settle() {
	s.t.Helper()
	await(s.t, "the alert to be settled", func() bool { return s.left() == "" })
}

// explain shows what happened in a test that failed.
func (s *scene) explain() {
	if !s.t.Failed() {
		return
	}
	s.t.Logf("left: %s; journal:%s", s.left(), s.history())
	for _, r := range s.replicas {
		s.t.Log(r.words())
	}
}

// left says what is still to do; empty if nothing.
func (s *scene) left() string {
	ctx := context.Background() // also to explain a failure
	length, err1 := s.rdb.XLen(ctx, s.host.AlertsKey()).Result()
	pending, err2 := s.rdb.XPending(ctx, s.host.AlertsKey(), string(stream.DefaultGroup)).Result()
	switch {
	case err1 != nil || err2 != nil:
		return fmt.Sprint(err1, err2)
	case pending.Count > 0:
		return fmt.Sprint(pending.Count, " pending")
	}
	if n, err := s.rdb.Exists(ctx, s.host.LedgerKey(stream.DefaultGroup, alertID)).Result(); n == 0 || err != nil {
		return fmt.Sprint("not begun; ", err)
	}
	entries, unreadable, err := s.reader.List(ctx)
	switch {
	case err != nil:
		return err.Error()
	case len(unreadable) > 0:
		return fmt.Sprint("unreadable: ", unreadable)
	case len(entries) < int(length):
		return fmt.Sprintf("%d of %d in the ledger", len(entries), length)
	}
	for _, e := range entries {
		if !e.Header.Settled() {
			return fmt.Sprintf("%s is %s", e.ID, e.Header.State)
		}
	}
	return ""
}

// entry is the alert in the ledger.
func (s *scene) entry() (ledger.Entry, bool) {
	s.t.Helper()
	e, err := s.reader.Find(s.t.Context(), string(alertID))
	return e, err == nil
}

// journal is what the ledger's scripts say they did about the alert.
func (s *scene) journal() []ledger.Event {
	s.t.Helper()
	events, err := s.reader.History(context.Background(), alertID) // also to explain a failure
	if err != nil {
		s.t.Errorf("journal: %v", err)
	}
	return events
}

func (s *scene) happened(event string) bool {
	return slices.ContainsFunc(s.journal(), func(e ledger.Event) bool { return e.Event == event })
}

// begun is when a replica was granted the alert, on Redis's clock.
func (s *scene) begun(by *replica) (time.Time, bool) {
	s.t.Helper()
	for _, e := range s.journal() {
		if (e.Event == "run" || e.Event == "resume") && e.Owner == by.name() {
			return e.At(), true
		}
	}
	return time.Time{}, false
}

func (s *scene) history() string {
	var out strings.Builder
	for _, e := range s.journal() {
		fmt.Fprintf(&out, "\n%s %s", e.At().UTC().Format("15:04:05.000"), e.Words())
	}
	return out.String()
}

// stop stops whoever is still there, in good order.
func (s *scene) stop() {
	s.t.Helper()
	for _, r := range s.replicas {
		if !r.dead() {
			r.stop(s.t)
		}
	}
}

// verdict is what became of the alert of a scene.
type verdict struct {
	outcome       string // of the step under test
	settled, dead bool
	unknown       int // steps
	lost, doubled int
	effects       int // as seen from outside
}

// judge hands everything over to the judge, once the replicas have gone.
func (s *scene) judge() verdict {
	s.t.Helper()
	trial := judge.Trial{Events: s.events(), LastAlive: map[string]time.Time{}, Exits: map[string]time.Time{}}
	for _, r := range s.replicas {
		if r.dead() {
			trial.LastAlive[r.name()] = r.lastAlive
		}
	}
	entry, found := s.entry()
	if !found {
		s.t.Fatalf("no entry of the alert%s", s.history())
	}
	alert := judge.Alert{ID: string(alertID)}
	v := verdict{settled: entry.Header.State == ledger.Done, dead: entry.Header.State == ledger.Dead}
	for _, step := range entry.Body.Steps {
		js := judge.Step{Key: s.key(step.Step)}
		if step.Step == "act" {
			v.outcome = step.Outcome
			if s.decoy != nil {
				js.Process = "decoy " + strconv.Itoa(s.decoy.pid)
				if s.decoy.dead() {
					trial.Exits[js.Process] = s.decoy.exit
				}
			}
		}
		if step.Outcome == string(action.Unknown) {
			v.unknown++
		}
		alert.Steps = append(alert.Steps, js)
	}
	trial.Alerts = []judge.Alert{alert}
	finding := trial.Judge()
	for _, l := range finding.Lost {
		s.t.Logf("lost %s", l)
	}
	for _, d := range finding.Doubled {
		s.t.Logf("doubled: %s", d)
	}
	v.lost, v.doubled = len(finding.Lost), len(finding.Doubled)
	v.effects = s.effects(s.t)
	records := map[string]int{}
	for _, e := range s.journal() {
		if e.Event == "record" {
			if records[e.Step]++; records[e.Step] > 1 {
				s.t.Errorf("%d accepted records of %s", records[e.Step], e.Step)
			}
		}
	}
	return v
}

// events are the lines of the trace, with those that came through the trickle. Of these
// only the time says where they belong.
func (s *scene) events() []judge.Event {
	s.t.Helper()
	events, err := judge.ReadFile(s.traceFile())
	if err != nil && !os.IsNotExist(err) && s.trickle == nil {
		s.t.Fatal(err)
	}
	if s.trickle != nil {
		more, _, err := judge.Read(s.trickle.all())
		if err != nil {
			s.t.Fatal(err)
		}
		events = append(events, more...)
		slices.SortStableFunc(events, func(a, b judge.Event) int { return int(a.TimeUS - b.TimeUS) })
	}
	return events
}

// audit asks riposte itself.
func (s *scene) audit() {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, s.binary, "ledger", "audit", "--redis", "redis://"+s.rdb.Options().Addr, "--host", string(s.host),
		"--runtime-dir", s.runtimeDir(), "--state-dir", s.stateDir())
	cmd.Env = []string{}
	if out, err := cmd.CombinedOutput(); err != nil {
		s.t.Errorf("riposte ledger audit: %v\n%s", err, out)
	}
}
