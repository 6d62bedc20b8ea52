package action

import (
	"fmt"
	"strings"

	"riposte/stream"
)

// RestoreSpec is the `with` block of restore_file.
type RestoreSpec struct {
	// Path is where the file was, by its absolute path, or alert.process.exe, the default.
	// Only what was quarantined for this very alert is restored, unless Entry is given.
	Path string `yaml:"path" template:"yes"`
	// Entry is the name of a folder in the vault, 64 hex digits, as the reason of the
	// quarantine has it. The file goes to where it was, whatever the alert.
	Entry string `yaml:"entry" template:"yes"`
}

func newRestoreSpec() *RestoreSpec { return &RestoreSpec{Path: processExe} }

// Validate implements Spec.
func (s *RestoreSpec) Validate() error {
	if s.Path != processExe {
		if err := validPath(s.Path); err != nil {
			return fmt.Errorf("path: %w; or %s", err, processExe)
		}
	}
	return validDigest("entry", s.Entry)
}

// Resolve implements Spec. It returns nil where neither the alert nor the spec says what to
// restore.
func (s *RestoreSpec) Resolve(a *stream.Alert, seen Seen) Effect {
	r := &RestoreFile{Path: clip(s.Path, maxPath), Entry: strings.ToLower(clip(s.Entry, 64))}
	if s.Path == processExe {
		r.Path = ""
		if r.Entry == "" {
			r.Path = exeOf(a)
		}
	}
	if r.Path == "" && r.Entry == "" {
		return nil
	}
	return r
}

// TakeFrom implements Wary: a path is one, and not a word of the playbook's.
func (s *RestoreSpec) TakeFrom(field, text string) error {
	if field != "path" {
		return nil
	}
	return validPath(text)
}

// Capabilities implements Spec.
func (s *RestoreSpec) Capabilities(ownUID bool) []Capability {
	if ownUID {
		return nil
	}
	return []Capability{CapChown, CapDACOverride, CapFowner, CapFsetid}
}

// RestoreFile puts a file of the vault back where it was.
type RestoreFile struct {
	Path  string `json:"path,omitempty"`  // where it was
	Entry string `json:"entry,omitempty"` // its folder in the vault; empty is that of this alert and Path
}

// Targets implements Effect.
func (r *RestoreFile) Targets() []string {
	if r.Path == "" {
		return []string{"vault/" + r.Entry}
	}
	return []string{"file/" + r.Path}
}

// Describe implements Effect.
func (r *RestoreFile) Describe() string {
	if r.Path == "" {
		return "restore entry " + clip(r.Entry, 64) + " of the vault"
	}
	return "restore " + quoted(r.Path)
}

// check refuses what Validate would not have let through: the plan may be another's.
func (r *RestoreFile) check() error {
	if r.Path == "" && r.Entry == "" {
		return Refuse("neither a path nor an entry of the vault is given")
	}
	if r.Path != "" {
		if err := validPath(r.Path); err != nil {
			return Refuse("%v", err)
		}
	}
	if err := validDigest("entry", r.Entry); err != nil || strings.ToLower(r.Entry) != r.Entry {
		return Refuse("entry %q is not the name of a folder in the vault: 64 lower-case hex digits", clip(r.Entry, 80))
	}
	return nil
}
