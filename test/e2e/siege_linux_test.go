package e2e_test

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
	"unicode/utf16"

	"golang.org/x/sys/unix"

	"riposte/stream"
	"riposte/stream/proc"
	"riposte/test/need"
)

// siege is a site under attack: what testdata/adversary.txt names, and what must become of it.
type siege struct {
	*site
	words  map[string]string // of $name, see the file
	each   []string          // names of the protected processes
	safe   []subject         // whom nothing may happen to
	prey   []victim          // who is to be ended
	caught []victim          // who is to be stopped, and to live on
	canary string            // a file that what is injected would make
	log    string            // what the playbooks log to
}

// subject is a process that nothing may happen to.
type subject struct {
	name  string
	pid   int
	ticks uint64
}

// attack is one alert, and what is right to become of it.
type attack struct {
	where    string
	entry    []any // of the stream
	outcomes []string
	reason   string
	id       string // in the ledger
	streamID string
}

const dead = "dead" // the outcome of what is no alert

func newSiege(t *testing.T) *siege {
	w := &siege{site: newSite(t), words: map[string]string{}}
	w.canary, w.log = filepath.Join(w.dir, "canary"), filepath.Join(w.dir, "alerts.log")
	return w
}

// know makes a process known by a name.
func (w *siege) know(name string, pid int) subject {
	w.t.Helper()
	st, err := proc.ReadStat(pid)
	if err != nil {
		w.t.Fatalf("%s: %v", name, err)
	}
	for suffix, value := range map[string]string{
		"": fmt.Sprint(pid), ".ticks": fmt.Sprint(st.StartTicks), ".old": fmt.Sprint(st.StartTicks - 1),
		".name": st.Comm, ".wrapped": fmt.Sprint(pid + 1<<32),
	} {
		w.words[name+suffix] = value
	}
	return subject{name, pid, st.StartTicks}
}

// spare makes a process known that nothing may happen to.
func (w *siege) spare(name string, pid int) {
	w.t.Helper()
	w.safe = append(w.safe, w.know(name, pid))
}

// protect makes a process known that is protected, and by what.
func (w *siege) protect(name string, pid int, why string) {
	w.t.Helper()
	w.spare(name, pid)
	w.words[name+".why"] = why
	w.each = append(w.each, name)
}

// hunt makes a process known that is to be ended.
func (w *siege) hunt(name string, v victim) {
	w.t.Helper()
	w.know(name, v.pid)
	w.prey = append(w.prey, v)
}

// victim is a process that the test starts by its argv, once it runs that program.
func (w *siege) victim(argv ...string) victim {
	w.t.Helper()
	return await(w.t, exec.Command(argv[0], argv[1:]...))
}

func await(t *testing.T, cmd *exec.Cmd) victim {
	t.Helper()
	gone := spawn(t, cmd)
	v := victim{t, cmd, gone, cmd.Process.Pid}
	until(t, func() string { return "runs " + cmd.Path }, func() bool {
		info, err := proc.Read(v.pid)
		return err == nil && len(info.Argv) > 0 && info.Argv[0] == cmd.Args[0]
	})
	return v
}

// program is a copy of sleep under another name, of a user, with a mode.
func (w *siege) program(name string, uid int, mode os.FileMode) (path string) {
	w.t.Helper()
	raw, err := os.ReadFile(need.Binary(w.t, "sleep"))
	if err != nil {
		w.t.Fatal(err)
	}
	dir := w.t.TempDir()
	path = filepath.Join(dir, name)
	if err := os.WriteFile(path, raw, 0o755); err != nil {
		w.t.Fatal(err)
	}
	if err := os.Chmod(filepath.Dir(dir), 0o755); err != nil { // for another user
		w.t.Fatal(err)
	}
	if err := os.Chown(path, uid, 0); err != nil {
		w.t.Fatal(err)
	}
	if err := os.Chmod(path, mode); err != nil {
		w.t.Fatal(err)
	}
	return path
}

// child waits for a child of a process, by the name of its program.
func (w *siege) child(parent int, comm string) (pid int) {
	w.t.Helper()
	until(w.t, func() string { return fmt.Sprintf("PID %d has a child %s", parent, comm) }, func() bool {
		all, err := filepath.Glob("/proc/[0-9]*")
		if err != nil {
			w.t.Fatal(err)
		}
		return slices.ContainsFunc(all, func(dir string) bool {
			n, _ := strconv.Atoi(filepath.Base(dir))
			st, err := proc.ReadStat(n)
			pid = n
			return err == nil && st.PPID == parent && st.Comm == comm
		})
	})
	return pid
}

