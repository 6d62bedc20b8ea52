package main

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// terminalPair opens a pseudo terminal: what a person types into, and what a program reads.
func terminalPair(t *testing.T) (person, program *os.File) {
	t.Helper()
	person, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { person.Close() })
	if err := unix.IoctlSetPointerInt(int(person.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(int(person.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	program, err = os.OpenFile(fmt.Sprint("/dev/pts/", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { program.Close() })
	return person, program
}

// At a terminal nothing is removed unasked.
func TestDeadPurgeAtATerminal(t *testing.T) {
	f := newFleet(t)
	f.letter("a", time.Hour)
	for _, c := range []struct {
		types string
		args  []string
		code  int
		left  int64
		says  string
	}{
		{"n\n", []string{"--all"}, 1, 1, "nothing was removed"},
		{"y\n", []string{"--all"}, 0, 0, "Remove 1 dead letters for good"},
		{"", []string{"--all", "--yes"}, 0, 0, ""},
	} {
		if f.rdb.XLen(f.ctx, "riposte:{h1}:dead:containment").Val() == 0 {
			f.letter("a", time.Minute)
		}
		person, program := terminalPair(t)
		if _, err := person.WriteString(c.types); err != nil {
			t.Fatal(err)
		}
		var out, errw lockedBuffer
		ended := make(chan int, 1)
		go func() {
			args := append(append([]string{"dead", "purge"}, c.args...), f.args...)
			ended <- run(context.Background(), args, func(string) (string, bool) { return "", false }, program, &out, &errw)
		}()
		select {
		case code := <-ended:
			if left := f.rdb.XLen(f.ctx, "riposte:{h1}:dead:containment").Val(); code != c.code || left != c.left || !strings.Contains(errw.String(), c.says) || c.says == "" && errw.String() != "" {
				t.Errorf("%v, %q: exit %d, %d left, %s", c.args, c.types, code, left, errw.String())
			}
		case <-f.ctx.Done():
			t.Fatalf("%v, %q: it waits for more; %s", c.args, c.types, errw.String())
		}
	}
}

// Under systemd, or behind "</dev/null", nobody is there to answer.
func TestNobodyAnswersFromDevNull(t *testing.T) {
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	if terminal(null) {
		t.Errorf("%s passes for a terminal", os.DevNull)
	}
	if _, program := terminalPair(t); !terminal(program) {
		t.Error("a terminal does not pass for one")
	}
}
