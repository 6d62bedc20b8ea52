package e2e_test

import (
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"unicode"

	"github.com/redis/go-redis/v9"
	"golang.org/x/sys/unix"

	"riposte/playbook/judge"
	"riposte/stream"
	"riposte/stream/proc"
	"riposte/test/need"
)

// acting are the steps of the playbooks that the alerts of testdata/adversary.txt name, each
// in their source. What a playbook does is its step act.
var acting = map[string]string{
	"stop":    `{name: act, action: terminate_process, with: {grace: 5s}}`,
	"tree":    `{name: act, action: terminate_process, with: {tree: true}}`,
	"parent":  `{name: act, action: terminate_process, with: {target: parent, grace: 5s}}`,
	"family":  `{name: act, action: terminate_process, with: {target: parent, tree: true}}`,
	"suspend": `{name: act, action: suspend_process}`,
	"halt":    `{name: act, action: suspend_process, with: {target: parent}}`,
	"block":   `{name: act, action: block_ip}`,
	"fill":    `{name: act, action: block_ip, with: {address: "{{ alert.details.address }}"}}`,
	"last":    `{name: act, action: block_ip, with: {address: "198.51.100.{{ alert.details.last }}"}}`,
	"late":    `{name: act, action: block_ip, with: {address: '{{ steps.log.ok ? alert.details.address : "" }}'}}`,
	"note":    `{name: act, action: log, with: {path: LOG}}`,
	"hide":    `{name: act, action: quarantine_file, with: {path: "{{ alert.details.path }}"}}`,
	"plain":   `{name: act, action: terminate_process}`,
	"flood":   `{name: act, action: terminate_process, with: {grace: 5s}}`,
	// Each of these appends what it was given, as the kernel tells it, in one write.
	"script": `{name: act, action: run_script, with: {argv: ["DD", "if=/proc/self/cmdline", "of=ARGV", "oflag=append", "conv=notrunc", "bs=1M", "status=none"]}}
  - {name: environ, action: run_script, with: {argv: ["DD", "if=/proc/self/environ", "of=ENVIRON", "oflag=append", "conv=notrunc", "bs=1M", "status=none"]}}
  - {name: input, action: run_script, with: {argv: ["DD", "of=INPUT", "oflag=append", "conv=notrunc", "bs=1M", "iflag=fullblock", "status=none"]}}`,
}

// harmful are the actions that could do harm.
var harmful = []string{"terminate_process", "suspend_process", "resume_process", "block_ip", "unblock_ip", "quarantine_file", "restore_file", "run_script"}

