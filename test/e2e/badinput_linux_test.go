package e2e_test

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"riposte/stream"
	"riposte/stream/proc"
)

// TestBadInput gives two replicas everything at once that should not be acted on, or not
// twice, and looks at what became of each; then whether they still do their work, and
// whether anything else was touched.
func TestBadInput(t *testing.T) {
	t.Parallel()
	if !enter(t) {
		return
	}
	addNetwork(t)
	shells := watchShells(t)
	s := newSite(t)
	replicas := []*daemon{s.responder("enforce"), s.responder("enforce")}
	others := sleeper(t)    // that nothing ever happens to
	bystander := sleeper(t) // that nearly everything names
	b, ticks := bystander.pid, bystander.stat().StartTicks
	started, err := bystander.stat().StartTime()
	if err != nil {
		t.Fatal(err)
	}
	sentinel := filepath.Join(s.dir, "a-shell-was-here")
	boot, err := proc.BootID()
	if err != nil {
		t.Fatal(err)
	}
	before := isoformat(started.Add(-3 * time.Second))
	added := int64(0)

	// alert is one with a time that does not matter, unless it is among the fields.
	alert := func(id, fields string) string {
		at := ""
		if !strings.Contains(fields, `"timestamp"`) {
			at = fmt.Sprintf(`"timestamp":%q,`, isoformat(time.Now()))
		}
		level := ""
		if !strings.Contains(fields, `"level"`) {
			level = `"level":"HIGH",`
		}
		return fmt.Sprintf(`{"id":%q,%s"title":"t",%s%s}`, id, level, at, fields)
	}

	// What is an alert, but must not be acted on.
	all := func(outcome string) string { return "terminate " + outcome + ", log " + outcome }
	const refused, unfit, noMatch = "terminate refused, log logged", "block refused, log logged", "- no_match"
	gone, zombie := goneProcess(t), zombieProcess(t)
	settled := []struct {
		what, fields, outcomes, reason string
	}{
		{"PID 0", `"actionable_pid":0`, refused, "PID 0 is not one to act on: want 2 to 4194303"},
		{"PID 1", `"actionable_pid":1`, refused, "PID 1 is not one to act on"},
		{"PID -1", `"actionable_pid":-1`, refused, "PID -1 is not one to act on"},
		{"PID 2^22", `"actionable_pid":4194304`, refused, "PID 4194304 is not one to act on"},
		{"PID 2^31", `"actionable_pid":2147483648`, refused, "PID 2147483648 is not one to act on"},
		{"PID of the process alone", `"process":{"pid":1}`, refused, "PID 1 is not one to act on"},
		// Whichever replica gets these, one is its own PID and one its peer's.
		{"a replica", fmt.Sprintf(`"actionable_pid":%d`, replicas[0].cmd.Process.Pid), refused, "is a process of Riposte"},
		{"the other replica", fmt.Sprintf(`"actionable_pid":%d`, replicas[1].cmd.Process.Pid), refused, "is a process of Riposte"},
		{"their ancestor", fmt.Sprintf(`"actionable_pid":%d`, os.Getpid()), refused, "is an ancestor of Riposte"},
		{"the Redis server", fmt.Sprintf(`"actionable_pid":%d`, s.redis.PID()), refused, "is the Redis server"},
		{"a PID that was reused, by its start", fmt.Sprintf(`"process":{"pid":%d,"start_ticks":%d}`, b, ticks+1), refused, "was reused: the alert's process started at tick"},
		{"a PID that was reused, by the alert's time", fmt.Sprintf(`"actionable_pid":%d,"timestamp":%q`, b, before), refused, "was reused: this process started"},
		{"another name", fmt.Sprintf(`"process":{"pid":%d,"name":"bash"}`, b), refused, `it is "sleep", the alert says "bash"`},
		{"another executable", fmt.Sprintf(`"process":{"pid":%d,"exe":"/bin/bash"}`, b), refused, `the alert says "/bin/bash"`},
		{"another process than it describes", fmt.Sprintf(`"actionable_pid":%d,"process":{"pid":%d,"start_ticks":%d}`, others.pid, b, ticks), refused, "contradicts itself"},
		{"another boot", fmt.Sprintf(`"process":{"pid":%d,"start_ticks":%d,"boot_id":"00000000-0000-0000-0000-000000000000"}`, b, ticks), refused, "is of another boot"},
		{"another PID namespace", fmt.Sprintf(`"process":{"pid":%d,"start_ticks":%d,"boot_id":%q,"pid_ns":%d}`, b, ticks, boot, proc.InitialPIDNamespace), refused, "is numbered in PID namespace 4026531836"},
		{"another host", fmt.Sprintf(`"host":"h2","actionable_pid":%d`, b), all("refused"), `the alert is about host "h2", this is "h1"`},
		{"a zombie", fmt.Sprintf(`"actionable_pid":%d`, zombie), "terminate already_gone, log logged", "had exited before"},
		{"a process that is gone", fmt.Sprintf(`"actionable_pid":%d`, gone), "terminate already_gone, log logged", "had exited before"},

		{"an address with a command", `"source_ip":"1.2.3.4; rm -rf /"`, unfit, `"1.2.3.4; rm -rf /" is not an IP address`},
		{"an address with another command", fmt.Sprintf(`"source_ip":"$(touch %s)"`, sentinel), unfit, "is not an IP address"},
		{"an address with an option", `"source_ip":"-j ACCEPT"`, unfit, "is not an IP address"},
		{"every address", `"source_ip":"0.0.0.0/0"`, unfit, "is a network"},
		{"no address", `"source_ip":"0.0.0.0"`, unfit, "is unspecified"},
		{"loopback", `"source_ip":"127.0.0.1"`, unfit, "is loopback"},
		{"loopback as IPv6", `"source_ip":"::ffff:127.0.0.1"`, unfit, "127.0.0.1 is loopback"},
		{"loopback of IPv6", `"source_ip":"::1"`, unfit, "is loopback"},
		{"loopback behind a translator", `"source_ip":"64:ff9b::7f00:1"`, unfit, "stands for 127.0.0.1, which is loopback"},
		{"link-local", `"source_ip":"169.254.1.1"`, unfit, "is link-local"},
		{"link-local with a zone", `"source_ip":"fe80::1%lo"`, unfit, "has a zone"},
		{"multicast", `"source_ip":"224.0.0.1"`, unfit, "is multicast"},
		{"broadcast", `"source_ip":"255.255.255.255"`, unfit, "is broadcast"},
		{"broadcast of the own network", `"source_ip":"192.0.2.255"`, unfit, "is the broadcast address"},
		{"the host's own address", `"source_ip":"192.0.2.10"`, unfit, "is this host's own"},
		{"the gateway", `"source_ip":"192.0.2.1"`, unfit, "is a gateway"},
		{"the resolver", `"source_ip":"198.51.100.53"`, unfit, "is a resolver"},
		{"the resolver as IPv6", `"source_ip":"::ffff:198.51.100.53"`, unfit, "is a resolver"},

		{"an hour old", fmt.Sprintf(`"actionable_pid":%d,"timestamp":%q`, b, isoformat(time.Now().Add(-time.Hour))), all("expired"), "it was to be done before "},
		{"of tomorrow", fmt.Sprintf(`"actionable_pid":%d,"timestamp":%q`, b, isoformat(time.Now().Add(24*time.Hour))), all("refused"), "in the future; if it was written without a zone, set --timezone"},
		{"of the end of time", fmt.Sprintf(`"actionable_pid":%d,"timestamp":"9999-12-31T23:59:59Z"`, b), all("refused"), "in the future"},
		{"of a zone that cannot be written", fmt.Sprintf(`"actionable_pid":%d,"timestamp":"2025-01-01T00:00:00+24:00"`, b), all("expired"), "it was to be done before "},
		{"of the year nought", fmt.Sprintf(`"actionable_pid":%d,"timestamp":"0000-01-01T00:00:00Z"`, b), all("expired"), "it was to be done before "},
		{"of no time", fmt.Sprintf(`"actionable_pid":%d,"timestamp":"half past nine"`, b), all("refused"), `timestamp "half past nine" is not RFC 3339`},
		{"of a time that does not exist", fmt.Sprintf(`"actionable_pid":%d,"timestamp":"2026-02-30T00:00:00"`, b), all("refused"), "is not RFC 3339"},

		{"an unknown level", fmt.Sprintf(`"level":"URGENT","actionable_pid":%d`, b), noMatch, "no playbook matches"},
		{"a level in small letters", fmt.Sprintf(`"level":"high","actionable_pid":%d`, b), noMatch, "no playbook matches"},
		{"nothing to act on", `"details":{}`, noMatch, "names nothing to act on"},
		{"nothing to act on, said so", `"actionable_pid":null,"source_ip":null,"process":null`, noMatch, "names nothing to act on"},
		{"an unknown field only", fmt.Sprintf(`"ACTIONABLE_PID":%d`, b), noMatch, "names nothing to act on"},
		{"bytes that are no text", "\"actionable_pid\":0,\"description\":\"\xff\xfe\"", refused, "PID 0 is not"},
	}
	idFor := func(what string) string {
		return "row-" + strings.NewReplacer(" ", "-", ",", "", "^", "-", "'", "").Replace(what)
	}
	for _, c := range settled {
		s.add(alert(idFor(c.what), c.fields))
		added++
	}

	// What is no alert.
	deep := func(n int) string { return strings.Repeat("[", n) + strings.Repeat("]", n) }
	fine := alert("x", `"actionable_pid":`+strconv.Itoa(b))
	dead := []struct {
		what    string
		entry   []any // fields of the stream entry
		raw     string
		reason  string
		isAlert string // the entry, where it is no more than this
	}{
		{what: "not JSON", isAlert: "format c:", reason: "not a JSON object: invalid character"},
		{what: "what a terminal obeys", isAlert: "\x1b]0;owned\a\x1b[2J\r\n\u009b31m\x9b31m\x7f\u202e\U000e0001", reason: "not a JSON object: invalid character"},
		{what: "half of an alert", isAlert: fine[:len(fine)-1], reason: "unexpected end of JSON input"},
		{what: "two alerts", isAlert: fine + fine, reason: "invalid character '{' after top-level value"},
		{what: "null", isAlert: "null", reason: "not a JSON object: null"},
		{what: "a list", isAlert: "[" + fine + "]", reason: "not a JSON object"},
		{what: "an empty field", entry: []any{"alert", ""}, reason: `the entry has no field "alert"`},
		{what: "another field", entry: []any{"alarm", fine}, reason: `the entry has no field "alert"`},
		{what: "10 MB", isAlert: alert("x", `"description":"`+strings.Repeat("A", 10<<20)+`"`), reason: "bytes, more than 1048576"},
		{what: "depth 10,000", isAlert: alert("x", `"details":`+deep(10_000)), reason: "nested deeper than 32"},
		{what: "depth 33", isAlert: alert("x", `"details":`+deep(32)), reason: "nested deeper than 32"},
		{what: "a PID as text", isAlert: alert("x", `"actionable_pid":"1234"`), reason: `field "actionable_pid": json: cannot unmarshal string`},
		{what: "a PID with a fraction", isAlert: alert("x", `"actionable_pid":1234.5`), reason: `field "actionable_pid": json: cannot unmarshal number 1234.5`},
		{what: "a PID beyond all numbers", isAlert: alert("x", `"actionable_pid":1e30`), reason: `field "actionable_pid"`},
		{what: "a PID that is true", isAlert: alert("x", `"actionable_pid":true`), reason: `field "actionable_pid"`},
		{what: "a title that is a number", isAlert: `{"id":"x","level":"HIGH","title":7,"actionable_pid":0}`, reason: `field "title": json: cannot unmarshal number`},
		{what: "a timestamp that is a number", isAlert: alert("x", `"timestamp":1767225600`), reason: `field "timestamp"`},
		{what: "a source_ip that is a list", isAlert: alert("x", `"source_ip":["192.0.2.1"]`), reason: `field "source_ip"`},
		{what: "a process that is a PID", isAlert: alert("x", `"process":4711`), reason: `field "process"`},
		{what: "a negative start", isAlert: alert("x", `"process":{"pid":4711,"start_ticks":-1}`), reason: `field "process"`},
		{what: "an ID with a space", isAlert: `{"id":"a b","level":"HIGH"}`, reason: `alert ID "a b": want 1 to 128 of`},
		{what: "an ID of Riposte's own", isAlert: `{"id":"a~b","level":"HIGH"}`, reason: `alert ID "a~b": want`},
		{what: "an ID too long", isAlert: `{"id":"` + strings.Repeat("a", 129) + `","level":"HIGH"}`, reason: "alert ID "},
		{what: "an ID that moves the cursor", isAlert: `{"id":"\u001b[2J\u009b2J","level":"HIGH"}`, reason: `alert ID "\x1b[2J\u009b2J": want`},
		{what: "an ID that is a number", isAlert: `{"id":7,"level":"HIGH"}`, reason: `field "id"`},
		{what: "an ID beside the alert", entry: []any{"id", "a/b", "alert", `{"level":"HIGH"}`}, raw: `{"level":"HIGH"}`, reason: `alert ID "a/b": want`},
		{what: "a host with a brace", isAlert: alert("x", `"host":"a}:b"`), reason: `host "a}:b": want`},
	}
	entryOf := map[string]string{}
	for i, c := range dead {
		if c.isAlert != "" {
			dead[i].raw, dead[i].entry = c.isAlert, []any{"alert", c.isAlert}
		}
		entryOf[c.what] = s.xadd(dead[i].entry...)
		added++
	}

	// What is an alert, once.
	copied, masked, masking := sleeper(t), sleeper(t), sleeper(t)
	at := isoformat(time.Now())
	for range 100 {
		s.add(fmt.Sprintf(`{"id":"copied","level":"HIGH","title":"t","timestamp":%q,"actionable_pid":%d}`, at, copied.pid))
		added++
	}
	for _, v := range []victim{masking, masked, masking} {
		s.add(alert("taken", `"actionable_pid":`+strconv.Itoa(v.pid)))
		added++
	}
	hostileEntry := entryOf["what a terminal obeys"]
	hostile := `\u001b]0;owned\u0007\u001b[2J\r\nlevel=INFO msg=\"all is well\"\u009b31m\u007f\u202e`
	s.add(alert("hostile", `"title":"`+hostile+`","rule":{"id":"`+hostile+`"},"source_ip":"`+hostile+`"`))
	added++

	s.drained(added)
	entries := map[string]entry{}
	for _, e := range s.ledger() {
		entries[e.ID] = e
	}
	for _, c := range settled {
		e := entries[idFor(c.what)]
		if e.State != "done" || e.outcomes() != c.outcomes || !strings.Contains(e.Steps[0].Reason, c.reason) || e.Duplicates != 0 || len(e.Flags) != 0 {
			t.Errorf("%s: want %s: %s\ngot %+v", c.what, c.outcomes, c.reason, e)
		}
	}
	letters := s.deadLetters()
	for _, c := range dead {
		e, l := entries[string(stream.EntryID(entryOf[c.what]))], letters[entryOf[c.what]]
		if e.State != "dead" || e.outcomes() != "bury dead" {
			t.Errorf("%s: %+v", c.what, e)
		}
		sum := sha256.Sum256([]byte(c.raw))
		if !strings.Contains(l.reason, c.reason) || l.length != len(c.raw) || l.sha256 != hex.EncodeToString(sum[:]) || l.raw != c.raw[:min(len(c.raw), 64<<10)] {
			l.raw = l.raw[:min(len(l.raw), 100)]
			t.Errorf("%s: want %s, %d bytes\ngot %+v", c.what, c.reason, len(c.raw), l)
		}
	}
	if len(letters) != len(dead) {
		t.Errorf("%d dead letters, want %d", len(letters), len(dead))
	}

	if e := entries["copied"]; e.outcomes() != "terminate terminated, log logged" || e.Duplicates != 99 {
		t.Errorf("100 copies: %+v", e)
	}
	conflicts := slices.DeleteFunc(s.ledger(), func(e entry) bool { return !strings.HasPrefix(e.ID, "taken~") })
	if e := entries["taken"]; e.outcomes() != "terminate terminated, log logged" || len(e.Flags) != 0 {
		t.Errorf("the first under its ID: %+v", e)
	}
	if len(conflicts) != 1 || conflicts[0].outcomes() != "terminate terminated, log logged" || !slices.Equal(conflicts[0].Flags, []string{"id_conflict"}) ||
		conflicts[0].Duplicates+entries["taken"].Duplicates != 1 {
		t.Errorf("another alert under the same ID: %+v and %+v", entries["taken"], conflicts)
	}
	for _, v := range []victim{copied, masked, masking} {
		if sig := v.endedBy(); sig != syscall.SIGTERM {
			t.Errorf("ended by %v", sig)
		}
	}

	if e := entries["hostile"]; e.outcomes() != unfit {
		t.Errorf("%+v", e)
	}
	said := map[string]string{}
	for _, args := range [][]string{
		{"ledger", "list"}, {"ledger", "show", "hostile"}, {"ledger", "show", "entry~" + hostileEntry}, {"ledger", "tail", "-n", "1000"},
		{"dead", "list"}, {"dead", "show", "entry~" + hostileEntry}, {"status"},
		{"ledger", "audit", "--runtime-dir", filepath.Join(s.dir, "run"), "--state-dir", filepath.Join(s.dir, "state")},
	} {
		said["riposte "+strings.Join(args, " ")] = s.run(args...)
		args = append(args, "-o", "json")
		said["riposte "+strings.Join(args, " ")] = s.run(args...)
	}
	for i, r := range replicas {
		said[fmt.Sprint("standard output of replica ", i)] = r.out.String()
		said[fmt.Sprint("log of replica ", i)] = r.err.String()
	}
	for what, text := range said {
		if at := strings.IndexFunc(text, obeyed); at >= 0 {
			t.Errorf("%s would do something to a terminal: %q", what, text[max(0, at-100):min(len(text), at+20)])
		}
	}

	// And all goes on as if nothing had happened.
	v := sleeper(t)
	s.add(v.alert("after all that"))
	if sig := v.endedBy(); sig != syscall.SIGTERM {
		t.Errorf("ended by %v", sig)
	}
	s.drained(added + 1)
	bystander.untouched()
	others.untouched()
	if blocked := blockedAddresses(t); blocked != nil {
		t.Errorf("the firewall blocks %v", blocked)
	}
	if err := s.rdb.Ping(t.Context()).Err(); err != nil {
		t.Error(err)
	}
	if used := shells(); len(used) > 0 {
		t.Errorf("shells were used: %v", used)
	}
	if _, err := os.Stat(sentinel); !os.IsNotExist(err) {
		t.Errorf("%s: %v", sentinel, err)
	}
	for _, r := range replicas {
		r.stop()
	}
}
