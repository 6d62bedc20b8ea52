package action

import (
	"context"
	"encoding/json"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"riposte/stream"
)

const word = `C:\Program Files\Office\WINWORD.EXE`

// TestProgramResolve binds a block to the parent's executable, with an address and without.
func TestProgramResolve(t *testing.T) {
	t.Parallel()
	spec := &BlockSpec{Address: Addresses{sourceIP}, TTL: "1h", Backend: Netsh, Program: targetParent}
	for _, c := range []struct {
		address, exe, want, targets string
	}{
		{"198.51.100.2", word, `{"address":"198.51.100.2","ttl":"1h","backend":"netsh","program":"C:\\Program Files\\Office\\WINWORD.EXE"}`, "address/198.51.100.0/24 program/" + word},
		{"", word, `{"ttl":"1h","backend":"netsh","program":"C:\\Program Files\\Office\\WINWORD.EXE"}`, "program/" + word},
		{"", "", `{"ttl":"1h","backend":"netsh","program":""}`, "program/"},
	} {
		a := &stream.Alert{SourceIP: c.address, Process: &stream.Process{Parent: &stream.Parent{Exe: c.exe}}}
		e := spec.Resolve(a, Seen{})
		raw, err := json.Marshal(e)
		if err != nil || string(raw) != c.want || strings.Join(e.Targets(), " ") != c.targets {
			t.Errorf("%s with targets %q, %v; want %s", raw, e.Targets(), err, c.want)
		}
		name, undo := e.(*BlockIP).Undo()
		raw, _ = json.Marshal(undo)
		if again, _, err := Decode(name, raw); err != nil || again.(*UnblockIP).Program == nil || *again.(*UnblockIP).Program != c.exe ||
			strings.Join(again.Targets(), " ") != c.targets {
			t.Errorf("the undo is %s, %v", raw, err)
		}
	}
	if e := spec.Resolve(&stream.Alert{}, Seen{}).(*BlockIP); e.Program == nil || *e.Program != "" {
		t.Errorf("of no process: %+v", e)
	}
	spec.Program = ""
	if e := spec.Resolve(&stream.Alert{Process: &stream.Process{Parent: &stream.Parent{Exe: word}}}, Seen{}); e != nil {
		t.Errorf("not asked for: %+v", e)
	}
}

type fileGuard struct{ Guard }

func (fileGuard) File(path string) error {
	if strings.Contains(path, "allowed") {
		return Refuse("it is what an allow-listed process runs")
	}
	return nil
}