// thread is a thread of a process that is not its first.
func (w *siege) thread(pid int) (tid string) {
	w.t.Helper()
	until(w.t, func() string { return fmt.Sprintf("PID %d has threads", pid) }, func() bool {
		tasks, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
		return err == nil && slices.ContainsFunc(tasks, func(task os.DirEntry) bool {
			tid = task.Name()
			return tid != fmt.Sprint(pid)
		})
	})
	return tid
}

// processes starts everybody whom the alerts name, but for the two replicas that are to come.
// Whoever needs a shell is started here.
func (w *siege) processes() {
	t := w.t
	w.know("init", 1)
	w.safe = append(w.safe, subject{"init", 1, 0})
	w.protect("test", os.Getpid(), "is an ancestor of Riposte")
	w.protect("redis", w.redis.PID(), "is the Redis server")
	for name, program := range map[string]string{"sshd": "sshd", "shim": "containerd-shim-runc-v2", "journald": "systemd-journald"} {
		w.protect(name, w.victim(w.program(program, 0, 0o755), "1000").pid, "is a service of this host ("+program+")")
	}

	// What is called like a service, and is none.
	const nobody = 65534
	w.hunt("fakefile", w.victim(w.program("sshd", nobody, 0o755), "1000"))
	w.hunt("fakemode", w.victim(w.program("sshd", 0, 0o757), "1000"))
	w.hunt("fakename", w.victim(w.program("redis-server", 0, 0o777), "1000"))
	another := exec.Command(w.program("sshd", 0, 0o755), "1000")
	another.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	w.hunt("fakeuser", await(t, another))

	// Trees.
	nest := w.victim("sh", "-c", fmt.Sprintf(`redis-server --port 0 --unixsocket %s/nest.sock --dir %[1]s --save "" >/dev/null & sleep 1000 & wait`, w.dir))
	w.spare("nest", nest.pid)
	w.protect("nested", w.child(nest.pid, "redis-server"), "is the Redis server")
	w.spare("nestchild", w.child(nest.pid, "sleep"))
	deep := w.victim("sh", "-c", fmt.Sprintf(`sh -c '%s 1000 & wait' & wait`, w.program("sshd-session", 0, 0o755)))
	w.spare("deep", deep.pid)
	w.spare("deepmid", w.child(deep.pid, "sh"))
	deepmid, _ := strconv.Atoi(w.words["deepmid"])
	w.protect("session", w.child(deepmid, "sshd-session"), "is a service of this host (sshd-session)")
	family := w.victim("sh", "-c", `sleep 1000 & sleep 1000 & wait`)
	w.child(family.pid, "sleep")
	w.hunt("family", family)

	bystander, friend := sleeper(t), sleeper(t)
	w.spare("bystander", bystander.pid)
	w.spare("friend", friend.pid)
	w.know("zombie", zombieProcess(t))
	w.texts(bystander)
	w.words["redisthread"] = w.thread(w.redis.PID())

	// PIDs that others have by now.
	w.inherit("reused", need.Binary(t, "sleep"))
	w.inherit("heir", w.program("sshd", 0, 0o755))
	// One that nobody will have.
	last, err := os.ReadFile(lastPID)
	if err != nil {
		t.Fatal(err)
	}
	setLastPID(t, 30_000)
	w.words["gone"] = fmt.Sprint(goneProcess(t))
	n, err := strconv.Atoi(strings.TrimSpace(string(last)))
	if err != nil {
		t.Fatal(err)
	}
	setLastPID(t, n)
}

