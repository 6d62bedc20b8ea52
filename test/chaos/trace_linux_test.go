package chaos

import (
	"io"
	"os"
	"testing"
	"time"

	"riposte/playbook/judge"
)

// trace reads the trace along, to see who is at what.
type trace struct {
	t    testing.TB
	file *os.File
	rest []byte                  // a line that is being written
	at   map[string]*whereabouts // of the replicas, by name
}

type whereabouts struct {
	inside int    // effects that it has begun and not ended
	last   string // event
}

func newTrace(t testing.TB, path string) *trace {
	file, err := os.OpenFile(path, os.O_RDONLY|os.O_CREATE, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { file.Close() })
	return &trace{t: t, file: file, at: map[string]*whereabouts{}}
}

func (w *trace) follow() {
	w.t.Helper()
	news, err := io.ReadAll(w.file)
	if err != nil {
		w.t.Fatal(err)
	}
	events, rest, err := judge.Read(append(w.rest, news...))
	if err != nil {
		w.t.Fatal(err)
	}
	w.rest = rest
	for _, e := range events {
		at := w.at[e.Replica]
		if at == nil {
			at = &whereabouts{}
			w.at[e.Replica] = at
		}
		at.last = e.Event
		switch e.Event {
		case judge.Begin:
			at.inside++
		case judge.End:
			at.inside--
		}
	}
}

// insideEffect says that a replica is inside an effect.
func (w whereabouts) insideEffect() bool { return w.inside > 0 }

// recording says that a replica has just closed an outcome and not recorded it.
func (w whereabouts) recording() bool { return w.last == judge.Closed }

// await waits a moment for one of the candidates to be somewhere.
func (w *trace) await(candidates []*replica, there func(whereabouts) bool) *replica {
	w.t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(aim); time.Now().Before(deadline); <-tick.C {
		w.follow()
		for _, c := range candidates {
			if at := w.at[c.name()]; at != nil && there(*at) {
				return c
			}
		}
	}
	return nil
}