// TestAdversary gives three replicas some hundred alerts that try to make them a weapon: to end
// what the host or Riposte itself lives by, whoever has the PID by now, or everybody at once; to
// cut the host off; to run what an alert says. Nobody is harmed, every alert has one end, which
// says why, and what is to be acted on among them is acted on.
func TestAdversary(t *testing.T) {
	t.Parallel()
	if !enter(t) {
		return
	}
	addNetwork(t)
	for _, args := range []string{"addr add 2001:db8:1::10/64 dev net0 nodad", "route add default via 2001:db8:1::1"} {
		if out, err := exec.Command("ip", append([]string{"-6"}, strings.Fields(args)...)...).CombinedOutput(); err != nil {
			t.Fatalf("ip -6 %s: %v\n%s", args, err, out)
		}
	}
	w := newSiege(t)
	w.processes()
	flood := make([]victim, 50)
	for i := range flood {
		flood[i] = sleeper(t)
	}
	kept := w.keep("a", "b/c")
	w.lay()

	books, trace := w.acting(), filepath.Join(w.dir, "trace")
	flags := []string{"--playbooks", books, "--trace", trace}
	w.as = []string{"sh", "-c", `"$@" & wait`, "launcher"}
	launcher := w.responder("enforce", flags...)
	w.as = nil
	third := w.child(launcher.cmd.Process.Pid, "riposte")
	t.Cleanup(func() { _ = unix.Kill(third, syscall.SIGKILL) }) // it holds the output of its launcher
	shells := watchShells(t)
	one, two := w.responder("enforce", flags...), w.responder("enforce", flags...)
	for name, pid := range map[string]int{"one": one.cmd.Process.Pid, "two": two.cmd.Process.Pid, "third": third} {
		w.protect(name, pid, "is a process of Riposte")
	}
	w.protect("launcher", launcher.cmd.Process.Pid, "is an ancestor of Riposte")
	w.words["thread"] = w.thread(one.cmd.Process.Pid)

	attacks := append(w.read("testdata/adversary.txt"), w.forged()...)
	const seed = 1
	rand.New(rand.NewPCG(seed, seed)).Shuffle(len(attacks), func(i, j int) { attacks[i], attacks[j] = attacks[j], attacks[i] })
	half := len(attacks) / 2
	for i := range attacks[:half] {
		w.publish(&attacks[i])
	}
	attacks = append(attacks, w.races(20)...) // while the others are at work on
	for i := range attacks[half : len(attacks)-20] {
		w.publish(&attacks[half+i])
	}
	w.flood(flood)
	w.drained(int64(len(attacks) + len(flood) + 1)) // one tells of the breaker

	entries, letters := map[string]entry{}, w.deadLetters()
	for _, e := range w.ledger() {
		entries[e.ID] = e
	}
	tally := map[string]int{}
	for _, a := range attacks {
		tally[w.judge(a, entries, letters)]++
	}
	if len(attacks) < 200 {
		t.Errorf("only %d alerts", len(attacks))
	}
	if want := len(attacks) + len(flood) + 1; len(entries) != want || len(letters) != tally[dead] {
		t.Errorf("%d entries in the ledger for %d alerts, %d dead letters for %d", len(entries), want, len(letters), tally[dead])
	}

	harmed := 0
	for _, p := range w.safe {
		if what := p.disturbed(); what != "" {
			t.Errorf("%s, PID %d: %s", p.name, p.pid, what)
			harmed++
		}
	}
	for _, v := range w.prey {
		v.endedBy()
	}
	for _, v := range w.caught {
		if st := v.stat(); st.State != 'T' {
			t.Errorf("PID %d is not stopped but in state %c", v.pid, st.State)
		}
	}
	w.flooded(flood, entries)
	w.begun(attacks, trace)
	var blocks []string
	for _, a := range attacks {
		if a.outcomes[0] == "blocked" {
			address, _, _ := strings.Cut(a.reason, ",")
			blocks = append(blocks, address)
		}
	}
	if got := slices.Sorted(maps.Keys(blockedAddresses(t))); !slices.Equal(got, slices.Sorted(slices.Values(blocks))) || len(got) == 0 {
		t.Errorf("the firewall blocks %v, want %v", got, blocks)
	}
	w.scripts(attacks, entries)
	w.lines(entries)
	if again := w.keep(); !maps.Equal(kept, again) {
		t.Errorf("files were changed: %x, now %x", kept, again)
	}
	if used := shells(); len(used) > 0 {
		t.Errorf("shells were used: %v", used)
	}
	w.onlyOwnKeys()
	w.run(append([]string{"ledger", "audit"}, w.folders()...)...)
	t.Logf("%d alerts and a flood of %d, %d of %d protected or innocent processes harmed, %d refusals; outcomes %v",
		len(attacks), len(flood), harmed, len(w.safe), tally["refused"], tally)

	one.stop()
	two.stop()
	_ = unix.Kill(third, syscall.SIGTERM)
	<-launcher.gone
}

// acting writes the playbooks.
func (w *siege) acting() (dir string) {
	w.t.Helper()
	dir = filepath.Join(w.dir, "acting")
	if err := os.Mkdir(dir, 0o700); err != nil {
		w.t.Fatal(err)
	}
	files := strings.NewReplacer("LOG", w.log, "DD", need.Binary(w.t, "dd"), "ARGV", w.recorded("argv"), "ENVIRON", w.recorded("environ"), "INPUT", w.recorded("input"))
	for name, act := range acting {
		steps, match, limits := []string{act, `{name: log, action: log, with: {path: LOG}}`}, "true", ""
		switch name {
		case "late": // it asks how its first step went
			slices.Reverse(steps)
		case "plain":
			match = `alert.level in ["HIGH", "CRITICAL"]`
		case "flood":
			limits = "limits:\n  breakers:\n    - {per: host, most: 5, within: 1m}\n"
		}
		text := fmt.Sprintf("name: %s\nmatch: alert.source == %[1]q && %s\nsteps:\n  - %s\n  - %s\n%s", name, match, steps[0], steps[1], limits)
		if err := os.WriteFile(filepath.Join(dir, name+".yaml"), []byte(files.Replace(text)), 0o600); err != nil {
			w.t.Fatal(err)
		}
	}
	return dir
}

