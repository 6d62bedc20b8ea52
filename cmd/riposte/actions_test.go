package main

import (
	"encoding/json"
	"regexp"
	"slices"
	"strings"
	"testing"

	"riposte/playbook"
	"riposte/playbook/action"
)

// unwritten are actions without a page. None may join them.
var unwritten = []string{"block_ip", "terminate_process"}

var yamlBlock = regexp.MustCompile("(?ms)^```yaml\n(.*?)^```$")

// Every action has a page with what somebody needs who writes a playbook, and its examples
// are playbooks that name it.
func TestReferencePages(t *testing.T) {
	for _, name := range action.Names() {
		page, err := action.Reference(name)
		if err != nil {
			if !slices.Contains(unwritten, name) {
				t.Error(err)
			}
			continue
		}
		if !strings.HasPrefix(page, "# "+name+"\n") {
			t.Errorf("%s: the page begins with %.40q", name, page)
		}
		kind, _ := action.Lookup(name)
		if !strings.Contains(page, string(kind.Class)) {
			t.Errorf("%s: its class, %s, is not on its page", name, kind.Class)
		}
		for _, c := range kind.Spec().Capabilities(false) {
			if !strings.Contains(page, string(c)) {
				t.Errorf("%s: %s is not on its page", name, c)
			}
		}
		examples := yamlBlock.FindAllStringSubmatch(page, -1)
		if len(examples) == 0 {
			t.Errorf("%s: no example on its page", name)
		}
		for _, example := range examples {
			if _, err := playbook.Decode(name+".md", []byte(example[1])); err != nil || !strings.Contains(example[1], "action: "+name+"\n") {
				t.Errorf("%s: an example that is no playbook of it: %v\n%s", name, err, example[1])
			}
		}
	}
}

func TestActions(t *testing.T) {
	t.Parallel()
	r := cli(t, "", "actions")
	if lines := strings.Split(r.out, "\n"); r.code != 0 || r.err != "" || len(lines) != len(action.Names())+2 || !strings.HasPrefix(lines[0], "ACTION ") {
		t.Errorf("exit %d\n%s%s", r.code, r.out, r.err)
	}
	for _, row := range []string{
		`(?m)^log +idempotent +- +- +linux windows darwin +-$`,
		`(?m)^collect_evidence +idempotent +yes +- +linux +CAP_DAC_READ_SEARCH CAP_SYS_PTRACE$`,
		`(?m)^run_script +at-most-once +- +- +linux +-$`,
	} {
		if !regexp.MustCompile(row).MatchString(r.out) {
			t.Errorf("no %s in\n%s", row, r.out)
		}
	}
	r = cli(t, "", "actions", "-o", "json")
	var list []actionRow
	if err := json.Unmarshal([]byte(r.out), &list); err != nil || len(list) != len(action.Names()) || strings.Contains(r.out, "null") || strings.Contains(r.out, "reference") {
		t.Errorf("%v\n%s", err, r.out)
	}
	page, err := action.Reference("log")
	if r = cli(t, "", "actions", "log"); err != nil || r.code != 0 || r.out != page {
		t.Errorf("exit %d, %v\n%s", r.code, err, r.out)
	}
	var one actionRow
	if r = cli(t, "", "actions", "log", "-o", "json"); json.Unmarshal([]byte(r.out), &one) != nil || one.Name != "log" || one.Reference != page {
		t.Errorf("exit %d\n%s", r.code, r.out)
	}
	for name, says := range map[string]string{"lgo": `did you mean "log"?`, "../doc": "valid are ", "": "unknown action"} {
		if r = cli(t, "", "actions", name); r.code != 2 || r.out != "" || !strings.Contains(r.err, says) {
			t.Errorf("%q: exit %d, %s%s", name, r.code, r.out, r.err)
		}
	}
	if r = cli(t, "", "actions", "log", "log"); r.code != 2 {
		t.Errorf("two names: exit %d", r.code)
	}
	// The shell takes those that begin with what was typed.
	if r = cli(t, "", "__complete", "actions", ""); !strings.HasPrefix(r.out, strings.Join(action.Names(), "\n")+"\n") {
		t.Errorf("completion: %s%s", r.out, r.err)
	}
	if r = cli(t, "", "__complete", "actions", "log", ""); strings.Contains(r.out, "log") {
		t.Errorf("completion of a second name: %s%s", r.out, r.err)
	}
}
