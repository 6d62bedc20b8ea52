package main

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const (
	goodPlaybook = "name: NAME\nmatch: alert.level == \"HIGH\"\nsteps:\n  - name: log\n    action: log\n"
	goodRules    = "rules:\n  - id: ID\n    name: n\n    level: HIGH\n    child: [nc]\n"
)

// files writes a folder of files.
func files(t *testing.T, content map[string]string) (dir string) {
	t.Helper()
	dir = t.TempDir()
	for name, text := range content {
		path := filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, []byte(text), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func check(t *testing.T, code int, paths ...string) result {
	t.Helper()
	r := cli(t, "", append([]string{"check"}, paths...)...)
	if r.code != code {
		t.Errorf("check %v: exit %d, want %d\nstdout %s\nstderr %s", paths, r.code, code, r.out, r.err)
	}
	return r
}

func TestCheck(t *testing.T) {
	t.Parallel()
	dir := files(t, map[string]string{
		"books/a.yaml": goodPlaybook, "books/b.yml": strings.Replace(goodPlaybook, "NAME", "b", 1), "books/notes.txt": "x", "books/sub/c.yaml": "x",
		"rules/a.yaml": goodRules, "rules/b.yaml": strings.Replace(goodRules, "ID", "b", 1),
	})
	for name, text := range map[string]string{"books/a.yaml": goodPlaybook, "rules/a.yaml": goodRules} {
		text = strings.NewReplacer("NAME", "a", "ID", "a").Replace(text)
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	r := check(t, 0, dir+"/books", dir+"/rules", dir+"/books/a.yaml")
	want := []string{
		"OK   " + dir + "/books/a.yaml (playbook)", "OK   " + dir + "/books/b.yml (playbook)",
		"OK   " + dir + "/rules/a.yaml (rules)", "OK   " + dir + "/rules/b.yaml (rules)", "OK   " + dir + "/books/a.yaml (playbook)", "",
	}
	if got := strings.Split(r.out, "\n"); !slices.Equal(got, want) || r.err != "" {
		t.Errorf("stdout %q\nstderr %s", got, r.err)
	}
	// What Riposte brings itself is fine, too.
	check(t, 0, "../../playbook/library/default.yaml", "../../sensor/rules")
}

func TestCheckFinds(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		files map[string]string
		says  []string // %DIR is the folder
	}{
		"a typo in a playbook": {map[string]string{"a.yaml": strings.Replace(goodPlaybook, "action:", "acton:", 1)},
			[]string{`BAD  %DIR/a.yaml:5:5: unknown field "acton"; did you mean "action"?`}},
		"a typo in a rule": {map[string]string{"a.yaml": strings.Replace(goodRules, "child:", "chidl:", 1)},
			[]string{`BAD  %DIR/a.yaml:5:5: unknown field "chidl"; did you mean "child"?`}},
		"an unknown action": {map[string]string{"a.yaml": strings.Replace(goodPlaybook, "action: log", "action: lgo", 1)},
			[]string{"%DIR/a.yaml:5:13: ", `did you mean "log"?`}},
		"no YAML":      {map[string]string{"a.yaml": "a: [1"}, []string{"%DIR/a.yaml:1:"}},
		"empty":        {map[string]string{"a.yaml": ""}, []string{"%DIR/a.yaml: empty"}},
		"a list":       {map[string]string{"a.yaml": "- rules\n"}, []string{"%DIR/a.yaml"}},
		"quoted rules": {map[string]string{"a.yaml": strings.Replace(goodRules, "rules:", `"rules":`, 1) + "    levle: x\n"}, []string{`did you mean "level"?`}},
		"each file": {map[string]string{"a.yaml": "x: 1", "b.yaml": strings.Replace(goodPlaybook, "NAME", "b", 1), "c.yml": "y: 1"},
			[]string{"%DIR/a.yaml:1:1", "OK   %DIR/b.yaml", "%DIR/c.yml:1:1"}},
		"a name taken": {map[string]string{"a.yaml": goodPlaybook, "b.yaml": goodPlaybook},
			[]string{"OK   %DIR/a.yaml", "OK   %DIR/b.yaml", `BAD  %DIR/b.yaml: name "NAME" is taken by %DIR/a.yaml`}},
		"an ID taken": {map[string]string{"a.yaml": strings.Replace(goodRules, "ID", "x", 1), "b.yaml": strings.Replace(goodRules, "ID", "x", 1)},
			[]string{`BAD  %DIR/b.yaml:2:`, `rule id "x" is already taken at %DIR/a.yaml`}},
		"a mixed folder": {map[string]string{"a.yaml": goodPlaybook, "b.yaml": strings.Replace(goodRules, "ID", "x", 1)},
			[]string{"BAD  %DIR: playbooks and rules in one folder"}},
		"an empty folder": {map[string]string{"a.txt": "x"}, []string{"BAD  %DIR: no *.yaml"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := files(t, c.files)
			r := check(t, 1, dir)
			for _, says := range c.says {
				if says = strings.ReplaceAll(says, "%DIR", dir); !strings.Contains(r.out, says) {
					t.Errorf("stdout lacks %q:\n%s", says, r.out)
				}
			}
			if !strings.Contains(r.err, "not usable") {
				t.Errorf("stderr %s", r.err)
			}
		})
	}
	missing := filepath.Join(t.TempDir(), "none")
	if r := check(t, 1, missing); !strings.Contains(r.out, "BAD") || !strings.Contains(r.out, missing) {
		t.Errorf("a missing file: %s", r.out)
	}
	check(t, 2)
}

func TestCheckJSON(t *testing.T) {
	t.Parallel()
	dir := files(t, map[string]string{"a.yaml": strings.Replace(goodPlaybook, "NAME", "a", 1), "b.yaml": "rules: 1"})
	r := check(t, 1, dir+"/a.yaml", dir+"/b.yaml", "-o", "json")
	var got []checked
	if err := json.Unmarshal([]byte(r.out), &got); err != nil || len(got) != 2 {
		t.Fatalf("%v\n%s", err, r.out)
	}
	if a := got[0]; !a.OK || a.Kind != playbookFile || a.File != dir+"/a.yaml" || len(a.Errors) != 0 {
		t.Errorf("%+v", a)
	}
	if b := got[1]; b.OK || b.Kind != ruleFile || len(b.Errors) != 1 || !strings.HasPrefix(b.Errors[0], dir+"/b.yaml:1:") {
		t.Errorf("%+v", b)
	}
}
