package playbook_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"riposte/playbook"
	"riposte/playbook/action"
)

// What is wrong in a playbook is said with its place and, where a name is wrong, with the
// nearest one that is right.
func TestDecodeSaysWhatIsWrong(t *testing.T) {
	const head = "name: contain\nmatch: \"true\"\nsteps:\n" // steps begin on line 4
	for _, c := range []struct{ what, src, want string }{
		{"field of a playbook", "name: contain\nmtch: \"true\"\nsteps: []\n",
			`p.yaml:2:1: unknown field "mtch"; did you mean "match"?`},
		{"field of a step", head + "  - name: a\n    acton: log\n",
			`p.yaml:5:5: unknown field "acton"; did you mean "action"?`},
		{"field of retry", head + "  - name: a\n    action: log\n    retry:\n      atempts: 3\n",
			`p.yaml:7:7: unknown field "atempts"; did you mean "attempts"?`},
		{"field of with", head + "  - name: a\n    action: terminate_process\n    with:\n      grce: 1s\n",
			`p.yaml:7:7: unknown field "grce"; did you mean "grace"?`},
		{"field of another action's with", head + "  - name: a\n    action: log\n    with: {grace: 1s}\n",
			`p.yaml:6:12: unknown field "grace"; valid are path`},
		{"action", head + "  - name: a\n    action: terminate_proces\n",
			`p.yaml:5:13: step "a": unknown action "terminate_proces"; did you mean "terminate_process"?`},
		{"action like no other", head + "  - name: a\n    action: reboot_everything\n",
			`p.yaml:5:13: step "a": unknown action "reboot_everything"; valid are ` + strings.Join(action.Names(), ", ")},
		{"no action", head + "  - name: a\n  - name: b\n    action: log\n",
			`p.yaml:4:9: step "a": unknown action "";`},
		{"second step's action", head + "  - name: a\n    action: log\n  - name: b\n    action: logg\n",
			`p.yaml:7:13: step "b": unknown action "logg"; did you mean "log"?`},
		{"mode", "name: contain\nmode: enforced\nmatch: \"true\"\nsteps:\n  - name: a\n    action: log\n",
			`p.yaml:2:7: mode "enforced"; did you mean "enforce"?`},

		{"condition: field of the alert", "name: contain\nmatch: alert.levle == \"HIGH\"\nsteps:\n  - name: a\n    action: log\n",
			`p.yaml:2:14: match: unknown field "levle"; did you mean "level"?`},
		{"condition: field of the process", "name: contain\n\nmatch: >-\n  alert.level == \"HIGH\"\n  and alert.process.nmae == \"nc\"\nsteps:\n  - name: a\n    action: log\n",
			`p.yaml:5:21: match: unknown field "nmae"; did you mean "name"?`},
		{"condition: field of the parent", "name: contain\nmatch: alert.process.parent.start_tick == 1\nsteps:\n  - name: a\n    action: log\n",
			`p.yaml:2:29: match: unknown field "start_tick"; did you mean "start_ticks"?`},
		{"condition: field of the rule", "name: contain\nmatch: alert.rule.tag == \"x\"\nsteps:\n  - name: a\n    action: log\n",
			`p.yaml:2:19: match: unknown field "tag"; did you mean "tags"?`},
		{"condition: name", "name: contain\nmatch: alrt.level == \"HIGH\"\nsteps:\n  - name: a\n    action: log\n",
			`p.yaml:2:8: match: unknown name alrt; did you mean "alert"?`},
		{"condition: no yes or no", "name: contain\nmatch: alert.level\nsteps:\n  - name: a\n    action: log\n",
			`p.yaml:2:8: match: expected bool, but got string`},
		{"condition: types", "name: contain\nmatch: alert.actionable_pid == \"12\"\nsteps:\n  - name: a\n    action: log\n",
			`p.yaml:2:29: match: invalid operation: == (mismatched types int64 and string)`},
		{"condition: half", "name: contain\nmatch: alert.level ==\nsteps:\n  - name: a\n    action: log\n",
			`p.yaml:2:21: match: unexpected token EOF`},
		{"condition: literal block", "name: contain\nmatch: |\n  alert.level == \"HIGH\" and\n    alert.process.nmae == \"nc\"\nsteps:\n  - name: a\n    action: log\n",
			`p.yaml:4:19: match: unknown field "nmae"`},
		{"condition: in double quotes", "name: contain\nmatch: \"alert.level == \\\"HIGH\\\" and alert.levle == \\\"x\\\"\"\nsteps:\n  - name: a\n    action: log\n",
			`p.yaml:2:43: match: unknown field "levle"`},
		{"condition: in single quotes", "name: contain\nmatch: 'alert.level == ''HIGH'' and alert.levle == \"x\"'\nsteps:\n  - name: a\n    action: log\n",
			`p.yaml:2:43: match: unknown field "levle"`},
		{"condition: folded", "name: contain\nmatch: alert.level == \"é\"\n  and   alert.levle == \"x\"\nsteps:\n  - name: a\n    action: log\n",
			`p.yaml:3:15: match: unknown field "levle"`},
		{"condition: in other words", "name: contain\nmatch: \"alert.level == '\\u0041' and alert.levle == 'x'\"\nsteps:\n  - name: a\n    action: log\n",
			`p.yaml:2:8: match: unknown field "levle"`},
		{"condition: missing", "name: contain\nsteps:\n  - name: a\n    action: log\n",
			"p.yaml:1:5: match is missing"},

		{"duration in with", head + "  - name: a\n    action: terminate_process\n    with:\n      grace: 1 second\n",
			`p.yaml:7:14: time: unknown unit " second" in duration "1 second"; write it like 300ms, 5s or 1h30m`},
		{"duration without a unit", head + "  - name: a\n    action: log\n    timeout: 30\n",
			`p.yaml:6:14: 30 what? write 30s`},
		{"fraction of a duration without a unit", head + "  - name: a\n    action: log\n    timeout: 0.5\n",
			`p.yaml:6:14: 0.5 what? write 0.5s`},
		{"quoted duration without a unit", head + "  - name: a\n    action: terminate_process\n    with: {grace: \"2\"}\n",
			`p.yaml:6:19: 2 what? write 2s`},
		{"no duration at all", head + "  - name: a\n    action: log\n    timeout: [1s]\n",
			`p.yaml:6:14: want a time such as 300ms, 5s or 1h30m`},
		{"duration of a step", head + "  - name: a\n    action: log\n    timeout: 3q\n",
			`p.yaml:6:14: time: unknown unit "q" in duration "3q"`},
		{"grace too long", head + "  - name: a\n    action: terminate_process\n    with: {grace: 61s}\n",
			`step "a": grace: 1m1s is not within 0s to 1m`},
		{"grace negative", head + "  - name: a\n    action: terminate_process\n    with: {grace: -1s}\n",
			`p.yaml:6:11: step "a": grace: -1s is not within 0s to 1m`},
		{"timeout that cuts off the grace", head + "  - name: a\n    action: terminate_process\n    with: {grace: 10s}\n",
			`step "a": timeout 10s: the action alone may take 10s; allow more`},
		{"template: unknown field", head + "  - name: a\n    action: block_ip\n    with:\n      ttl: '{{ alert.levl == \"HIGH\" ? \"4h\" : \"1h\" }}'\n",
			`p.yaml:7:22: step "a": ttl: unknown field "levl"; did you mean "level"?`},
		{"template: a number", head + "  - name: a\n    action: block_ip\n    with: {ttl: '{{ alert.actionable_pid }}'}\n",
			`step "a": ttl: expected string, but got int`},
		{"template: a yes", head + "  - name: a\n    action: terminate_process\n    with: {grace: '{{ alert.level == \"HIGH\" }}'}\n",
			`step "a": grace: expected string, but got bool`},
		{"template: a later step", head + "  - name: a\n    action: isolate_host\n    with: {ttl: '{{ steps.b.ok ? \"4h\" : \"1h\" }}'}\n",
			`p.yaml:6:27: step "a": ttl: no step before this one is called "b"`},
		{"template: a time that is none", head + "  - name: a\n    action: block_ip\n    with:\n      ttl: '{{ alert.level == \"HIGH\" ? \"1d\" : \"1h\" }}'\n",
			`p.yaml:7:40: step "a": ttl: "1d" is no time such as 300ms, 5s or 1h30m`},
		{"template: a time too long", head + "  - name: a\n    action: isolate_host\n    with:\n      ttl: '{{ alert.extra.ttl ?? \"48h\" }}'\n",
			`p.yaml:7:35: step "a": ttl: 48h0m0s is not a whole number of seconds within 1m to 24h`},
		{"template: a time longer than the step's", head + "  - name: a\n    action: terminate_process\n    with:\n      grace: '{{ alert.level == \"LOW\" ? (alert.title == \"x\" ? \"30s\" : \"0s\") : \"1s\" }}'\n",
			`p.yaml:7:63: step "a": timeout 10s: the action alone may take 30s; allow more`},
		{"template without an end", head + "  - name: a\n    action: block_ip\n    with: {ttl: '{{ alert.title'}\n",
			`step "a": ttl: {{ without }}`},
		{"template beside with", head + "  - name: a\n    action: block_ip\n    timeout: '{{ alert.title }}'\n",
			`p.yaml:6:14: time: invalid duration "{{ alert.title }}"`},
		{"timeout too short", head + "  - name: a\n    action: log\n    timeout: 1ms\n",
			`p.yaml:6:14: step "a": timeout 1ms: want 100ms to 10m`},
		{"attempts below 1", head + "  - name: a\n    action: log\n    retry: {attempts: -1}\n",
			`p.yaml:6:23: step "a": retry.attempts -1: want 1 to 100`},
		{"no attempts", head + "  - name: a\n    action: log\n    retry: {attempts: 0}\n",
			`p.yaml:6:23: step "a": retry.attempts 0: want 1 to 100; 1 is once, without a retry`},
		{"no timeout", head + "  - name: a\n    action: log\n    timeout: 0s\n",
			`p.yaml:6:14: step "a": timeout 0s: want 100ms to 10m`},
		{"no first pause", head + "  - name: a\n    action: log\n    retry:\n      initial: 0s\n",
			`p.yaml:7:16: step "a": retry.initial 0s: want 1ms to 1h`},
		{"no longest pause", head + "  - name: a\n    action: log\n    retry:\n      max: 0s\n",
			`p.yaml:7:12: step "a": retry.max 0s: want initial, which is 200ms, to 1h`},
		{"no attempts, behind an anchor", head + "  - &s {name: a, action: log, retry: {attempts: 0}}\n",
			`p.yaml:4:49: step "a": retry.attempts 0: want 1 to 100`},
		{"attempts that are no number", head + "  - name: a\n    action: log\n    retry: {attempts: many}\n",
			`p.yaml:6:23: want a whole number`},
		{"initial above max", head + "  - name: a\n    action: log\n    retry: {initial: 2s, max: 1s}\n",
			`p.yaml:6:31: step "a": retry.max 1s: want initial, which is 2s, to 1h`},
		{"path not absolute", head + "  - name: a\n    action: log\n    with: {path: x.log}\n",
			`p.yaml:6:11: step "a": path: "x.log" is not absolute`},
		{"network", head + "  - name: a\n    action: block_ip\n    with: {address: 10.0.0.0/8}\n",
			`step "a": address: 10.0.0.0/8 is a network`},
		{"block too long", head + "  - name: a\n    action: block_ip\n    with: {ttl: 25h}\n",
			`p.yaml:6:11: step "a": ttl: 25h0m0s is not`},
		{"with that is no mapping", head + "  - name: a\n    action: log\n    with: /tmp/x\n",
			`p.yaml:6:11: string was used where mapping is expected`},

		{"no name", "match: \"true\"\nsteps:\n  - name: a\n    action: log\n", `name "": want`},
		{"name that would split a key", "name: a/b\nmatch: \"true\"\nsteps:\n  - name: a\n    action: log\n", `p.yaml:1:7: name "a/b": want`},
		{"name of what no playbook decides", "name: \"-\"\nmatch: \"true\"\nsteps:\n  - name: a\n    action: log\n", `p.yaml:1:7: name "-": want`},
		{"step's name that would split a key", head + "  - name: a/b\n    action: log\n", `p.yaml:4:11: step "a/b": name: want`},
		{"two steps of one name", head + "  - name: a\n    action: log\n  - name: a\n    action: log\n", `p.yaml:6:11: two steps are called "a"`},
		{"no steps", "name: contain\nmatch: \"true\"\nsteps: []\n", `p.yaml:3:8: no steps`},
		{"a field twice", "name: contain\nname: other\n", `p.yaml:2:1: mapping key "name" already defined`},
		{"no mapping", "- name: contain\n", `p.yaml:1:1: sequence was used where mapping is expected`},
		{"two documents", head + "  - name: a\n    action: log\n---\nname: b\n", `p.yaml:7:5: a second document`},
		{"no YAML", "name: [a\n", `p.yaml:1:7: `},
		{"nothing", "", `p.yaml: empty`},
		{"too much", "#" + strings.Repeat(" ", 1<<20), `p.yaml: 1048577 bytes, more than 1048576`},
	} {
		t.Run(c.what, func(t *testing.T) {
			p, err := playbook.Decode("p.yaml", []byte(c.src))
			if err == nil {
				t.Fatalf("accepted as %+v\n%s", p, c.src)
			}
			if !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "\n") {
				t.Errorf("\ngot  %v\nwant %s\n%s", err, c.want, c.src)
			}
		})
	}
}

