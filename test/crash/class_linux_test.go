package crash

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"riposte/playbook/action"
	"riposte/test/need"
)

// class is one class of actions, with an action of it whose effects can be counted from
// outside.
type class struct {
	name    string
	class   action.Class
	outcome []string // where nothing came in between, or nothing that shows
	inPlace string   // where the effect was in place, and its receipt did not say so
	unsure  string   // where the effect may have begun, and nobody knows
}

var classes = []class{
	{"verifiable", action.Verifiable, []string{"terminated"}, "already_gone", "terminated"},
	{"idempotent", action.Idempotent, []string{"logged"}, "logged", "logged"},
	{"at-most-once", action.AtMostOnce, []string{"ran"}, "unknown", "unknown"},
}

// file is where the effects of a class can be counted.
func (s *scene) file() string { return filepath.Join(s.dir, "effects", "file") }

// steps is the step under test.
func (s *scene) steps() string {
	const retry = ", retry: {attempts: 50, initial: 20ms, max: 100ms}"
	switch s.class.class {
	case action.Verifiable:
		return fmt.Sprintf("{name: act, action: terminate_process, with: {grace: 400ms}, timeout: %v%s}", s.timeout, retry)
	case action.Idempotent:
		return fmt.Sprintf("{name: act, action: log, with: {path: %q}, timeout: %v%s}", s.file(), s.timeout, retry)
	}
	return fmt.Sprintf(`{name: act, action: run_script, with: {argv: [%q, "-c", %q]}, timeout: %v%s}`,
		s.program(), "echo $RIPOSTE_STEP_KEY >> "+s.file(), s.timeout, retry)
}

func (s *scene) program() string { return filepath.Join(s.dir, "program") }

// possible makes the effect possible: until then every attempt at it fails.
func (s *scene) possible(t testing.TB) {
	t.Helper()
	var err error
	switch s.class.class {
	case action.Verifiable:
		s.trickle.open(t)
	case action.Idempotent:
		err = os.Mkdir(filepath.Dir(s.file()), 0o700)
	case action.AtMostOnce:
		if err = os.Mkdir(filepath.Dir(s.file()), 0o700); err == nil {
			err = os.Symlink(need.Binary(t, "sh"), s.program())
		}
	}
	if err != nil {
		t.Fatal(err)
	}
}

// effects counts, from outside, how often the effect happened.
func (s *scene) effects(t testing.TB) int {
	t.Helper()
	if s.class.class == action.Verifiable {
		if s.decoy.dead() {
			return 1
		}
		return 0
	}
	return count(t, s.file(), s.key("act"))
}

// count is how many lines of a file name a key.
func count(t testing.TB, file, key string) (n int) {
	t.Helper()
	raw, err := os.ReadFile(file)
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(raw)) {
		if strings.Contains(line, key) {
			n++
		}
	}
	return n
}

// trickle is a trace that cannot be written until it is opened: a pipe without a reader.
// No effect can be begun by a replica that cannot leave word of it.
type trickle struct {
	reader, writer *os.File
	read           chan []byte // what was written, once the last writer has gone
}

func newTrickle(t testing.TB) *trickle {
	t.Helper()
	reader, writer, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	tr := &trickle{reader: reader, writer: writer}
	t.Cleanup(func() {
		reader.Close()
		writer.Close()
		if tr.read != nil {
			<-tr.read
		}
	})
	return tr
}

// path is where a replica finds it.
func (tr *trickle) path() string {
	return fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), tr.writer.Fd())
}

// shut lets every write fail from now on.
func (tr *trickle) shut() { tr.reader.Close() }

func (tr *trickle) open(t testing.TB) {
	t.Helper()
	reader, err := os.Open(tr.path())
	if err != nil {
		t.Fatal(err)
	}
	tr.read = make(chan []byte, 1)
	go func() {
		defer reader.Close()
		raw, _ := io.ReadAll(reader)
		tr.read <- raw
		close(tr.read)
	}()
}

// all is what was written, after whoever wrote it has gone.
func (tr *trickle) all() []byte {
	tr.writer.Close()
	return <-tr.read
}