// texts are the words that are no processes.
func (w *siege) texts(bystander victim) {
	t := w.t
	started, err := bystander.stat().StartTime()
	if err != nil {
		t.Fatal(err)
	}
	boot, err := proc.BootID()
	if err != nil {
		t.Fatal(err)
	}
	space, err := proc.Namespace()
	if err != nil {
		t.Fatal(err)
	}
	exe, err := proc.ReadExe(bystander.pid)
	if err != nil {
		t.Fatal(err)
	}
	nested := func(n int) string { return strings.Repeat("[", n) + strings.Repeat("]", n) }
	var zipped bytes.Buffer
	zip := gzip.NewWriter(&zipped)
	fmt.Fprintf(zip, `{"level":"HIGH","actionable_pid":%d}`, bystander.pid)
	zip.Close()
	var wide []byte
	for _, c := range utf16.Encode([]rune(fmt.Sprintf(`{"actionable_pid":%d}`, bystander.pid))) {
		wide = append(wide, byte(c), byte(c>>8))
	}
	keys := make([]string, 20_000)
	for i := range keys {
		keys[i] = fmt.Sprintf(`"key%d":%d`, i, i)
	}
	for name, text := range map[string]string{
		"boot": boot, "pidns": fmt.Sprint(space), "exe": exe, "canary": w.canary,
		"before": isoformat(started.Add(-3 * time.Second)), "now": isoformat(time.Now()),
		"hourago": isoformat(time.Now().Add(-time.Hour)), "tomorrow": isoformat(time.Now().Add(24 * time.Hour)),
		"long": strings.Repeat("A", 5000), "verylong": strings.Repeat("A", 20_000), "mega": strings.Repeat("A", 1<<20+1),
		"spaces": strings.Repeat(" ", 300), "digits": strings.Repeat("9", 100_000),
		"id128": strings.Repeat("a", 128), "id129": strings.Repeat("a", 129),
		"deep31": nested(31), "deep32": nested(32), "deep10k": nested(10_000),
		"wide": "[" + strings.Repeat("0,", 30_000) + "0]", "keys": "{" + strings.Join(keys, ",") + "}",
		"bad": "\xff\xfe\xc0\x80", "bom": "\ufeff", "gzip": zipped.String(), "utf16": string(wide),
	} {
		w.words[name] = text
	}
}

const lastPID = "/proc/sys/kernel/ns_last_pid"

// setLastPID says after which PID the namespace looks for the next one.
func setLastPID(t *testing.T, pid int) {
	t.Helper()
	if err := os.WriteFile(lastPID, []byte(strconv.Itoa(pid)), 0); err != nil {
		t.Fatal(err)
	}
}

// inherit starts a program under the PID of a process that has ended.
func (w *siege) inherit(name, program string) {
	w.t.Helper()
	for range 10 {
		was := sleeper(w.t)
		ticks, seen := was.stat().StartTicks, time.Now()
		w.words[name+".was"], w.words[name+".seen"] = fmt.Sprint(ticks), isoformat(seen)
		if w.succeed(name, was, ticks, program) {
			return
		}
	}
	w.t.Fatal("no PID is given out again")
}

// succeed ends a process, unless somebody else has, and starts a program that runs for long
// under its PID, so much later that the two can be told apart. A thread or somebody else's fork
// may take the PID before, and may keep it: then it has no successor.
func (w *siege) succeed(name string, was victim, ticks uint64, program string) bool {
	w.t.Helper()
	_ = was.cmd.Process.Kill()
	<-was.gone
	ended := time.Now()
	until(w.t, func() string { return "is later" }, func() bool {
		var now unix.Timespec
		err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &now)
		return err == nil && uint64(now.Nano()/1e7) > ticks && time.Since(ended) > 50*time.Millisecond
	})
	for range 100 {
		setLastPID(w.t, was.pid-1)
		cmd := exec.Command(program, "1000")
		gone := spawn(w.t, cmd)
		if cmd.Process.Pid == was.pid {
			w.spare(name, was.pid)
			return true
		}
		_ = cmd.Process.Kill()
		<-gone
	}
	return false
}

// disturbed says what has happened to somebody to whom nothing may happen; empty if nothing.
func (s subject) disturbed() string {
	st, err := proc.ReadStat(s.pid)
	switch {
	case err != nil:
		return err.Error()
	case s.ticks != 0 && st.StartTicks != s.ticks:
		return "is another process"
	case st.Zombie() || st.State == 'T' || st.State == 't':
		return fmt.Sprintf("is in state %c", st.State)
	}
	// Of its own children the kernel tells whether they have ever been stopped.
	var info unix.Siginfo
	err = unix.Waitid(unix.P_PID, s.pid, &info, unix.WSTOPPED|unix.WCONTINUED|unix.WNOHANG|unix.WNOWAIT, nil)
	if err == nil && info.Signo != 0 {
		return "was stopped for a while"
	}
	return ""
}