func TestDecodeDefaults(t *testing.T) {
	p, err := playbook.Decode("p.yaml", []byte("name: contain\nmatch: \"true\"\nsteps:\n  - name: a\n    action: log\n    with:\n  - name: b\n    action: log\n    timeout: 1m\n    retry: {attempts: 1, initial: 20s}\n  - name: c\n    action: log\n    timeout:\n    retry:\n"))
	if err != nil {
		t.Fatal(err)
	}
	a, b := p.Steps[0], p.Steps[1]
	if want := (playbook.Retry{Attempts: 5, Initial: 200 * time.Millisecond, Max: 10 * time.Second}); a.Retry != want || a.Timeout != 10*time.Second {
		t.Errorf("step a: %+v, timeout %s", a.Retry, a.Timeout)
	}
	// A pause that begins above the default maximum raises it.
	if want := (playbook.Retry{Attempts: 1, Initial: 20 * time.Second, Max: 20 * time.Second}); b.Retry != want || b.Timeout != time.Minute {
		t.Errorf("step b: %+v, timeout %s", b.Retry, b.Timeout)
	}
	if c := p.Steps[2]; c.Retry != a.Retry || c.Timeout != a.Timeout {
		t.Errorf("step c, of which nothing stands behind the words: %+v, timeout %s", c.Retry, c.Timeout)
	}
	again, err := playbook.Decode("q.yaml", []byte("name: contain\nmatch: \"true\"\nsteps:\n  - name: a\n    action: log\n"))
	if err != nil {
		t.Fatal(err)
	}
	if len(p.Hash) != 16 || p.Hash == again.Hash {
		t.Errorf("hashes %q and %q of two playbooks", p.Hash, again.Hash)
	}
}