func TestProgramRefused(t *testing.T) {
	t.Parallel()
	own, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for path, why := range map[string]string{
		word:                                "",
		`d:\x.exe`:                          "",
		`C:\Users\Jörg\雪.exe`:               "",
		"":                                  "does not name",
		`C:\allowed.exe`:                    "allow-listed",
		`x.exe`:                             "not an absolute path",
		`\x.exe`:                            "not an absolute path",
		`\\server\share\x.exe`:              "not an absolute path",
		`C:x.exe`:                           "not an absolute path",
		`C:\`:                               "not an absolute path",
		`C:\a\\x.exe`:                       "not an absolute path",
		`C:/a/x.exe`:                        "not an absolute path",
		`/usr/bin/x`:                        "not an absolute path",
		own:                                 "not an absolute path",
		`C:\a" remoteip=any.exe`:            "not an absolute path",
		"C:\\a\nb.exe":                      "not an absolute path",
		"C:\\a\u202eexe.b":                  "not an absolute path",
		`%SystemRoot%\x.exe`:                "not an absolute path",
		`C:\%TEMP%\x.exe`:                   "not an absolute path",
		`C:\*.exe`:                          "not an absolute path",
		`C:\x.exe:stream`:                   "not an absolute path",
		`C:\Program Files\..\Windows\x.exe`: "ends in a dot",
		`C:\x.exe.`:                         "ends in a dot",
		`C:\Windows \x.exe`:                 "ends in a dot or a space",
		`C:\PROGRA~1\x.exe`:                 "short name",
		`c:\WINDOWS\system32\svchost.exe`:   "belongs to Windows",
		`C:\` + strings.Repeat("a", 257):    "more than 259 bytes",
		*parentProgram(parentOf(`C:\` + strings.Repeat("a", 999))): "more than 259 bytes",
	} {
		err := guardedProgram(fileGuard{}, path, Netsh)
		if reason, refused := Reason(err); refused != (why != "") || !strings.Contains(reason, why) || err != nil && !refused {
			t.Errorf("%q: %v, want %q", path, err, why)
		}
	}
	if _, refused := Reason(guardedProgram(fileGuard{}, word, NFTables)); !refused {
		t.Error("nftables blocks programs")
	}
	// All of it or nothing, before any firewall is looked at.
	bad := ""
	b := &BlockIP{Address: "198.51.100.2", TTL: Duration(time.Hour), Backend: Netsh, Program: &bad}
	if _, err := b.Apply(t.Context(), Env{Guard: fileGuard{}}); err == nil || !strings.Contains(err.Error(), "does not name the executable") {
		t.Errorf("got %v", err)
	}
}

func parentOf(exe string) *stream.Alert {
	return &stream.Alert{Process: &stream.Process{Parent: &stream.Parent{Exe: exe}}}
}

// fakePrograms are the rules of one alert; ruined is a firewall that takes rules and has none.
type fakePrograms struct {
	rules  []string
	ruined bool
}

func (f *fakePrograms) programStands(_ context.Context, path string) (bool, error) {
	n := 0
	for _, r := range f.rules {
		if r == path {
			n++
		}
	}
	return n == 2, nil
}

func (f *fakePrograms) blockProgram(_ context.Context, path string) error {
	if !f.ruined {
		f.rules = append(f.rules, path, path)
	}
	return nil
}

func (f *fakePrograms) unblockProgram(_ context.Context, path string) error {
	f.rules = slices.DeleteFunc(f.rules, func(r string) bool { return r == path })
	return nil
}

// heap are claims in memory.
type heap map[string]claims

func (h heap) List(target string) ([]Claim, error) { return h[target], nil }

func (h heap) Put(target string, c Claim) error {
	h[target] = append(h[target].without(c.Key), c)
	return nil
}

func (h heap) Drop(target string, keys ...string) error {
	h[target] = h[target].without(keys...)
	return nil
}

// TestProgram blocks a program in two steps of one alert and takes them back, with a firewall that
// is none: Windows is not to be had here.
func TestProgram(t *testing.T) {
	t.Parallel()
	path, other, fw, kept := word, `C:\other.exe`, &fakePrograms{}, heap{}
	b := &BlockIP{TTL: Duration(time.Hour), Backend: Netsh, Program: &path}
	undo := &UnblockIP{Backend: Netsh, Undo: true, TTL: b.TTL, Program: &path}
	env := func(step string) Env { return Env{Key: step, AlertID: "a", Claims: kept} }
	taking := func(step string) Env { return Env{Key: step + "~undo", AlertID: "a", Claims: kept, Undoes: step} }
	inPlace := func(step string, want bool) {
		t.Helper()
		if r, ok, err := b.probeProgram(t.Context(), env(step), fw); ok != want || err != nil || ok && r.Outcome != Blocked {
			t.Errorf("%s: %v, %t, %v", step, r, ok, err)
		}
	}
	done := func(step string, want bool) {
		t.Helper()
		if r, ok, err := undo.lookProgram(t.Context(), taking(step), fw); ok != want || err != nil || r.Outcome != Unblocked {
			t.Errorf("undo of %s: %v, %t, %v", step, r, ok, err)
		}
	}
	done("one", true)
	fw.rules = []string{path, other, other} // half a block
	for _, step := range []string{"one", "two"} {
		inPlace(step, false)
		if r, err := b.enforceProgram(t.Context(), env(step), fw); err != nil || r.Outcome != Blocked {
			t.Fatal(r, err)
		}
		inPlace(step, true)
	}
	if len(fw.rules) != 4 {
		t.Errorf("rules %q", fw.rules)
	}
	for i, step := range []string{"one", "two"} {
		done(step, false)
		r, err := undo.releaseProgram(t.Context(), taking(step), fw)
		if stays := i == 0; err != nil || strings.Contains(r.Reason, "stays blocked") != stays {
			t.Errorf("undo of %s: %v, %v", step, r, err)
		}
		done(step, true)
		inPlace(step, false)
		if want := 4 - 2*i; len(fw.rules) != want {
			t.Errorf("after the undo of %s: %q", step, fw.rules)
		}
	}
	if left := kept[programTarget+path]; len(left) > 0 {
		t.Errorf("claims %+v", left)
	}
	fw.ruined = true
	if r, err := b.enforceProgram(t.Context(), env("three"), fw); err == nil || !strings.Contains(err.Error(), "not observed") {
		t.Errorf("got %v, %v", r, err)
	}
	if left := kept[programTarget+path]; len(left) != 1 || !left[0].Begun {
		t.Errorf("claims %+v", left)
	}
}
