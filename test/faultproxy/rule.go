package faultproxy

import (
	"crypto/sha1"
	"encoding/hex"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// When a fault strikes.
type When string

const (
	Before  When = "before"   // the server never sees the command; the connection is closed
	After   When = "after"    // the server runs it; the reply is swallowed, the connection closed
	InReply When = "in-reply" // the server runs it; half of the reply's bytes pass, then the connection is closed
)

// Rule is one fault. It strikes once.
type Rule struct {
	Command string // upper-case name, or name of the script: see Scripts
	Arg     string // if not empty, only commands of which this is an argument, such as ">"
	Nth     int    // of the commands that match from now on, of all connections; 0 and 1 are the next
	When    When
	Error   string // with Before: the server's answer, such as "LOADING ...", instead of closing
}

// Fault is a rule on its way.
type Fault struct {
	Hit <-chan struct{} // closed when it has struck

	rule Rule
	left int // commands that match, until it strikes
	hit  chan struct{}
}

// matches says whether a command is one of the rule's.
func (r Rule) matches(name string, words []string) bool {
	return r.Command == name && (r.Arg == "" || slices.Contains(words[1:], r.Arg))
}

// Expect names the commands that the test knows, by Command and Arg. Any other one is a
// stranger from now on.
func (p *Proxy) Expect(rules []Rule) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.expected = rules
}

// Strangers are the commands that came by and are none of those expected, each once, with
// its first words.
func (p *Proxy) Strangers() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Sorted(maps.Keys(p.strangers))
}

// Struck says whether the fault has.
func (f *Fault) Struck() bool {
	select {
	case <-f.Hit:
		return true
	default:
		return false
	}
}

// Inject adds a rule. One that is to strike after the command is not spent on a script that
// the server did not know and so did not run: it waits for the client's next try.
func (p *Proxy) Inject(r Rule) *Fault {
	hit := make(chan struct{})
	f := &Fault{Hit: hit, hit: hit, rule: r, left: max(r.Nth, 1)}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.faults = append(p.faults, f)
	return f
}

// meet finds the fault that strikes a command, if any.
func (p *Proxy) meet(name string, words []string) *Fault {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.expected != nil && !slices.ContainsFunc(p.expected, func(r Rule) bool { return r.matches(name, words) }) {
		p.strangers[stranger(name, words)] = true
	}
	var struck *Fault
	for _, f := range p.faults {
		if !f.rule.matches(name, words) {
			continue
		}
		if f.left--; f.left <= 0 && struck == nil {
			struck = f
		}
	}
	p.faults = slices.DeleteFunc(p.faults, func(f *Fault) bool { return f == struck })
	if struck == nil || struck.rule.When != Before {
		p.seen[name]++
	}
	return struck
}

// stranger is what to call a command. Of a script the keys and arguments tell it from others
// of its name; of any of them a few do.
func stranger(name string, words []string) string {
	text := name
	for _, w := range words[1:min(len(words), 16)] {
		text += fmt.Sprintf(" %.40q", w)
	}
	return text
}

// rearm brings a fault back that met a command which was not run.
func (p *Proxy) rearm(f *Fault) {
	p.mu.Lock()
	defer p.mu.Unlock()
	f.left = 1
	p.faults = append(p.faults, f)
}

// name of a command: that of the script, for one of Riposte's.
func (p *Proxy) name(words []string) string {
	name := strings.ToUpper(words[0])
	if len(words) < 2 {
		return name
	}
	var script string
	switch name {
	case "EVALSHA":
		script = p.scripts[strings.ToLower(words[1])]
	case "EVAL":
		script = p.scripts[hash(words[1])]
	}
	if script != "" {
		return script
	}
	return name
}

// Scripts names the scripts of Riposte by the SHA-1 of their source: ledger/lua/begin.lua
// is "begin".
func Scripts(t testing.TB) map[string]string {
	t.Helper()
	names := map[string]string{}
	for _, folder := range []string{"ledger", "stream"} {
		files, err := filepath.Glob(filepath.Join(root(t), folder, "lua", "*.lua"))
		if err != nil || len(files) == 0 {
			t.Fatalf("no scripts in %s/lua: %v", folder, err)
		}
		for _, file := range files {
			source, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			names[hash(string(source))] = strings.TrimSuffix(filepath.Base(file), ".lua")
		}
	}
	return names
}

func hash(source string) string {
	sum := sha1.Sum([]byte(source))
	return hex.EncodeToString(sum[:])
}

// root is the folder of the module.
func root(t testing.TB) string {
	t.Helper()
	dir, err := os.Getwd()
	for err == nil {
		if _, statErr := os.Stat(filepath.Join(dir, "go.mod")); statErr == nil {
			return dir
		}
		if dir == filepath.Dir(dir) {
			t.Fatal("not inside the module: no go.mod above")
		}
		dir = filepath.Dir(dir)
	}
	t.Fatal(err)
	return ""
}
