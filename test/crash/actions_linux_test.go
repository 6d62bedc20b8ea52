package crash

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"riposte/ledger"
	"riposte/playbook"
	"riposte/playbook/action"
	"riposte/playbook/judge"
	"riposte/stream"
)

// moments are the boundaries at which each action is stopped, and each undo of one: from the
// grant to the record.
var moments = []string{"granted", "inside-gate", "probed", "begun", "applied", "closed", "before-record", recorded}

// rest waits until these alerts are settled, and each of their steps has an outcome: also
// those that came later.
func (s *scene) rest(ids ...stream.AlertID) {
	s.t.Helper()
	await(s.t, "all steps to be settled", func() bool {
		for _, id := range ids {
			e, err := s.reader.Entry(s.t.Context(), id)
			if err != nil || !e.Header.Settled() || slices.ContainsFunc(e.Body.Steps, func(step ledger.Step) bool { return step.Outcome == "" }) {
				return false
			}
		}
		pending, err := s.rdb.XPending(s.t.Context(), s.host.AlertsKey(), string(stream.DefaultGroup)).Result()
		return err == nil && pending.Count == 0
	})
}

// revert has all that was done about an alert taken back, as riposte undo does.
func (s *scene) revert(id stream.AlertID) {
	s.t.Helper()
	err := s.reader.Reopen(s.t.Context(), id, "operator", "false positive", func(body *ledger.Body) error {
		_, err := playbook.Revert(body, "")
		return err
	})
	if err != nil {
		s.t.Fatal(err)
	}
}

// succeeded kills a replica that has frozen, with a peer beside it that goes on.
func (s *scene) succeeded(victim *replica) {
	s.t.Helper()
	victim.awaitFrozen(s.t)
	s.start("")
	victim.kill(s.t)
}

// sentence is what was found of a scene when all was over.
type sentence struct {
	outcomes      map[string]string // by the key of the step
	begun         map[string]int    // how often its effect was
	lost, doubled int
}

// sentence stops the replicas and asks the judge, the journal and the audit. Each step has one
// outcome, which was recorded once.
func (s *scene) sentence(ids ...stream.AlertID) sentence {
	s.t.Helper()
	s.stop()
	out := sentence{outcomes: map[string]string{}, begun: map[string]int{}}
	trial := judge.Trial{Events: s.events(), LastAlive: map[string]time.Time{}, Exits: map[string]time.Time{}}
	for _, r := range s.replicas {
		trial.LastAlive[r.name()] = r.lastAlive
	}
	for _, id := range ids {
		e, err := s.reader.Entry(s.t.Context(), id)
		if err != nil {
			s.t.Fatal(err)
		}
		if e.Header.State != ledger.Done {
			s.t.Errorf("%s is %s", id, e.Header.State)
		}
		history, err := s.reader.History(s.t.Context(), id)
		if err != nil {
			s.t.Fatal(err)
		}
		alert := judge.Alert{ID: string(id)}
		for _, step := range e.Body.Steps {
			js := judge.Step{Key: stream.StepKey(s.host, stream.DefaultGroup, id, step.Playbook, step.Step)}
			if s.decoy != nil && step.Step == "act" {
				js.Process = fmt.Sprint("decoy ", s.decoy.pid)
				if s.decoy.dead() {
					trial.Exits[js.Process] = s.decoy.exit
				}
			}
			alert.Steps = append(alert.Steps, js)
			out.outcomes[js.Key] = step.Outcome
			records := 0
			for _, event := range history {
				if event.Event == "record" && event.Step == step.Name() {
					records++
				}
			}
			if records != 1 {
				s.t.Errorf("%d accepted records of %s of %s", records, step.Name(), id)
			}
		}
		trial.Alerts = append(trial.Alerts, alert)
	}
	for _, e := range trial.Events {
		if e.Event == judge.Begin {
			out.begun[e.Key]++
		}
	}
	finding := trial.Judge()
	for _, l := range finding.Lost {
		s.t.Errorf("lost %s", l)
	}
	for _, d := range finding.Doubled {
		s.t.Errorf("doubled: %s", d)
	}
	out.lost, out.doubled = len(finding.Lost), len(finding.Doubled)
	s.audit()
	return out
}