// Playbooks run in the order of their files, and all that is wrong is said at once.
func TestLoad(t *testing.T) {
	const tail = "\nmatch: \"true\"\nsteps:\n  - name: a\n    action: log\n"
	folder := func(files map[string]string) string {
		dir := t.TempDir()
		for name, src := range files {
			if err := os.WriteFile(filepath.Join(dir, name), []byte(src), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		return dir
	}
	books, err := playbook.Load(folder(map[string]string{
		"20-b.yml": "name: first" + tail, "10-c.yaml": "name: second" + tail, "notes.txt": "not a playbook", "30.yaml": "name: third" + tail,
	}))
	if err != nil {
		t.Fatal(err)
	}
	var order []string
	for _, p := range books {
		order = append(order, p.Name)
	}
	if got := strings.Join(order, " "); got != "second first third" {
		t.Errorf("order %q", got)
	}

	for what, c := range map[string]struct {
		files map[string]string
		want  []string
	}{
		"two wrong files": {map[string]string{"a.yaml": "nam: a", "b.yaml": "name: b" + tail + "x: 1\n"}, []string{"a.yaml:1:1: ", "b.yaml:6:1: "}},
		"a name twice":    {map[string]string{"a.yaml": "name: a" + tail, "b.yaml": "name: a" + tail}, []string{`b.yaml: name "a" is taken by `, "a.yaml"}},
		"no playbooks":    {map[string]string{"notes.txt": ""}, []string{"no .yaml file in "}},
	} {
		_, err := playbook.Load(folder(c.files))
		for _, want := range c.want {
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%s: got %v, want %q", what, err, want)
			}
		}
	}
	if _, err := playbook.Load(filepath.Join(t.TempDir(), "absent")); err == nil {
		t.Error("a folder that is not there was loaded")
	}
}

func TestDefaultPlaybook(t *testing.T) {
	books, err := playbook.Default()
	if err != nil {
		t.Fatal(err)
	}
	var steps []string
	for _, s := range books[0].Steps {
		steps = append(steps, s.Name+"="+s.Action)
	}
	if got := strings.Join(steps, " "); len(books) != 1 || got != "terminate=terminate_process block=block_ip log=log" {
		t.Errorf("%d playbooks, steps %s", len(books), got)
	}
}

// Capabilities are asked for only where there can be an effect.
func TestCapabilities(t *testing.T) {
	books, err := playbook.Default()
	if err != nil {
		t.Fatal(err)
	}
	watch, err := playbook.Decode("p.yaml", []byte("name: w\nmode: observe\nmatch: \"true\"\nsteps:\n  - name: a\n    action: terminate_process\n"))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		books  []*playbook.Playbook
		mode   playbook.Mode
		ownUID bool
		want   string
	}{
		{books, playbook.Enforce, false, "CAP_KILL CAP_SYS_PTRACE CAP_NET_ADMIN"},
		{books, playbook.Enforce, true, "CAP_NET_ADMIN"},
		{books, playbook.Observe, false, ""},
		{[]*playbook.Playbook{watch}, playbook.Enforce, false, ""},
	} {
		var got []string
		for _, cap := range playbook.Capabilities(c.books, c.mode, c.ownUID) {
			got = append(got, string(cap))
		}
		if strings.Join(got, " ") != c.want {
			t.Errorf("mode %s, own uid %t: %v, want %s", c.mode, c.ownUID, got, c.want)
		}
	}
}

