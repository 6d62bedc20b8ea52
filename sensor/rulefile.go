package sensor

import (
	"embed"
	"fmt"
	"os"
	"path/filepath"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"

	"riposte/stream/strict"
)

//go:embed rules/*.yaml
var builtin embed.FS

// Builtin are the rules that come with Riposte, the files under rules/.
func Builtin() ([]Rule, error) {
	entries, err := builtin.ReadDir("rules")
	if err != nil {
		return nil, fmt.Errorf("built-in rules: %w", err)
	}
	var set ruleSet
	for _, e := range entries {
		src, err := builtin.ReadFile("rules/" + e.Name())
		if err != nil {
			return nil, fmt.Errorf("built-in rules: %w", err)
		}
		if err := set.add("rules/"+e.Name(), src); err != nil {
			return nil, err
		}
	}
	return set.rules, nil
}

// LoadRules reads the files *.yaml and *.yml of a folder, in the order of their names.
// Every mistake in one is an error that names file, line and column: an unknown field, a
// wrong level, an expression that is none, an ID that is taken.
func LoadRules(dir string) ([]Rule, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("rules: %w", err)
	}
	var set ruleSet
	for _, e := range entries {
		if ext := filepath.Ext(e.Name()); ext != ".yaml" && ext != ".yml" {
			continue
		}
		path := filepath.Join(dir, e.Name())
		src, err := os.ReadFile(path)
		if err != nil {
			return nil, fmt.Errorf("rules: %w", err)
		}
		if err := set.add(path, src); err != nil {
			return nil, err
		}
	}
	if len(set.rules) == 0 {
		return nil, fmt.Errorf("rules: no *.yaml or *.yml in %s", dir)
	}
	return set.rules, nil
}

// DecodeRules parses the rules of one file. The file's name is for errors alone.
func DecodeRules(file string, src []byte) ([]Rule, error) {
	var set ruleSet
	err := set.add(file, src)
	return set.rules, err
}

// ruleSet collects the rules of several files.
type ruleSet struct {
	rules []Rule
	taken map[string]string // ID -> where
}

func (s *ruleSet) add(file string, src []byte) error {
	root, err := strict.Parse(file, src)
	if err != nil {
		return err
	}
	var doc struct {
		Rules []Rule `yaml:"rules"`
	}
	if err := strict.Decode(file, root, &doc); err != nil {
		return err
	}
	if len(doc.Rules) == 0 {
		return strict.At(file, root, "no rules; a file is a list under the key rules")
	}
	for i, r := range doc.Rules {
		if err := s.check(file, root, i, r); err != nil {
			return err
		}
		s.rules = append(s.rules, r)
	}
	return nil
}

func (s *ruleSet) check(file string, root ast.Node, i int, r Rule) error {
	path := fmt.Sprintf("$.rules[%d]", i)
	if p := r.compile(new(matcher)); p != nil {
		node := find(root, path)
		if p.field != "" {
			node = find(root, path, "."+p.field)
		}
		if p.index >= 0 {
			node = find(root, path, "."+p.field, fmt.Sprintf("[%d]", p.index))
		}
		return strict.At(file, node, "%v", p)
	}
	whole := find(root, path)
	for _, l := range r.lists() {
		// A condition with nothing behind it reads like a narrow rule and would be a wide one.
		if node := find(root, path, "."+l.field); len(l.entries) == 0 && node != whole {
			return strict.At(file, node, "%s is empty; leave it out if it does not matter", l.field)
		}
	}
	id := find(root, path, ".id")
	if where, ok := s.taken[r.ID]; ok {
		return strict.At(file, id, "rule id %q is already taken at %s", r.ID, where)
	}
	if s.taken == nil {
		s.taken = map[string]string{}
	}
	tk := id.GetToken()
	s.taken[r.ID] = fmt.Sprintf("%s:%d:%d", file, tk.Position.Line, tk.Position.Column)
	return nil
}

// find is the node at a path given in steps, or the last that exists on the way there: a
// field may come from an alias.
func find(root ast.Node, steps ...string) ast.Node {
	node, path := root, ""
	for _, step := range steps {
		path += step
		p, err := yaml.PathString(path)
		if err != nil {
			break
		}
		next, err := p.FilterNode(root)
		if err != nil || next == nil {
			break
		}
		node = next
	}
	return node
}
