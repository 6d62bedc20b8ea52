package action_test

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"riposte/playbook/action"
	"riposte/test/namespace"
)

// What a full disk has cut short is an error, and not the beginning of the next line.
func TestLogFullDisk(t *testing.T) {
	if !namespace.Enter(t) {
		return
	}
	disk := t.TempDir()
	command(t, "mount", "-t", "tmpfs", "-o", "size=4k", "none", disk)
	defer command(t, "umount", disk)
	log := &action.Log{Path: filepath.Join(disk, "alerts.ndjson"), Title: strings.Repeat("x", 1000)}
	written := 0
	for ; ; written++ {
		_, err := log.Apply(t.Context(), logEnv(nil))
		if errors.Is(err, unix.ENOSPC) {
			break
		}
		if err != nil || written > 100 {
			t.Fatalf("after %d lines: %v", written, err)
		}
	}
	command(t, "mount", "-o", "remount,size=64k", disk)
	for range 2 {
		apply(t, log, logEnv(nil))
	}
	raw, err := os.ReadFile(log.Path)
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSuffix(string(raw), "\n"), "\n")
	if len(lines) != written+3 {
		t.Errorf("%d lines after %d whole ones, one that was cut and two more:\n%s", len(lines), written, raw)
	}
	for i, line := range lines {
		if whole := json.Valid([]byte(line)); whole == (i == written) {
			t.Errorf("line %d: %q", i+1, line)
		}
	}
}

// A replica that is frozen while it writes must not keep the others from it.
func TestLogBesideFrozen(t *testing.T) {
	path := filepath.Join(t.TempDir(), "alerts.ndjson")
	frozen, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer frozen.Close()
	if err := unix.Flock(int(frozen.Fd()), unix.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() {
		_, err := (&action.Log{Path: path}).Apply(t.Context(), logEnv(nil))
		done <- err
	}()
	select {
	case err := <-done:
		if lines := logLines(t, path); err != nil || !json.Valid([]byte(lines[0])) {
			t.Errorf("%v, %q", err, lines)
		}
	case <-time.After(30 * time.Second):
		t.Error("it waits for who has the lock")
	}
}
