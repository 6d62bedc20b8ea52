package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"riposte/playbook"
	"riposte/test/need"
)

const goodAllow = `allow:
  processes:
    - {name: restic, exe: /usr/bin/restic, reason: our backup}
    - {name: anything}
  networks:
    - {network: 198.51.100.0/24, reason: our own}
`

func TestCheckAllow(t *testing.T) {
	t.Parallel()
	dir := files(t, map[string]string{"good/allow.yaml": goodAllow, "bad/allow.yaml": strings.Replace(goodAllow, "exe:", "exee:", 1), "mixed/allow.yaml": goodAllow,
		"mixed/book.yaml": goodPlaybook, "broken/allow.yaml": goodAllow, "broken/b.yaml": "a: [1"})
	r := check(t, 0, dir+"/good/allow.yaml", dir+"/good")
	warning := "WARN " + dir + "/good/allow.yaml:4:7: any process can make itself look like this (name anything)"
	if strings.Count(r.out, "OK   "+dir+"/good/allow.yaml (allow-list)\n"+warning) != 2 || strings.Count(r.out, "\n") != 4 {
		t.Errorf("stdout %s", r.out)
	}
	if r := check(t, 1, dir+"/bad"); !strings.Contains(r.out, `BAD  `+dir+`/bad/allow.yaml:3:22: unknown field "exee"; did you mean "exe"?`) {
		t.Errorf("stdout %s", r.out)
	}
	if r := check(t, 1, dir+"/mixed"); !strings.Contains(r.out, "BAD  "+dir+"/mixed: an allow-list beside other files") {
		t.Errorf("stdout %s", r.out)
	}
	if r := check(t, 1, dir+"/broken"); strings.Contains(r.out, "beside") || !strings.Contains(r.out, "b.yaml:1:") {
		t.Errorf("stdout %s", r.out)
	}
	var got []checked
	r = check(t, 0, dir+"/good/allow.yaml", "-o", "json")
	if err := json.Unmarshal([]byte(r.out), &got); err != nil || len(got) != 1 || !got[0].OK || got[0].Kind != allowFile || len(got[0].Warnings) != 1 || got[0].Errors != nil {
		t.Errorf("%v\n%s", err, r.out)
	}
}

func TestExplainAllow(t *testing.T) {
	t.Parallel()
	need.Linux(t)
	dir := files(t, map[string]string{"allow.yaml": goodAllow, "bad.yaml": "allow: 1"})
	explain := func(code int, address string, more ...string) result {
		t.Helper()
		args := append([]string{"explain", "-", "--host", "h", "--runtime-dir", dir + "/run", "--state-dir", dir + "/state"}, more...)
		r := cli(t, `{"id":"a","level":"HIGH","title":"t","source_ip":"`+address+`"}`, args...)
		if r.code != code {
			t.Errorf("explain %v: exit %d\n%s%s", more, r.code, r.out, r.err)
		}
		return r
	}
	const why = "198.51.100.7 is allow-listed: our own (198.51.100.0/24)"
	if r := explain(0, "198.51.100.7", "--allow", dir+"/allow.yaml"); !strings.Contains(r.out, "refused") || !strings.Contains(r.out, why) {
		t.Errorf("stdout %s", r.out)
	}
	for _, r := range []result{explain(0, "198.51.100.7"), explain(0, "203.0.113.7", "--allow", dir+"/allow.yaml")} {
		if strings.Contains(r.out, "allow-listed") {
			t.Errorf("stdout %s", r.out)
		}
	}
	if r := explain(1, "198.51.100.7", "--allow", dir+"/bad.yaml"); !strings.Contains(r.err, dir+"/bad.yaml:1:8: ") {
		t.Errorf("stderr %s", r.err)
	}
}

// A responder does not start with half of a list, or without the one it was told of.
func TestResponderAllow(t *testing.T) {
	t.Parallel()
	dir := files(t, map[string]string{"bad.yaml": "allow: {networks: [{network: 10.0.0.1/8}]}"})
	for path, says := range map[string]string{"/does/not/exist": "allow-list: open /does/not/exist", dir + "/bad.yaml": dir + "/bad.yaml:1:30: network: 10.0.0.1/8 is an address"} {
		r := cli(t, "", "responder", "--host", "h", "--redis", "unix:///does/not/exist", "--mode", playbook.Modes[0], "--allow", path)
		if r.code != exitFailure || !strings.Contains(r.err, says) {
			t.Errorf("exit %d, stderr %s", r.code, r.err)
		}
	}
}

// A source is read when it has changed and is steady, once for each change.
func TestSourceChanges(t *testing.T) {
	t.Parallel()
	a := &app{log: newLogger(os.Stderr, "error", "text")}
	dir := files(t, map[string]string{"folder/a.yaml": "1", "file.yaml": "1"})
	for _, path := range []string{dir + "/folder", dir + "/file.yaml"} {
		s := newSource("x", path)
		looks := func(what string, want ...bool) {
			t.Helper()
			for i, w := range want {
				if got := s.changed(a.log); got != w {
					t.Errorf("%s: %s: look %d says %t", path, what, i+1, got)
				}
			}
		}
		file := path
		if filepath.Ext(path) == "" {
			file += "/a.yaml"
		}
		write := func(text string) {
			t.Helper()
			if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		looks("nothing has happened", false, false)
		write("22")
		looks("written", false, true, false, false)
		write("333")
		looks("still being written", false)
		write("4444")
		looks("written at last", false, true, false)
		if err := os.Rename(dir, dir+".aside"); err != nil {
			t.Fatal(err)
		}
		looks("gone", false, false, false)
		if err := os.Rename(dir+".aside", dir); err != nil {
			t.Fatal(err)
		}
		looks("back", false, true, false)
	}
}
