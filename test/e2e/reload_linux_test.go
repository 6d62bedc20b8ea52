package e2e_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"riposte/stream"
)

// TestReload: playbooks that change are read again, whole or not at all, and what was begun
// keeps its plan; SIGHUP asks for it, and ends nothing.
func TestReload(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	books := s.playbooks("name: one\nmatch: \"true\"\nsteps: [{name: s, action: log}]\n")
	file := filepath.Join(books, "book.yaml")
	d := s.responder("enforce", "--playbooks", books)
	step := func(id string) string {
		t.Helper()
		s.add(fmt.Sprintf(`{"id":%q,"level":"HIGH"}`, id))
		var name string
		until(t, func() string { return "settles " + id }, func() bool {
			raw, err := s.rdb.Get(t.Context(), host.LedgerKey(stream.DefaultGroup, stream.AlertID(id))).Result()
			if err != nil || !strings.HasPrefix(raw, "done ") {
				return false
			}
			_, rest, _ := strings.Cut(raw, `"playbook":"`)
			name, _, _ = strings.Cut(rest, `"`)
			return true
		})
		return name
	}
	said := func(what string, times int) {
		t.Helper()
		until(t, func() string { return "says " + what + ":\n" + d.err.String() }, func() bool { return strings.Count(d.err.String(), what) >= times })
	}
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(file+".new", []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(file+".new", file); err != nil {
			t.Fatal(err)
		}
	}
	if got := step("a"); got != "one" {
		t.Errorf("at first: %s", got)
	}
	write("name: two\nmatch: \"true\"\nsteps: [{name: s, action: log}]\n")
	said("names=two@", 1)
	if got := step("b"); got != "two" {
		t.Errorf("after the change: %s", got)
	}
	write("name: three\nmatch: alert.levle\nsteps: [{name: s, action: log}]\n")
	said("not usable", 1)
	if got := step("c"); got != "two" {
		t.Errorf("with an error in it: %s", got)
	}
	write("name: four\nmatch: \"true\"\nsteps: [{name: s, action: log}]\n")
	said("names=four@", 1)
	if err := d.cmd.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	said("names=four@", 2)
	if got := step("d"); got != "four" {
		t.Errorf("after SIGHUP: %s", got)
	}
	d.stop()
}