// act stops the replica that carries out a deed.
func (w *world) act(t *testing.T, host, boundary string, d deed) sentence {
	if d.alone {
		defer w.alone(t)()
	}
	s := w.scene(t, host, classes[1], longLease, unhurried)
	sub := d.on(s, w)
	s.book(act(s, d.action, sub.with), s.after())
	victim := s.start(boundary + ":stop")
	s.publishAbout(alertID, sub.about)
	s.succeeded(victim)
	s.rest(alertID)
	if wrong := sub.done(); wrong != "" {
		t.Errorf("not in place, once: %s", wrong)
	}
	found, p := s.sentence(alertID), places[boundary]
	want, begun := d.outcome, 1
	switch {
	case p.applied && !d.repeats:
		want = d.again
	case p.begun:
		begun = 2
	}
	found.expect(t, s.key("act"), string(want), begun)
	if d.repeats {
		w.mu.Lock()
		defer w.mu.Unlock()
		times := 1
		if p.applied {
			times = 2
		}
		if n := len(w.posts[s.key("act")]); n != times {
			t.Errorf("posted %d times, want %d", n, times)
		}
	}
	if n := count(t, s.afterFile(), s.key("after")); n != 1 {
		t.Errorf("the step after it happened %d times", n)
	}
	return found
}

// takeBack stops the replica that undoes a deed.
func (w *world) takeBack(t *testing.T, host, boundary string, d deed) sentence {
	if d.alone {
		defer w.alone(t)()
	}
	s, sub := w.doneBefore(t, host, d)
	victim := s.start(boundary + ":stop")
	s.revert(alertID)
	s.succeeded(victim)
	s.rest(alertID)
	if wrong := sub.undone(); wrong != "" {
		t.Errorf("not taken back: %s", wrong)
	}
	found, begun := s.sentence(alertID), 1
	if p := places[boundary]; p.begun && !p.applied {
		begun = 2
	}
	found.expect(t, s.key("act"), string(d.outcome), 1)
	found.expect(t, s.key("act~undo"), string(d.undone), begun)
	if e, _ := s.entry(); e.Body.Steps[1].Action != d.undoes {
		t.Errorf("undone by %s, want %s", e.Body.Steps[1].Action, d.undoes)
	}
	return found
}

// lifted is the alert about which a deed is taken back by a step of its own.
const lifted = stream.AlertID("lifted")

// lift stops the replica that takes a deed back by a step of its own, about another alert.
func (w *world) lift(t *testing.T, host, boundary string, d deed) sentence {
	if d.alone {
		defer w.alone(t)()
	}
	s, sub := w.doneBefore(t, host, d)
	s.book(act(s, d.undoes, sub.lift), s.after())
	victim := s.start(boundary + ":stop")
	s.publishAbout(lifted, sub.about)
	s.succeeded(victim)
	s.rest(alertID, lifted)
	if wrong := sub.undone(); wrong != "" {
		t.Errorf("not taken back: %s", wrong)
	}
	found, begun := s.sentence(alertID, lifted), 1
	if p := places[boundary]; p.begun && !p.applied {
		begun = 2
	}
	found.expect(t, s.key("act"), string(d.outcome), 1)
	found.expect(t, s.keyOf(lifted, "act"), string(d.undone), begun)
	if n := count(t, s.afterFile(), s.keyOf(lifted, "after")); n != 1 {
		t.Errorf("the step after it happened %d times", n)
	}
	return found
}

// doneBefore is a scene in which a deed is done, and nobody is left.
func (w *world) doneBefore(t *testing.T, host string, d deed) (*scene, subject) {
	t.Helper()
	s := w.scene(t, host, classes[1], longLease, unhurried)
	sub := d.on(s, w)
	s.book(act(s, d.action, sub.with))
	first := s.start("")
	s.publishAbout(alertID, sub.about)
	s.rest(alertID)
	first.stop(t)
	if wrong := sub.done(); wrong != "" {
		t.Fatalf("nothing to take back: %s", wrong)
	}
	return s, sub
}

// act is the step of a playbook that all is about.
func act(s *scene, action, with string) string {
	if with == "" {
		with = "{}"
	}
	return fmt.Sprintf("{name: act, action: %s, with: %s, timeout: %v}", action, with, s.timeout)
}

