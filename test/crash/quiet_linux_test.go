package crash

import (
	"fmt"
	"io"
	"os"
	"slices"
	"testing"
	"time"

	"riposte/ledger"
	"riposte/playbook/judge"
	"riposte/stream"
	"riposte/test/build"
	"riposte/test/redistest"
	"riposte/test/table"
)

// How long it takes from a death to the next Begin, where the machine has nothing else to
// do: so this test is not parallel, and is through before any that is begins.
func TestTakeoverTimes(t *testing.T) {
	const deaths, lease = 200, 30 * time.Second
	server := redistest.Start(t)
	st := staging{build.Riposte(t), server.URL, server.Client()}
	s := st.scene(t, "quiet", classes[1], lease, unhurried) // not verifiable: each round has a decoy of its own
	s.book("{name: act, action: terminate_process, with: {grace: 20s}, timeout: 25s}")
	fleet := []*replica{s.start(""), s.start(""), s.start("")}
	trial := judge.Trial{LastAlive: map[string]time.Time{}, Exits: map[string]time.Time{}}
	next := s.along(&trial)

	row := table.Row{Group: "crash", Fault: fmt.Sprintf("killed on a quiet host, %d times, lease %v", deaths, lease), Class: classes[0].name}
	for i := range deaths {
		id := stream.AlertID(fmt.Sprint("alert-", i))
		key := stream.StepKey(s.host, stream.DefaultGroup, id, bookName, "act")
		d := newDecoy(t, stubborn)
		s.publishAbout(id, d)
		holder := next(judge.Begin, key).Replica
		slot := slices.IndexFunc(fleet, func(r *replica) bool { return r.name() == holder })
		if slot < 0 {
			t.Fatalf("%s was begun by a stranger, %s", id, holder)
		}
		died := fleet[slot].kill(t)
		trial.LastAlive[holder] = died

		// An epoch is the time of its Begin in microseconds, on Redis's clock, which is ours.
		after := time.UnixMicro(int64(next(judge.Begin, key).Epoch)).Sub(died)
		if after <= 0 || after > lease/3 {
			t.Errorf("%s was taken over %v after the death: not by the proof of it", id, after)
		}
		row.Takeovers = append(row.Takeovers, after)

		_ = d.input.Close() // which ends the decoy, and so the step
		next(judge.Recorded, key)
		<-d.gone
		process := fmt.Sprint("decoy of ", id)
		trial.Exits[process] = d.exit
		trial.Alerts = append(trial.Alerts, judge.Alert{ID: string(id), Steps: []judge.Step{{Key: key, Process: process}}})
		fleet[slot] = s.start("")
	}
	s.stop()

	verdict := trial.Judge()
	row.Accepted, row.Lost, row.Doubled = len(trial.Alerts), len(verdict.Lost), len(verdict.Doubled)
	entries, unreadable, err := s.reader.List(t.Context())
	if err != nil || len(unreadable) > 0 {
		t.Fatal(err, unreadable)
	}
	for _, e := range entries {
		if e.Header.State == ledger.Done {
			row.Settled++
		}
	}
	table.Add(t, row)
	s.audit()
}

// along reads the trace along: it waits for the next event of a kind that a step has.
func (s *scene) along(trial *judge.Trial) (next func(event, key string) judge.Event) {
	s.t.Helper()
	file, err := os.OpenFile(s.traceFile(), os.O_RDONLY|os.O_CREATE, 0o600)
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { file.Close() })
	var rest []byte
	seen := 0
	return func(event, key string) (found judge.Event) {
		s.t.Helper()
		await(s.t, event+" of "+key, func() bool {
			news, err1 := io.ReadAll(file)
			events, left, err2 := judge.Read(append(rest, news...))
			if err1 != nil || err2 != nil {
				s.t.Fatal(err1, err2)
			}
			trial.Events, rest = append(trial.Events, events...), left
			for ; seen < len(trial.Events); seen++ {
				if e := trial.Events[seen]; e.Event == event && e.Key == key {
					seen++
					found = e
					return true
				}
			}
			return false
		})
		return found
	}
}
