package e2e_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"testing"
	"unicode"

	"golang.org/x/sys/unix"

	"riposte/stream"
	"riposte/stream/proc"
)

// addNetwork gives the namespace an address, 192.0.2.10/24, a gateway, 192.0.2.1, and a
// resolver, 198.51.100.53.
func addNetwork(t *testing.T) {
	t.Helper()
	for _, args := range [][]string{
		{"link", "add", "net0", "type", "veth", "peer", "name", "net1"},
		{"addr", "add", "192.0.2.10/24", "brd", "+", "dev", "net0"},
		{"link", "set", "net0", "up"},
		{"link", "set", "net1", "up"},
		{"route", "add", "default", "via", "192.0.2.1"},
	} {
		if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
			t.Fatalf("ip %v: %v\n%s", args, err, out)
		}
	}
	resolv := filepath.Join(t.TempDir(), "resolv.conf")
	if err := os.WriteFile(resolv, []byte("nameserver 198.51.100.53\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	cover(t, resolv, "/etc/resolv.conf")
}

// cover puts a file in the place of another one, as far as this mount namespace goes.
func cover(t *testing.T, file, place string) (resolved string) {
	t.Helper()
	place, err := filepath.EvalSymlinks(place)
	if err == nil {
		err = unix.Mount(file, place, "", unix.MS_BIND, "")
	}
	if err != nil {
		t.Fatal(err)
	}
	return place
}

// watchShells returns what tells which shells have been opened since, by whom it may be.
// The shells of the namespace are made copies, so that nobody else opens them.
func watchShells(t *testing.T) (used func() []string) {
	t.Helper()
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	var watched []string
	for _, shell := range []string{"/bin/sh", "/bin/dash", "/bin/bash"} {
		real, err := filepath.EvalSymlinks(shell)
		if err != nil || slices.Contains(watched, real) {
			continue
		}
		program, err := os.ReadFile(real)
		if err != nil {
			t.Fatal(err)
		}
		copied := filepath.Join(t.TempDir(), "shell")
		if err := os.WriteFile(copied, program, 0o755); err != nil {
			t.Fatal(err)
		}
		watched = append(watched, cover(t, copied, real))
		if _, err := unix.InotifyAddWatch(fd, real, unix.IN_OPEN); err != nil {
			t.Fatal(err)
		}
	}
	events := func() int {
		n, err := unix.Read(fd, make([]byte, 4096))
		if err != nil && err != unix.EAGAIN {
			t.Fatal(err)
		}
		return n
	}
	return func() []string {
		t.Helper()
		if events() > 0 {
			return watched
		}
		if err := exec.Command("sh", "-c", "exit 0").Run(); err != nil || events() <= 0 {
			t.Errorf("a shell is used without notice: %v", err)
		}
		return nil
	}
}

// goneProcess is the PID of a process that has been.
func goneProcess(t *testing.T) int {
	t.Helper()
	cmd := exec.Command("true")
	if err := cmd.Run(); err != nil {
		t.Fatal(err)
	}
	return cmd.Process.Pid
}

// zombieProcess is the PID of a process that has ended and that nobody has waited for.
func zombieProcess(t *testing.T) int {
	t.Helper()
	cmd := exec.Command("true")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Wait() })
	until(t, func() string { return "is a zombie" }, func() bool {
		st, err := proc.ReadStat(cmd.Process.Pid)
		return err == nil && st.Zombie()
	})
	return cmd.Process.Pid
}

// obeyed is what a terminal does not show but obeys, and what hides or reorders text.
func obeyed(r rune) bool { return r != '\n' && !unicode.IsGraphic(r) }

// letter is a dead letter, as redis-cli XRANGE shows it.
type letter struct {
	reason, sha256, raw string
	length              int
}

// deadLetters are the dead letters by the stream entry they came in.
func (s *site) deadLetters() map[string]letter {
	s.t.Helper()
	found, err := s.rdb.XRange(s.t.Context(), host.DeadKey(stream.DefaultGroup), "-", "+").Result()
	if err != nil {
		s.t.Fatal(err)
	}
	letters := map[string]letter{}
	for _, m := range found {
		text := func(name string) string { v, _ := m.Values[name].(string); return v }
		length, err := strconv.Atoi(text("length"))
		if err != nil {
			s.t.Errorf("length of a dead letter: %v", err)
		}
		if _, twice := letters[text("entry")]; twice {
			s.t.Errorf("two dead letters of %s", text("entry"))
		}
		letters[text("entry")] = letter{text("reason"), text("sha256"), text("raw"), length}
	}
	return letters
}