// expect compares a step with what it was to be.
func (f sentence) expect(t *testing.T, key, outcome string, begun int) {
	t.Helper()
	if f.outcomes[key] != outcome || f.begun[key] != begun {
		t.Errorf("%s: outcome %q, begun %d times; want %q, %d", key, f.outcomes[key], f.begun[key], outcome, begun)
	}
}

// alone keeps the host for one case, and makes it as it was before.
func (w *world) alone(t *testing.T) (leave func()) {
	w.host.Lock()
	return func() {
		defer w.host.Unlock()
		if len(elements(t, isolationTable)) > 0 {
			firewall(t, "delete", "table", "inet", isolationTable)
		}
	}
}

// docket is what was found of all cases of a test.
type docket struct {
	mu                   sync.Mutex
	cases, lost, doubled int
	cells                map[string]string // by row and column
}

func (d *docket) enter(row, column, cell string, s sentence) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.cases++
	d.lost, d.doubled = d.lost+s.lost, d.doubled+s.doubled
	if d.cells == nil {
		d.cells = map[string]string{}
	}
	d.cells[row+"|"+column] = cell
}

// report logs it, and fails the test where a case is missing.
func (d *docket) report(t *testing.T, want int, rows, columns []string) {
	t.Helper()
	var out strings.Builder
	out.WriteString("\n| | " + strings.Join(columns, " | ") + " |\n|---|" + strings.Repeat("---|", len(columns)) + "\n")
	for _, row := range rows {
		out.WriteString("| " + row + " |")
		for _, column := range columns {
			out.WriteString(" " + d.cells[row+"|"+column] + " |")
		}
		out.WriteString("\n")
	}
	t.Logf("%d cases, lost %d, doubled %d%s", d.cases, d.lost, d.doubled, &out)
	if d.cases != want {
		t.Errorf("%d cases came to their end, want %d", d.cases, want)
	}
}

// TestActions kills a replica at each moment of each action, and of each that can be undone at
// each moment of the undo, and of the action that takes it back by itself, beside a peer. What
// was to be is seen from outside: once, or as it was before.
func TestActions(t *testing.T) {
	t.Parallel()
	w := enterWorld(t)
	if w == nil {
		return
	}
	for _, name := range action.Names() {
		covers := func(d deed) bool { return d.action == name || d.undoes == name }
		stood := name == "log" || name == "run_script" // for their class, see classes
		if !stood && !slices.ContainsFunc(deeds, covers) {
			t.Errorf("no case is about the action %s: add it to the deeds", name)
		}
	}
	var found docket
	var cases []func()
	var rows, undone, lifts []string
	add := func(name, boundary, step string, id stream.AlertID, run func(*testing.T, string) sentence) {
		host := fmt.Sprintf("a%d", len(cases))
		cases = append(cases, func() {
			t.Run(name+"/"+boundary, func(t *testing.T) {
				out := run(t, host)
				found.enter(name, boundary, out.outcomes[key(host, id, step)], out)
			})
		})
	}
	for _, boundary := range moments {
		for _, d := range deeds {
			add(d.name(), boundary, "act", alertID, func(t *testing.T, host string) sentence { return w.act(t, host, boundary, d) })
			if d.undoes == "" {
				continue
			}
			add("undo "+d.name(), boundary, "act~undo", alertID, func(t *testing.T, host string) sentence { return w.takeBack(t, host, boundary, d) })
			if d.by != "" {
				continue // what takes it back by itself is the same
			}
			add(d.undoes, boundary, "act", lifted, func(t *testing.T, host string) sentence { return w.lift(t, host, boundary, d) })
		}
	}
	for _, d := range deeds {
		rows = append(rows, d.name())
		if d.undoes != "" {
			undone = append(undone, "undo "+d.name())
		}
		if d.undoes != "" && d.by == "" {
			lifts = append(lifts, d.undoes)
		}
	}
	together(cases)
	found.report(t, len(cases), slices.Concat(rows, undone, lifts), moments)
}

func key(host string, id stream.AlertID, step string) string {
	return stream.StepKey(stream.Host(host), stream.DefaultGroup, id, bookName, step)
}
