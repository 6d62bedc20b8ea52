package main

import (
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// A file that changes without a trace in its size and time, as those of a package store do, is
// read again all the same; one that nobody has touched is not.
func TestChangedFiles(t *testing.T) {
	t.Parallel()
	dir, log := t.TempDir(), slog.New(slog.DiscardHandler)
	book := filepath.Join(dir, "a.yaml")
	write := func(text string) {
		if err := os.WriteFile(book, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(book, time.Unix(1, 0), time.Unix(1, 0)); err != nil {
			t.Fatal(err)
		}
	}
	write("mode: enforce")
	for _, path := range []string{dir, book} {
		write("mode: enforce")
		s := newSource("playbooks", path)
		want := func(what string, answers ...bool) {
			for i, want := range answers {
				if got := s.changed(log); got != want {
					t.Errorf("%s, %s: changed: %v at look %d, want %v", path, what, got, i, want)
				}
			}
		}
		want("left alone", false, false)
		write("mode: observe")
		want("rewritten, and read once it stays so", false, true, false)
	}
}