var word = regexp.MustCompile(`\$[a-z][a-z0-9]*(\.[a-z]+)?`)

// spell fills in the words of a text.
func (w *siege) spell(where, text string) string {
	return word.ReplaceAllStringFunc(text, func(name string) string {
		value, ok := w.words[name[1:]]
		if !ok {
			w.t.Fatalf("%s: what is %s?", where, name)
		}
		return value
	})
}

// read reads the attacks of a file.
func (w *siege) read(file string) (attacks []attack) {
	w.t.Helper()
	raw, err := os.ReadFile(file)
	if err != nil {
		w.t.Fatal(err)
	}
	var head string
	for i, line := range strings.Split(string(raw), "\n") {
		where := fmt.Sprintf("%s:%d", file, i+1)
		text, isAlert := strings.CutPrefix(line, "\t")
		switch {
		case line == "" || strings.HasPrefix(line, "#"):
		case isAlert:
			attacks = append(attacks, w.attacks(where, head, text)...)
		default:
			head = line
		}
	}
	return attacks
}

// attacks are those that one line of the file stands for.
func (w *siege) attacks(where, head, text string) (all []attack) {
	if strings.Contains(text, "$each") {
		for _, name := range w.each {
			of := func(s string) string { return strings.ReplaceAll(s, "$each", "$"+name) }
			all = append(all, w.attacks(where+" "+name, of(head), of(text))...)
		}
		return all
	}
	parts := strings.SplitN(head, ": ", 3)
	if len(parts) != 3 {
		w.t.Fatalf("%s: %q is no head of alerts", where, head)
	}
	if parts[0] == "address" {
		all = w.attacks(where, "block: "+parts[1]+": "+parts[2], `"source_ip":`+text)
		return append(all, w.attacks(where, "fill: "+parts[1]+": "+parts[2], `"details":{"address":`+text+`}`)...)
	}
	for _, book := range strings.Split(parts[0], " ") {
		outcomes := strings.Split(parts[1], "|")
		if strings.Contains(text, "$new") {
			if v := sleeper(w.t); outcomes[0] == "suspended" {
				w.know("new", v.pid)
				w.caught = append(w.caught, v)
			} else {
				w.hunt("new", v)
			}
		}
		fields, given := w.spell(where, text), ""
		raw, whole := strings.CutPrefix(fields, "!")
		if id, ok := strings.CutPrefix(fields, "@"); ok {
			given, fields, _ = strings.Cut(id, " ")
		}
		if !whole {
			raw = w.alert(fmt.Sprintf("%s-%d", book, rand.Uint64()), book, fields, given == "")
		}
		a := attack{where: where + " " + book, entry: []any{"alert", raw}, outcomes: outcomes, reason: w.spell(where, parts[2])}
		if given != "" {
			a.entry = append(a.entry, "id", given)
		}
		all = append(all, a)
	}
	return all
}

// alert is one with some fields, and what most of them have beside those.
func (w *siege) alert(id, book, fields string, named bool) string {
	head := ""
	for _, f := range [][2]string{{"id", id}, {"source", book}, {"level", "HIGH"}, {"title", "t"}, {"timestamp", isoformat(time.Now())}} {
		if !strings.Contains(fields, `"`+f[0]+`":`) && (f[0] != "id" || named) {
			head += fmt.Sprintf("%q:%q,", f[0], f[1])
		}
	}
	return "{" + head + fields + "}"
}

// publish publishes an attack.
func (w *siege) publish(a *attack) {
	w.t.Helper()
	a.streamID = w.xadd(a.entry...)
	if a.id = string(stream.EntryID(a.streamID)); a.outcomes[0] == dead {
		return
	}
	d := stream.Delivery{StreamID: a.streamID}
	for i := 0; i < len(a.entry); i += 2 {
		switch a.entry[i] {
		case "alert":
			d.Raw = []byte(a.entry[i+1].(string))
		case "id":
			d.GivenID = a.entry[i+1].(string)
		}
	}
	_, id, err := d.Alert()
	if err != nil {
		w.t.Errorf("%s: %v", a.where, err)
	}
	a.id = string(id)
}
