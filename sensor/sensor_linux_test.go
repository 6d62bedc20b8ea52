package sensor

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"riposte/stream"
	"riposte/stream/proc"
	"riposte/test/need"
)

const officeRule = "office-script-host"

// needInitialNamespace: the proc connector works there alone, and shows the whole machine.
// These tests watch only, and signal none but their own children.
func needInitialNamespace(t testing.TB) {
	t.Helper()
	need.Root(t)
	if ns, err := proc.Namespace(); err != nil || ns != proc.InitialPIDNamespace {
		t.Fatalf("PID namespace %d, %v: run this test outside of containers", ns, err)
	}
}

// Of 200 processes that live 5 ms each, at least 190 are alerted on and the counters
// explain the rest.
func TestProcSeesShortLivedProcesses(t *testing.T) {
	needInitialNamespace(t)
	const number = 200
	dir, got := decoys(t), newCollector()
	s := watch(t, Config{Source: SourceProc}, got)

	cmd := exec.Command(filepath.Join(dir, "winword.exe"))
	cmd.Env = helperEnv("burst " + strconv.Itoa(number))
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	// Events and alerts keep their order: with the last one's alert all others are here.
	_, last := attack(t, dir)
	got.about(t, last, officeRule)

	alerted := map[int64]bool{}
	for _, a := range got.all() {
		if a.Rule.ID == officeRule {
			alerted[*a.ActionablePID] = true
		}
	}
	var seen, missed uint64
	for pid := range strings.FieldsSeq(string(out)) {
		n, err := strconv.ParseInt(pid, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		if alerted[n] {
			seen++
		} else {
			missed++
		}
	}
	st := s.Stats()
	t.Logf("%d alerted, %d missed; %+v", seen, missed, st)
	if seen+missed != number || seen < 190 {
		t.Errorf("%d of %d alerted, want at least 190", seen, number)
	}
	if missed > st.Vanished && st.Overruns == 0 {
		t.Errorf("%d missed, but only %d vanished and no overrun", missed, st.Vanished)
	}
}

func TestAlertCarriesTheIdentity(t *testing.T) {
	for _, source := range []string{SourceProc, SourcePoll} {
		t.Run(source, func(t *testing.T) {
			if source == SourceProc {
				needInitialNamespace(t)
			}
			dir, got := decoys(t), newCollector()
			watch(t, Config{Source: source}, got)
			before := time.Now()
			parentPID, pid := attack(t, dir)
			a := got.about(t, pid, officeRule)

			child, err := proc.Read(pid)
			if err != nil {
				t.Fatal(err)
			}
			parent, err := proc.Read(parentPID)
			if err != nil {
				t.Fatal(err)
			}
			boot, err := proc.BootID()
			if err != nil {
				t.Fatal(err)
			}
			ns, err := proc.Namespace()
			if err != nil {
				t.Fatal(err)
			}
			p := a.Process
			if p.PID != int64(pid) || p.StartTicks != child.StartTicks || p.BootID != boot || p.PIDNS != ns {
				t.Errorf("identity %+v, want %+v", p, child)
			}
			if p.Name != "powershell.exe" || p.Exe != filepath.Join(dir, "powershell.exe") ||
				p.Cmdline != p.Exe+" -nop -w hidden" || p.UID == nil || *p.UID != int64(os.Geteuid()) {
				t.Errorf("description %+v", p)
			}
			want := stream.Parent{PID: int64(parentPID), StartTicks: parent.StartTicks, Name: "winword.exe", Exe: filepath.Join(dir, "winword.exe")}
			if p.Parent == nil || *p.Parent != want {
				t.Errorf("parent %+v, want %+v", p.Parent, want)
			}
			if a.ID != stream.DeriveID("sensor", "h1", boot, strconv.Itoa(pid), fmt.Sprint(child.StartTicks), officeRule) {
				t.Errorf("ID %s", a.ID)
			}
			if a.Host != "h1" || a.Source != "riposte-sensor" || a.Level != "HIGH" || *a.ActionablePID != int64(pid) ||
				a.Rule.ID != officeRule || len(a.Rule.Tags) == 0 || !strings.Contains(a.Description, "winword.exe") {
				t.Errorf("alert %+v", a)
			}
			at, err := time.Parse("2006-01-02T15:04:05.000000Z07:00", a.Timestamp)
			if err != nil {
				t.Fatal(err)
			}
			if at.Before(before.Truncate(time.Microsecond)) || at.After(time.Now()) {
				t.Errorf("timestamp %s, not within %s and now", at, before)
			}
		})
	}
}

// A sensor that starts again finds the same process and publishes the same alert, once.
func TestRestartedSensorPublishesTheSameAlert(t *testing.T) {
	dir := decoys(t)
	first, second := newCollector(), newCollector()
	_, end := watchUntil(t, Config{Source: SourcePoll}, first)
	_, pid := attack(t, dir)
	a := first.about(t, pid, officeRule)
	end()
	s, end := watchUntil(t, Config{Source: SourcePoll, PollInterval: time.Millisecond}, second)
	b := second.about(t, pid, officeRule)
	end()
	if a.ID != b.ID || a.Digest() != b.Digest() {
		t.Errorf("%s became %s", a.ID, b.ID)
	}
	started, err := proc.ReadStat(pid)
	if err != nil {
		t.Fatal(err)
	}
	want, err := started.StartTime()
	if err != nil {
		t.Fatal(err)
	}
	at, err := time.Parse(time.RFC3339Nano, b.Timestamp)
	if err != nil {
		t.Fatal(err)
	}
	if at.Sub(want).Abs() > 50*time.Millisecond {
		t.Errorf("a process found running is dated %s, want its start, %s", at, want)
	}
	s.detector.emit = func(a *stream.Alert) { t.Errorf("published again: %s about PID %d", a.ID, *a.ActionablePID) }
	s.detector.look(event{pid: pid}) // a new look, an old finding
}

// What is gone before it can be read is counted, and what is left of it is used.
func TestVanishedProcessesAreCounted(t *testing.T) {
	cmd := exec.Command(need.Binary(t, "true"))
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	pid := cmd.Process.Pid
	ctx, cancel := testContext(t)
	defer cancel()
	for { // until it is a zombie
		st, err := proc.ReadStat(pid)
		if err != nil || ctx.Err() != nil {
			t.Fatal(err, ctx.Err())
		}
		if st.Zombie() {
			break
		}
	}
	byName, byCmdline := Rule{ID: "x", Name: "x", Level: "LOW", Child: []string{"true"}}, Rule{ID: "x", Name: "x", Level: "LOW", Cmdline: []string{"true"}}
	elsewhere := Rule{ID: "x", Name: "x", Level: "LOW", Exe: []string{"/dev/shm/**"}}
	check := func(what string, rule Rule, at time.Time, alerts, vanished uint64) {
		t.Helper()
		d, err := newDetector("h1", []Rule{rule}, func(*stream.Alert) {})
		if err != nil {
			t.Fatal(err)
		}
		d.look(event{pid: pid, at: at})
		if a, v := d.matched.Load(), d.vanished.Load(); a != alerts || v != vanished {
			t.Errorf("%s: %d alerts and %d vanished, want %d and %d", what, a, v, alerts, vanished)
		}
	}
	check("a zombie has a name", byName, time.Now(), 1, 0)
	check("a zombie has no arguments", byCmdline, time.Now(), 0, 1)
	check("a zombie has no executable", elsewhere, time.Now(), 0, 1)
	if err := cmd.Wait(); err != nil {
		t.Fatal(err)
	}
	check("gone", byName, time.Now(), 0, 1)
	check("gone during a scan", byName, time.Time{}, 0, 0)
}

func TestAutoSaysWhichSourceAndWhy(t *testing.T) {
	needInitialNamespace(t)
	if s := watch(t, Config{}, newCollector()); !strings.HasPrefix(s.Stats().Source, "proc: ") {
		t.Errorf("in the initial namespace: %s", s.Stats().Source)
	}
	if os.Getenv(inNamespace) != "" {
		t.Fatal("this is meant to be the outside")
	}
	for namespace, why := range map[string]string{
		"--pid": "poll: this is a child PID namespace, the proc connector would deliver host PIDs",
		"--net": "poll: the proc connector does not answer in this network namespace",
	} {
		cmd := exec.Command(need.Binary(t, "unshare"), "--fork", "--mount-proc", namespace,
			os.Args[0], "-test.run=^TestAutoInNamespace$", "-test.v")
		cmd.Env = append(os.Environ(), inNamespace+"="+why)
		if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), "--- PASS: TestAutoInNamespace") {
			t.Errorf("unshare %s: %v\n%s", namespace, err, out)
		}
	}
}

const inNamespace = "RIPOSTE_SENSOR_TEST_NAMESPACE"

// TestAutoInNamespace is what TestAutoSaysWhichSourceAndWhy runs in other namespaces.
func TestAutoInNamespace(t *testing.T) {
	why := os.Getenv(inNamespace)
	if why == "" {
		return
	}
	got := newCollector()
	s := watch(t, Config{PollInterval: 10 * time.Millisecond}, got)
	if !strings.HasPrefix(s.Stats().Source, why) {
		t.Errorf("took %q, want %q", s.Stats().Source, why)
	}
	_, pid := attack(t, decoys(t))
	got.about(t, pid, officeRule)
	proc, err := New(Config{Host: "h1", Source: SourceProc}, got)
	if err != nil {
		t.Fatal(err)
	}
	if err := proc.Run(t.Context()); err == nil {
		t.Error("source proc runs where it can only be wrong")
	}
}
