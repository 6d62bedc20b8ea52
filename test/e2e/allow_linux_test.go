package e2e_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"riposte/stream/proc"
	"riposte/test/need"
)

// TestAllow adds to the allow-list of a responder that runs: what the list has is not touched any
// more, and a block that it covers is lifted.
func TestAllow(t *testing.T) {
	t.Parallel()
	if !enter(t) {
		return
	}
	s := newSite(t)
	s.as = []string{need.Binary(t, "setsid")} // no terminal, so that a hang-up asks for a reload
	file := filepath.Join(s.dir, "allow.yaml")
	write := func(text string) {
		t.Helper()
		if err := errors.Join(os.WriteFile(file+".new", []byte(text), 0o600), os.Rename(file+".new", file)); err != nil {
			t.Fatal(err)
		}
	}
	write("allow: {}\n")
	responder := s.responder("enforce", "--allow", file)
	says := func(what string, times int) {
		t.Helper()
		until(t, func() string { return "says " + what + ":\n" + responder.err.String() }, func() bool { return strings.Count(responder.err.String(), what) >= times })
	}
	added := int64(0)
	alert := func(id, of string) entry {
		t.Helper()
		s.add(fmt.Sprintf(`{"id":%q,"level":"HIGH","title":"t","timestamp":%q,%s}`, id, isoformat(time.Now()), of))
		added++
		s.drained(added)
		return s.entry(id)
	}
	const own, other = "198.51.100.7", "203.0.113.7"
	for id, address := range map[string]string{"a": own, "b": other} {
		if e := alert(id, fmt.Sprintf(`"source_ip":%q`, address)); e.outcomes() != "block blocked, log logged" || blockedAddresses(t)[address] != id {
			t.Errorf("%+v; the firewall blocks %v", e, blockedAddresses(t))
		}
	}
	exe, err := proc.ReadExe(sleeper(t).pid)
	if err != nil {
		t.Fatal(err)
	}
	write(fmt.Sprintf("allow:\n  processes:\n    - {exe: %s, reason: ours}\n    - {name: x}\n  networks:\n    - {network: 198.51.100.0/24, reason: our own}\n", exe))
	says(`msg="lifted a block of what is protected by now" address=198.51.100.7 reason="198.51.100.7 is allow-listed: our own (198.51.100.0/24)" alerts=[a]`, 1)
	says("allow.yaml:4:7: any process can make itself look like this", 1)
	if blocked := blockedAddresses(t); blocked[own] != "" || blocked[other] != "b" {
		t.Errorf("the firewall blocks %v", blocked)
	}

	// From now on.
	held := func(what string) {
		t.Helper()
		e := alert("address-"+what, fmt.Sprintf(`"source_ip":%q`, own))
		if reason := e.reason("block"); e.outcomes() != "block refused, log logged" || !strings.Contains(reason, "is allow-listed: our own") {
			t.Errorf("%s: %+v", what, e)
		}
		v := sleeper(t)
		e = alert("process-"+what, fmt.Sprintf(`"actionable_pid":%d`, v.pid))
		if reason := e.reason("terminate"); e.outcomes() != "terminate refused, log logged" || !strings.Contains(reason, fmt.Sprintf("PID %d is allow-listed: ours", v.pid)) {
			t.Errorf("%s: %+v", what, e)
		}
		v.untouched()
		if blocked := blockedAddresses(t); blocked[own] != "" {
			t.Errorf("%s: the firewall blocks %v", what, blocked)
		}
	}
	held("with-a-list")
	write("allow: {processes: [{name: ''}]}\n")
	says("allow-list not usable any more; what was read before stays in force", 1)
	held("with-a-list-that-is-not-usable")
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	says("allow-list cannot be looked at; what was read before stays in force", 1)
	held("without-the-file")

	// A hang-up has it read, changed or not.
	write("allow: {}\n")
	says("allow-list read again", 2)
	for range 2 {
		before := strings.Count(responder.err.String(), "allow-list read again")
		if err := responder.cmd.Process.Signal(syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
		says("allow-list read again", before+1)
	}
	v := sleeper(t)
	if e := alert("c", fmt.Sprintf(`"actionable_pid":%d,"source_ip":%q`, v.pid, own)); e.outcomes() != "terminate terminated, block blocked, log logged" {
		t.Errorf("without an entry: %+v", e)
	}
	responder.stop()
}
