package sensor

import (
	"encoding/json"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"riposte/stream"
)

// quiet is a detector that must raise no alert.
func quiet(t testing.TB, rules []Rule) *detector {
	t.Helper()
	d, err := newDetector("h1", rules, func(a *stream.Alert) { t.Errorf("alert %+v", a) })
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// bystander is a process that no built-in rule knows by name.
func bystander(t testing.TB) int {
	t.Helper()
	cmd := exec.Command("cat")
	hold, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	answer, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	// Its arguments are there a moment after its exec; by the time it answers they are.
	if _, err := hold.Write([]byte{0}); err != nil {
		t.Fatal(err)
	}
	if _, err := answer.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = hold.Close()
		if err := cmd.Wait(); err != nil {
			t.Errorf("cat: %v", err)
		}
	})
	return cmd.Process.Pid
}

// Where names say that no rule can match, nothing else is read.
func TestNamesComeFirst(t *testing.T) {
	pid := bystander(t)
	for name, read := range map[string]bool{"dog": false, "cat": true} {
		d := quiet(t, []Rule{{ID: "x", Name: "x", Level: "LOW", Child: []string{name}, Cmdline: []string{"no such argument"}}})
		d.look(event{pid: pid})
		s := d.lives.program(pid)
		if s == nil || s.name != "cat" || s.exe == "" {
			t.Fatalf("not looked at: %+v", s)
		}
		if (s.cmdline != "") != read || (s.uid != -1) != read {
			t.Errorf("a rule for %s: read %+v", name, s)
		}
	}
}

// What lives in an alert was chosen by a stranger.
func TestAlertFieldsAreBounded(t *testing.T) {
	d := quiet(t, nil)
	long := strings.Repeat("\x1b[2J\xff\u6f22", 10_000)
	child := &snapshot{pid: 7, start: 1, name: long, exe: long, cmdline: long, uid: -1}
	a := d.alert(event{}, &matcher{Rule: Rule{ID: "x", Name: "x", Level: "LOW"}}, child, child, true)
	raw, err := json.Marshal(a)
	if err != nil {
		t.Fatal(err)
	}
	if len(raw) > 64<<10 {
		t.Errorf("%d bytes", len(raw))
	}
	for name, text := range map[string]string{"name": a.Process.Name, "exe": a.Process.Exe, "cmdline": a.Process.Cmdline} {
		if !utf8.ValidString(text) || len(text) < 200 {
			t.Errorf("%s: %d bytes, valid %v", name, len(text), utf8.ValidString(text))
		}
	}
	if strings.Contains(a.Description, "\x1b") {
		t.Errorf("the description moves the cursor: %q", a.Description[:40])
	}
	if again, err := stream.Decode(raw, ""); err != nil || again.ID != a.ID || again.Process.UID != nil {
		t.Errorf("decoded: %+v, %v", again, err)
	}
}

var _ Publisher = (*stream.Publisher)(nil)

func TestConfigErrors(t *testing.T) {
	rule := Rule{ID: "x", Name: "x", Level: "LOW", Child: []string{"x"}}
	for want, cfg := range map[string]Config{
		"host":                 {},
		`source "ebpf" is`:     {Host: "h", Source: "ebpf"},
		"poll interval 1ns":    {Host: "h", PollInterval: 1},
		"buffer size 1 ":       {Host: "h", BufferSize: 1},
		"no rules":             {Host: "h", Rules: []Rule{}},
		`rule id "x" is there`: {Host: "h", Rules: []Rule{rule, rule}},
		`rule "y": level`:      {Host: "h", Rules: []Rule{{ID: "y", Name: "y", Level: "BAD"}}},
	} {
		if _, err := New(cfg, newCollector()); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %s", err, want)
		}
	}
	if _, err := New(Config{Host: "h"}, nil); err == nil {
		t.Error("a sensor without a publisher")
	}
	s, err := New(Config{Host: "h"}, newCollector())
	if err != nil {
		t.Fatal(err)
	}
	if s.cfg.Source != SourceAuto || s.cfg.BufferSize != 10_000 || s.cfg.PollInterval.String() != "100ms" || len(s.cfg.Rules) == 0 {
		t.Errorf("defaults %+v", s.cfg)
	}
}

// BenchmarkNoMatch is what almost every process on a machine costs.
func BenchmarkNoMatch(b *testing.B) {
	rules, err := Builtin()
	if err != nil {
		b.Fatal(err)
	}
	d := quiet(b, rules)
	pid := bystander(b)
	d.handle(event{pid: os.Getpid()})
	b.ReportAllocs()
	for b.Loop() {
		d.handle(event{kind: forked, pid: pid, parent: os.Getpid(), at: time.Now()})
		d.handle(event{kind: execed, pid: pid, at: time.Now()})
	}
}

// BenchmarkMatchByName is the part of it that the rules cost.
func BenchmarkMatchByName(b *testing.B) {
	rules, err := Builtin()
	if err != nil {
		b.Fatal(err)
	}
	d := quiet(b, rules)
	child, err := identify(bystander(b))
	if err != nil {
		b.Fatal(err)
	}
	child.readNames()
	b.ReportAllocs()
	for b.Loop() {
		if len(d.candidates(&child, &child)) != 0 {
			b.Fatal("a rule matches cat")
		}
	}
}