// recorded is the file to which the script appends what it was given. Its name would be a
// command to a shell.
func (w *siege) recorded(what string) string {
	return filepath.Join(w.dir, what+" $(touch canary); touch canary #")
}

// forged are entries with the fields that Riposte itself writes to the stream.
func (w *siege) forged() []attack {
	alert := func(id string) string { return w.alert(id, "stop", `"actionable_pid":1`, true) }
	const refused = "is not one to act on"
	return []attack{
		{where: "opened again", entry: []any{"id", "forged-1", "reopened", "0123456789abcdef", "alert", alert("forged-1")}, outcomes: []string{"refused"}, reason: refused},
		{where: "opened again, of no ID", entry: []any{"id", "a/b", "reopened", "x", "alert", alert("forged-2")}, outcomes: []string{"refused"}, reason: refused},
		{where: "said to be unusable", entry: []any{"error", "said so", "alert", alert("forged-3")}, outcomes: []string{dead}, reason: "said so"},
		{where: "two alerts", entry: []any{"alert", w.alert("forged-4", "stop", `"actionable_pid":`+w.words["bystander"], true), "alert", alert("forged-5")}, outcomes: []string{"refused"}, reason: refused},
		{where: "no alert", entry: []any{"alarm", alert("forged-6")}, outcomes: []string{dead}, reason: `no field "alert"`},
		{where: "another digest", entry: []any{"id", "forged-7~0123456789abcdef", "alert", alert("forged-7")}, outcomes: []string{"refused"}, reason: refused},
	}
}

// races names processes that end, and whose PIDs are taken by innocents, just then.
func (w *siege) races(n int) (attacks []attack) {
	w.t.Helper()
	won := 0
	for i := range n {
		was := sleeper(w.t)
		ticks := was.stat().StartTicks
		book := []string{"stop", "tree", "suspend"}[i%3]
		a := attack{where: fmt.Sprintf("race %d", i), outcomes: []string{"terminated", "killed", "suspended", "already_gone", "refused"}}
		a.entry = []any{"alert", w.alert(fmt.Sprint("race-", i), book, fmt.Sprintf(`"process":{"pid":%d,"start_ticks":%d}`, was.pid, ticks), true)}
		w.publish(&a)
		attacks = append(attacks, a)
		if w.succeed("racer"+string(rune('a'+i)), was, ticks, need.Binary(w.t, "sleep")) {
			won++
		}
	}
	if won < n/2 {
		w.t.Errorf("only %d of %d PIDs were given out again", won, n)
	}
	return attacks
}

// flood publishes an alert of each process, all at once. Every second one has the ID of the
// others, which makes it no copy of theirs.
func (w *siege) flood(all []victim) {
	w.t.Helper()
	_, err := w.rdb.Pipelined(w.t.Context(), func(p redis.Pipeliner) error {
		for i, v := range all {
			id := "flood"
			if i%2 == 0 {
				id = fmt.Sprint("flood-", i)
			}
			raw := w.alert(id, "flood", fmt.Sprintf(`"process":{"pid":%d,"start_ticks":%d}`, v.pid, v.stat().StartTicks), true)
			p.XAdd(w.t.Context(), &redis.XAddArgs{Stream: host.AlertsKey(), Values: []any{"alert", raw}})
		}
		return nil
	})
	if err != nil {
		w.t.Fatal(err)
	}
}

// flooded says whether the breaker let as many of the flood through as it may, and the others
// wait.
func (w *siege) flooded(all []victim, entries map[string]entry) {
	w.t.Helper()
	states := map[string]int{}
	for id, e := range entries {
		if !strings.HasPrefix(id, "flood") {
			continue
		}
		if states[e.State]++; e.State == "done" && e.outcomes() != "act terminated, log logged" {
			w.t.Errorf("%+v", e)
		}
	}
	ended := 0
	until(w.t, func() string { return "has ended them" }, func() bool {
		ended = 0
		for _, v := range all {
			select {
			case <-v.gone:
				ended++
			default:
			}
		}
		return ended >= states["done"]
	})
	for _, v := range all {
		select {
		case <-v.gone:
		default:
			if what := (subject{pid: v.pid}).disturbed(); what != "" {
				w.t.Errorf("PID %d of the flood: %s", v.pid, what)
			}
		}
	}
	waiting := w.rdb.ZCard(w.t.Context(), host.WaitingKey(stream.DefaultGroup)).Val()
	if n := len(all); ended != 5 || states["done"] != 5 || states["waiting"] != n-5 || waiting != int64(n-5) {
		w.t.Errorf("a flood of %d alerts ended %d processes, want 5; %v, %d wait", n, ended, states, waiting)
	}
}