func FuzzDecode(f *testing.F) {
	books, err := filepath.Glob("library/*.yaml")
	if err != nil || len(books) == 0 {
		f.Fatal("no seeds", err)
	}
	for _, file := range books {
		src, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(src)
	}
	f.Add([]byte("name: a\nmatch: alert.extra.x[0] in [1, \"2\"]\nsteps: [{name: a, action: log, with: {path: /x}, retry: {attempts: 2}}]\n"))
	f.Add([]byte("name: a\nmatch: \"true\"\nsteps:\n  - &s {name: a, action: log, timeout: 3q}\n  - {<<: *s, name: b}\n"))
	f.Fuzz(func(t *testing.T, src []byte) {
		p, err := playbook.Decode("p.yaml", src)
		if err != nil {
			if !strings.HasPrefix(err.Error(), "p.yaml:") {
				t.Fatalf("error without its file: %v", err)
			}
			return
		}
		if p.Name == "" || len(p.Steps) == 0 || p.Hash == "" {
			t.Fatalf("accepted, though it lacks something: %+v", p)
		}
		for _, s := range p.Steps {
			if s.Name == "" || s.Timeout <= 0 || s.Retry.Attempts < 1 || s.Retry.Max < s.Retry.Initial {
				t.Fatalf("accepted step: %+v", s)
			}
		}
	})
}
