package e2e_test

import (
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const noteOnly = `
name: note
match: "true"
steps:
  - {name: note, action: log}
`

// folder is the flags of a responder with a runtime folder of its own.
func (s *site) elsewhere(name string, more ...string) []string {
	return slices.Concat([]string{
		"responder", "--mode", "enforce", "--own-uid", "--lease", "1s", "--playbooks", s.playbooks(noteOnly),
		"--runtime-dir", filepath.Join(s.dir, name), "--state-dir", filepath.Join(s.dir, name+"-state"),
	}, more)
}

// TestOtherGate: replicas that share no runtime folder do not enforce together. One that
// comes waits until the other is gone, and gives up if it stays.
func TestOtherGate(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	first := s.start("responder is ready", s.elsewhere("one")...)
	s.start("responder is ready", s.elsewhere("one")...).stop() // the same folder

	refused := s.command(s.elsewhere("two")...)
	var said text
	refused.Stderr = &said
	gone := spawn(t, refused)
	until(t, func() string { return "waits: " + said.String() }, func() bool { return strings.Contains(said.String(), "waiting whether the other gate") })
	until(t, func() string { return "gives up: " + said.String() }, func() bool {
		select {
		case <-gone:
			return true
		default:
			return false
		}
	})
	if code := refused.ProcessState.ExitCode(); code != 1 || !strings.Contains(said.String(), "--runtime-dir") || !strings.Contains(said.String(), "--unfenced") {
		t.Errorf("exit %d: %s", code, said.String())
	}

	second := s.command(s.elsewhere("two")...)
	var words text
	second.Stderr = &words
	spawn(t, second)
	until(t, func() string { return "waits: " + words.String() }, func() bool { return strings.Contains(words.String(), "waiting whether the other gate") })
	first.stop()
	until(t, func() string { return "is ready: " + words.String() }, func() bool { return strings.Contains(words.String(), "responder is ready") })
}

// TestUnfenced: told to, they enforce together, and status says so for as long as it lasts.
// What one of them held when it died is the other's after the lease.
func TestUnfenced(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	first := s.start("responder is ready", s.elsewhere("one", "--unfenced")...)
	if r := run(t, s.command(s.elsewhere("three")...)); r.code != 1 {
		t.Errorf("one that was not told to joined them: exit %d\n%s", r.code, r.err)
	}
	second := s.start("responder is ready", s.elsewhere("two", "--unfenced")...)
	if out := s.run("status"); !strings.Contains(out, "UNFENCED") {
		t.Errorf("status says nothing of it:\n%s", out)
	}
	s.add(`{"id":"a","level":"HIGH"}`)
	s.drained(1)
	first.stop()
	second.stop()
	if out := s.run("status"); strings.Contains(out, "UNFENCED") {
		t.Errorf("status still speaks of it:\n%s", out)
	}
}