// judge says what became of an attack, which is an error unless it is right.
func (w *siege) judge(a attack, entries map[string]entry, letters map[string]letter) (outcome string) {
	w.t.Helper()
	e, l := entries[a.id], letters[a.streamID]
	wrong := func(format string, args ...any) {
		w.t.Errorf("%s: %s; want %v: %s\n%.500s\ngot %+v, %.500s", a.where, fmt.Sprintf(format, args...), a.outcomes, a.reason, fmt.Sprint(a.entry...), e, l.reason)
	}
	if a.outcomes[0] == dead {
		if e.State != "dead" || e.outcomes() != "bury dead" || !strings.Contains(l.reason, a.reason) {
			wrong("no dead letter as it should be")
		}
		return dead
	}
	if e.State != "done" || e.Duplicates != 0 || len(e.Flags) != 0 || l.reason != "" {
		wrong("not settled once")
		return "lost"
	}
	for _, s := range e.Steps {
		if s.Outcome == "" || s.Reason == "" || s.Mode != "enforce" {
			wrong("a step without an end, or a reason")
		}
		if s.Step != "act" && s.Step != "-" {
			continue
		}
		outcome = s.Outcome
		if !slices.Contains(a.outcomes, s.Outcome) || !strings.Contains(s.Reason, a.reason) {
			wrong("not as it should be")
		}
	}
	return outcome
}

// begun checks that nothing was even begun but what was to be.
func (w *siege) begun(attacks []attack, trace string) {
	w.t.Helper()
	may := map[string]string{}
	for _, a := range attacks {
		if !slices.ContainsFunc(a.outcomes, func(o string) bool {
			return slices.Contains([]string{"terminated", "killed", "suspended", "blocked", "quarantined", "ran"}, o)
		}) {
			may[a.id] = a.where
		}
	}
	events, err := judge.ReadFile(trace)
	if err != nil {
		w.t.Fatal(err)
	}
	if len(events) == 0 {
		w.t.Error("nothing is in the trace")
	}
	for _, e := range events {
		id := strings.Split(e.Key, "/")[2]
		if where, never := may[id]; never && e.Event == judge.Begin && slices.Contains(harmful, e.Action) {
			w.t.Errorf("%s: %s was begun", where, e.Action)
		}
	}
}

// scripts checks what the script was given: always the same argv, variables of fixed names, and
// the alert as it came on standard input.
func (w *siege) scripts(attacks []attack, entries map[string]entry) {
	w.t.Helper()
	runs := 0
	for _, e := range entries {
		for _, s := range e.Steps {
			if s.Playbook == "script" && s.Step == "act" && s.Outcome == "ran" {
				runs++
			}
		}
	}
	read := func(what string) string {
		raw, err := os.ReadFile(w.recorded(what))
		if err != nil {
			w.t.Error(err)
		}
		return string(raw)
	}
	argv := strings.Join([]string{need.Binary(w.t, "dd"), "if=/proc/self/cmdline", "of=" + w.recorded("argv"), "oflag=append", "conv=notrunc", "bs=1M", "status=none"}, "\x00") + "\x00"
	if got := read("argv"); runs == 0 || got != strings.Repeat(argv, runs) {
		w.t.Errorf("in %d runs the script was given %.2000q", runs, got)
	}
	names := map[string]int{}
	for _, v := range strings.Split(strings.TrimSuffix(read("environ"), "\x00"), "\x00") {
		name, value, _ := strings.Cut(v, "=")
		names[name]++
		if strings.IndexFunc(value, func(r rune) bool { return !unicode.IsPrint(r) }) >= 0 {
			w.t.Errorf("%s=%q", name, value)
		}
	}
	for name, n := range names {
		if name != "PATH" && name != "LC_ALL" && !strings.HasPrefix(name, "RIPOSTE_ALERT_") && name != "RIPOSTE_STEP_KEY" || n != runs {
			w.t.Errorf("in %d runs the script had %s %d times", runs, name, n)
		}
	}
	lines := strings.Split(strings.TrimSuffix(read("input"), "\n"), "\n")
	titles := map[string]string{}
	for _, a := range attacks {
		if alert, err := stream.Decode([]byte(a.entry[1].(string)), ""); err == nil {
			titles[a.id] = alert.Title
		}
	}
	for _, line := range lines {
		var got struct{ Key, ID, Title string }
		err := json.Unmarshal([]byte(line), &got)
		if title := titles[got.ID]; err != nil || got.Key != "h1/containment/"+got.ID+"/script/input" || got.Title != title && got.Title != title[:min(len(title), 1024)]+"..." {
			w.t.Errorf("the script was told %.500q: %v", line, err)
		}
	}
	if len(lines) != runs {
		w.t.Errorf("in %d runs the script was told %d lines", runs, len(lines))
	}
}

