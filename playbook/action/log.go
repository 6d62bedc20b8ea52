package action

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"riposte/stream"
)

// LogSpec is the `with` block of log.
type LogSpec struct {
	// Path is the file to append to, absolute; empty means standard output. The file is
	// created with mode 0600; a symbolic link in its place is refused. It is opened for every
	// line, so that it can be rotated by renaming it.
	Path string `yaml:"path"`
}

// Validate implements Spec.
func (s *LogSpec) Validate() error {
	if s.Path != "" && !filepath.IsAbs(s.Path) {
		return fmt.Errorf("path: %q is not absolute; leave it out to write to standard output", s.Path)
	}
	return nil
}

// Resolve implements Spec. There is always something to log.
func (s *LogSpec) Resolve(a *stream.Alert, seen Seen) Effect {
	l := &Log{
		Path:     s.Path,
		Host:     clip(a.Host, maxField),
		Level:    clip(a.Level, maxField),
		Title:    clip(a.Title, maxTitle),
		Rule:     clip(a.Rule.ID, maxField),
		SourceIP: clip(a.SourceIP, maxField),
	}
	if l.Rule == "" {
		l.Rule = clip(a.Rule.Name, maxField)
	}
	if pid, ok := a.PID(); ok {
		l.PID = &pid
	}
	return l
}

// Capabilities implements Spec.
func (s *LogSpec) Capabilities(ownUID bool) []Capability { return nil }

const (
	maxField = 256  // bytes of a field in a line
	maxTitle = 1024 // bytes of the title in a line
)

// Log writes one line of JSON about an alert, with the fields as they were when the step
// was planned.
type Log struct {
	Path     string `json:"path,omitempty"` // empty: Env.Out
	Host     string `json:"host,omitempty"` // empty: the host in Env.Key
	Level    string `json:"level,omitempty"`
	Title    string `json:"title,omitempty"`
	Rule     string `json:"rule,omitempty"` // ID, else name
	PID      *int64 `json:"pid,omitempty"`
	SourceIP string `json:"source_ip,omitempty"`
}

// line is what is written.
type line struct {
	Time     string `json:"time"` // of writing, UTC
	Key      string `json:"key"`  // two lines with one key are one alert's, repeated
	Alert    string `json:"alert"`
	Host     string `json:"host"`
	Level    string `json:"level,omitempty"`
	Title    string `json:"title,omitempty"`
	Rule     string `json:"rule,omitempty"`
	PID      *int64 `json:"pid,omitempty"`
	SourceIP string `json:"source_ip,omitempty"`
}

// Targets implements Effect. Appending needs no turns.
func (l *Log) Targets() []string { return nil }

// Describe implements Effect.
func (l *Log) Describe() string { return "log to " + l.where() }

func (l *Log) where() string {
	if l.Path == "" {
		return "standard output"
	}
	return l.Path
}

// Probe implements Effect. A line cannot be told from its like: it is never in place.
func (l *Log) Probe(ctx context.Context, env Env) (Receipt, bool, error) {
	return Receipt{}, false, nil
}

// Apply implements Effect.
func (l *Log) Apply(ctx context.Context, env Env) (Receipt, error) {
	if err := ctx.Err(); err != nil {
		return Receipt{}, fmt.Errorf("%s: not begun: %w", l.Describe(), err)
	}
	out := line{
		Time: time.Now().UTC().Format("2006-01-02T15:04:05.000000Z07:00"),
		Key:  env.Key, Alert: env.AlertID,
		Host: l.Host, Level: l.Level, Title: l.Title, Rule: l.Rule, PID: l.PID, SourceIP: l.SourceIP,
	}
	if out.Host == "" {
		out.Host, _, _ = strings.Cut(env.Key, "/")
	}
	raw, err := json.Marshal(out)
	if err == nil {
		err = l.write(env.Out, []byte(printable(string(raw))+"\n"))
	}
	if err != nil {
		return Receipt{}, fmt.Errorf("%s: %w", l.Describe(), err)
	}
	return Receipt{Logged, l.where()}, nil
}

// write writes a line in one call, so that lines of several replicas do not mix.
func (l *Log) write(out io.Writer, line []byte) error {
	if l.Path == "" {
		_, err := out.Write(line)
		return err
	}
	file, err := openLog(l.Path)
	if err != nil {
		return err
	}
	return errors.Join(appendLine(file, line), file.Close())
}

// lockPatience is how long a line waits for others to be written. Whoever takes longer is
// frozen, and must not keep everybody waiting.
const lockPatience = time.Second

// appendLine begins a line of its own where a full disk or the death of its writer has cut
// the last one short. Under the lock only one of several replicas does; the lock is freed
// with the file.
func appendLine(file *os.File, line []byte) error {
	lockLog(file, lockPatience)
	st, err := file.Stat()
	if err != nil {
		return err
	}
	if size := st.Size(); size > 0 {
		last := make([]byte, 1)
		if _, err := file.ReadAt(last, size-1); err != nil {
			return err
		}
		if last[0] != '\n' {
			line = append([]byte{'\n'}, line...)
		}
	}
	_, err = file.Write(line)
	return err
}

// openLog opens a regular file for appending. Anything else in its place, a symbolic link
// or a FIFO, may be somebody's way to have Riposte write elsewhere or hang.
func openLog(path string) (*os.File, error) {
	if st, err := os.Lstat(path); err == nil && !st.Mode().IsRegular() {
		return nil, Refuse("%s is not a regular file: %s", path, st.Mode().Type())
	}
	file, err := os.OpenFile(path, os.O_RDWR|os.O_APPEND|os.O_CREATE|noFollow, 0o600)
	if err != nil {
		return nil, err
	}
	st, err := file.Stat()
	if err == nil && !st.Mode().IsRegular() {
		err = Refuse("%s is not a regular file: %s", path, st.Mode().Type())
	}
	if err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return file, nil
}
