package sensor

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const goodRule = `rules:
  - id: a-rule
    name: A rule
    level: HIGH
    child: [sh]
`

func TestRuleFileErrorsNameThePlace(t *testing.T) {
	for _, c := range []struct{ src, want string }{
		{strings.Replace(goodRule, "child", "paretn", 1), `f.yaml:5:5: unknown field "paretn"; did you mean "parent"?`},
		{strings.Replace(goodRule, "rules", "rulse", 1), `f.yaml:1:1: unknown field "rulse"; did you mean "rules"?`},
		{strings.Replace(goodRule, "HIGH", "HIHG", 1), `f.yaml:4:12: level: unknown level "HIHG"; did you mean "HIGH"?`},
		{strings.Replace(goodRule, "HIGH", "high", 1), `f.yaml:4:12: level: unknown level "high"; did you mean "HIGH"?`},
		{goodRule + "    cmdline: ['ok', '(']\n", "f.yaml:6:21: cmdline[1]: error parsing regexp"},
		{goodRule + "    parent:\n      - sh\n      - ''\n", "f.yaml:8:9: parent[1]: empty"},
		{goodRule + "    parent:\n", "parent is empty; leave it out"},
		{goodRule + "    exe: []\n", "f.yaml:6:10: exe is empty; leave it out"},
		{goodRule + "    user: root\n", "f.yaml:6:11: "},
		{goodRule + "    level: LOW\n", "f.yaml:6:5: "},
		{goodRule + "  - id: a-rule\n    name: B\n    level: LOW\n    child: [x]\n", `f.yaml:6:9: rule id "a-rule" is already taken at f.yaml:2:9`},
		{strings.Replace(goodRule, "a-rule", "A rule", 1), "f.yaml:2:9: id: want 1 to 64"},
		{strings.Replace(goodRule, "    child: [sh]\n", "", 1), "f.yaml:2:"},
		{strings.Replace(goodRule, "name: A rule", "author: x", 1), "needs a name"},
		{strings.Replace(goodRule, "    level: HIGH\n", "", 1), "needs a level"},
		{strings.Replace(goodRule, "id: a-rule", "author: x", 1), "needs an id"},
		{"rules: []\n", "f.yaml:1:"},
		{"", "f.yaml: empty"},
		{goodRule + "---\n" + goodRule, "a second document"},
	} {
		_, err := DecodeRules("f.yaml", []byte(c.src))
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s\ngot  %v\nwant %s", c.src, err, c.want)
		}
	}
}

func TestLoadRules(t *testing.T) {
	dir := t.TempDir()
	if _, err := LoadRules(dir); err == nil || !strings.Contains(err.Error(), dir) {
		t.Errorf("a folder without rules: %v", err)
	}
	write := func(name, src string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(src), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	first := write("a.yml", strings.Replace(goodRule, "a-rule", "first", 1)+"    user: [0, www-data]\n")
	write("b.yaml", strings.Replace(goodRule, "a-rule", "second", 1))
	write("README", "not: [yaml")
	rules, err := LoadRules(dir)
	if err != nil {
		t.Fatal(err)
	}
	if len(rules) != 2 || rules[0].ID != "first" || rules[1].ID != "second" {
		t.Errorf("rules: %+v", rules)
	}
	if u := rules[0].User; len(u) != 2 || u[0] != "0" || u[1] != "www-data" {
		t.Errorf("users: %q", u)
	}
	second := write("c.yaml", strings.Replace(goodRule, "a-rule", "first", 1))
	_, err = LoadRules(dir)
	if want := second + `:2:9: rule id "first" is already taken at ` + first + ":2:9"; err == nil || err.Error() != want {
		t.Errorf("got  %v\nwant %s", err, want)
	}
}

func TestMatch(t *testing.T) {
	parent := &snapshot{name: "php-fpm8.2", exe: "/usr/sbin/php-fpm8.2"}
	child := &snapshot{name: "sh", exe: "/usr/bin/dash", cmdline: "sh -c ID", uid: 0}
	parent.index()
	child.index()
	for _, c := range []struct {
		rule Rule
		want bool
	}{
		{Rule{Child: []string{"sh"}}, true},
		{Rule{Child: []string{"dash"}}, true}, // by executable
		{Rule{Child: []string{"bash", "SH.exe"}}, true},
		{Rule{Child: []string{"bash"}}, false},
		{Rule{Child: []string{"s"}}, false},
		{Rule{Child: []string{"?h"}}, true},
		{Rule{Child: []string{"*.exe"}}, false},
		{Rule{Parent: []string{"PHP-FPM*"}}, true},
		{Rule{Parent: []string{"php-fpm"}}, false},
		{Rule{Parent: []string{"php-fpm*"}, Child: []string{"bash"}}, false}, // all must hold
		{Rule{Exe: []string{"/usr/**"}}, true},
		{Rule{Exe: []string{"/usr/*"}}, false},
		{Rule{Exe: []string{"/usr/*/d?sh"}}, true},
		{Rule{Exe: []string{"/usr/bin/das."}}, false}, // no expression
		{Rule{Cmdline: []string{"nothing", "-c I"}}, true},
		{Rule{Cmdline: []string{"-c id"}}, false}, // case counts here
		{Rule{Cmdline: []string{"(?i)-c id"}}, true},
		{Rule{User: []string{"0"}}, true},
		{Rule{User: []string{"nobody", "root"}}, true},
		{Rule{User: []string{"1", "nobody"}}, false},
	} {
		c.rule.ID, c.rule.Name, c.rule.Level = "x", "x", "LOW"
		if err := c.rule.Validate(); err != nil {
			t.Fatal(err)
		}
		m := new(matcher)
		c.rule.compile(m)
		if got := m.byName(child, parent) && m.byRest(child); got != c.want {
			t.Errorf("%+v: %v", c.rule, got)
		}
		if len(c.rule.Parent) > 0 && m.byName(child, nil) {
			t.Errorf("%+v matches without a parent", c.rule)
		}
	}
}

func FuzzDecodeRules(f *testing.F) {
	f.Add([]byte(goodRule))
	f.Add([]byte(goodRule + "    parent: &a [x]\n    cmdline: *a\n"))
	f.Add([]byte("rules: [{id: x, name: x, level: LOW, exe: ['/tmp/**'], user: [0, root], cmdline: ['(?i)a|b']}]"))
	f.Add([]byte("rules:\n- id: x\n  child:\n"))
	f.Fuzz(func(t *testing.T, src []byte) {
		rules, err := DecodeRules("f.yaml", src)
		if err != nil {
			if !strings.HasPrefix(err.Error(), "f.yaml") {
				t.Errorf("an error that does not name the file: %v", err)
			}
			return
		}
		if len(rules) == 0 {
			t.Error("no rules and no error")
		}
		for _, r := range rules {
			if err := r.Validate(); err != nil {
				t.Errorf("decoded, but %v", err)
			}
		}
	})
}