// lines checks that there is one line in the log for each step that says so.
func (w *siege) lines(entries map[string]entry) {
	w.t.Helper()
	want := map[string]int{}
	for _, e := range entries {
		for _, s := range e.Steps {
			if s.Outcome == "logged" {
				want[stream.StepKey(host, stream.DefaultGroup, stream.AlertID(e.ID), s.Playbook, s.Step)]++
			}
		}
	}
	raw, err := os.ReadFile(w.log)
	if err != nil {
		w.t.Fatal(err)
	}
	got := map[string]int{}
	for line := range strings.Lines(string(raw)) {
		var l struct{ Key string }
		if err := json.Unmarshal([]byte(line), &l); err != nil || strings.IndexFunc(line, obeyed) >= 0 {
			w.t.Errorf("in the log: %.500q, %v", line, err)
		}
		got[l.Key]++
	}
	if !maps.Equal(got, want) {
		w.t.Errorf("%d keys in the log, want %d", len(got), len(want))
	}
}

// lay makes ways that lead to the kept files and to what is no file, and a file that may go.
func (w *siege) lay() {
	w.t.Helper()
	kept, links := filepath.Join(w.dir, "kept"), filepath.Join(w.dir, "links")
	w.words["kept"], w.words["links"], w.words["run"] = kept, links, filepath.Join(w.dir, "run")
	if err := errors.Join(os.Mkdir(links, 0o755), os.Symlink(filepath.Join(kept, "a"), filepath.Join(links, "file")),
		os.Symlink(kept, filepath.Join(links, "folder")), unix.Mkfifo(filepath.Join(links, "pipe"), 0o644),
		os.WriteFile(filepath.Join(links, "dropped"), []byte("dropped"), 0o755)); err != nil {
		w.t.Fatal(err)
	}
}

// keep makes files, and returns what is in those that nothing may happen to.
func (w *siege) keep(names ...string) map[string][32]byte {
	w.t.Helper()
	dir := filepath.Join(w.dir, "kept")
	for _, name := range names {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			w.t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(name), 0o644); err != nil {
			w.t.Fatal(err)
		}
	}
	sums := map[string][32]byte{}
	paths := []string{"/etc/passwd", need.Binary(w.t, "sleep"), need.Binary(w.t, "redis-server")}
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			paths = append(paths, path)
		}
		return err
	})
	if err != nil {
		w.t.Fatal(err)
	}
	for _, path := range paths {
		raw, err := os.ReadFile(path)
		if err != nil {
			w.t.Error(err)
		}
		sums[path] = sha256.Sum256(raw)
	}
	for _, path := range []string{w.canary, "/canary", "canary"} {
		if _, err := os.Lstat(path); !os.IsNotExist(err) {
			w.t.Errorf("%s: %v", path, err)
		}
	}
	return sums
}

// onlyOwnKeys checks that no ID, host or name has got out of the keys of this host.
func (w *siege) onlyOwnKeys() {
	w.t.Helper()
	keys := w.rdb.Scan(w.t.Context(), 0, "*", 1000).Iterator()
	for keys.Next(w.t.Context()) {
		if k := keys.Val(); k != stream.HostsKey && !strings.HasPrefix(k, "riposte:{h1}:") && !strings.HasPrefix(k, "riposte:{fleet}:") {
			w.t.Errorf("key %q", k)
		}
	}
	if err := keys.Err(); err != nil {
		w.t.Error(err)
	}
	if st, err := proc.ReadStat(w.redis.PID()); err != nil || st.Zombie() {
		w.t.Errorf("Redis: %v", err)
	}
}
