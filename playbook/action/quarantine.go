package action

import (
	"fmt"
	"path"
	"regexp"
	"strings"
	"unicode/utf8"

	"riposte/stream"
)

// processExe is the path of a file that means the executable of the alert's process.
const processExe = "alert.process.exe"

// QuarantineSpec is the `with` block of quarantine_file.
type QuarantineSpec struct {
	// Path is one file, by its absolute path without symbolic links, or alert.process.exe,
	// the default.
	Path string `yaml:"path" template:"yes"`
	// SHA256 is what the content must hash to, in hex, or else nothing is done; empty is any.
	SHA256 string `yaml:"sha256" template:"yes"`
}

// maxFile is how many bytes a file may have that is kept in the vault: 1 GiB.
const maxFile = 1 << 30

// deleted is what the kernel adds to the path of an executable that was unlinked.
const deleted = " (deleted)"

var hexDigest = regexp.MustCompile(`^[0-9a-fA-F]{64}$`)

func newQuarantineSpec() *QuarantineSpec { return &QuarantineSpec{Path: processExe} }

// Validate implements Spec.
func (s *QuarantineSpec) Validate() error {
	if s.Path != processExe {
		if err := validPath(s.Path); err != nil {
			return fmt.Errorf("path: %w; or %s", err, processExe)
		}
	}
	return validDigest("sha256", s.SHA256)
}

func validDigest(field, s string) error {
	if s != "" && !hexDigest.MatchString(s) {
		return fmt.Errorf("%s: %q is not a SHA-256 in hex (64 digits)", field, clip(s, 80))
	}
	return nil
}

// validPath accepts a path that can mean one file only, wherever it is looked at from.
func validPath(file string) error {
	switch {
	case len(file) > maxPath:
		return fmt.Errorf("%q has more than %d bytes", clip(file, 80), maxPath)
	case !strings.HasPrefix(file, "/") || file == "/" || file != path.Clean(file):
		return fmt.Errorf("%q is not the absolute path of a file, without . and .. and needless slashes", clip(file, 80))
	case strings.ContainsRune(file, 0):
		return fmt.Errorf("%q has a NUL", clip(file, 80))
	case !utf8.ValidString(file) || strings.ContainsRune(file, utf8.RuneError): // what JSON makes of other bytes
		return fmt.Errorf("%q is not all UTF-8, and an alert cannot name it otherwise", clip(file, 80))
	}
	return nil
}

// Resolve implements Spec. It returns nil where the alert names no executable and the spec
// no path.
func (s *QuarantineSpec) Resolve(a *stream.Alert, seen Seen) Effect {
	if s.Path != processExe {
		return &QuarantineFile{Path: clip(s.Path, maxPath), SHA256: clip(s.SHA256, 64)}
	}
	q := &QuarantineFile{Path: exeOf(a), SHA256: clip(s.SHA256, 64)}
	if q.Path == "" {
		return nil
	}
	if p, ok := processOf(a, seen); ok {
		q.Process = &p
	}
	return q
}

// exeOf is the path of the alert's executable as it was before it was deleted, if it was.
func exeOf(a *stream.Alert) string {
	if a.Process == nil {
		return ""
	}
	return clip(strings.TrimSuffix(a.Process.Exe, deleted), maxPath)
}

// TakeFrom implements Wary: a path is one, and not a word of the playbook's.
func (s *QuarantineSpec) TakeFrom(field, text string) error {
	if field != "path" {
		return nil
	}
	return validPath(text)
}

// Capabilities implements Spec.
func (s *QuarantineSpec) Capabilities(ownUID bool) []Capability {
	if ownUID {
		return nil
	}
	return []Capability{CapDACOverride, CapFowner, CapSysPtrace}
}

// QuarantineFile moves a file into the vault, where nobody can run it.
type QuarantineFile struct {
	Path    string   `json:"path"`
	SHA256  string   `json:"sha256,omitempty"`
	Process *Process `json:"process,omitempty"` // that runs it, where Path is of its executable
}

var _ Reversible = (*QuarantineFile)(nil)

// Targets implements Effect.
func (q *QuarantineFile) Targets() []string { return []string{"file/" + q.Path} }

// Describe implements Effect.
func (q *QuarantineFile) Describe() string { return "quarantine " + quoted(q.Path) }

// Undo implements Reversible. The alert and the path say which file of the vault it is: see
// RestoreFile.
func (q *QuarantineFile) Undo() (string, Effect) {
	return "restore_file", &RestoreFile{Path: q.Path}
}

// check refuses what Validate would not have let through: the plan may be another's.
func (q *QuarantineFile) check() error {
	if err := validPath(q.Path); err != nil {
		return Refuse("%v", err)
	}
	if err := validDigest("sha256", q.SHA256); err != nil {
		return Refuse("%v", err)
	}
	return nil
}

// quoted is a path for a person, on one line.
func quoted(file string) string { return printable(clip(file, 400)) }
