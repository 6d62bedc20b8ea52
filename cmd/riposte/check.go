package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/goccy/go-yaml/ast"
	"github.com/spf13/cobra"

	"riposte/playbook"
	"riposte/playbook/guard"
	"riposte/sensor"
	"riposte/stream/strict"
)

func newCheckCmd(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "check PATH...",
		Short: "Validate playbooks, rules and allow-lists",
		Long: `Check validates playbooks, sensor rules and allow-lists: files, or folders of *.yaml and
*.yml files as --playbooks and --rules take them. A file with the key "rules" holds rules, one
with the key "allow" is an allow-list, any other is a playbook. It needs neither Redis nor
privileges. The exit code is 0 if all is well and 1 if something was found; a warning is
nothing found.`,
		Example: `  riposte check /etc/riposte/playbooks /etc/riposte/rules /etc/riposte/allow.yaml`,
		Args:    cobra.MinimumNArgs(1),
		RunE: func(_ *cobra.Command, paths []string) error {
			c := &checking{app: a, results: []checked{}}
			for _, path := range paths {
				c.path(path)
			}
			return errors.Join(c.print(), c.verdict())
		},
	}
	a.outputFlag(cmd)
	return cmd
}

// The kinds of files.
const (
	playbookFile = "playbook"
	ruleFile     = "rules"
	allowFile    = "allow-list"
)

// checked is what became of one file, or of a folder as a whole.
type checked struct {
	File     string   `json:"file"`
	Kind     string   `json:"kind,omitempty"` // playbook, rules or allow-list
	OK       bool     `json:"ok"`
	Errors   []string `json:"errors,omitempty"`
	Warnings []string `json:"warnings,omitempty"`
}

// checking is one run of the command.
type checking struct {
	*app
	results []checked
	bad     int
}

func (c *checking) add(file, kind string, err error, warnings ...string) {
	result := checked{File: file, Kind: kind, OK: err == nil, Warnings: warnings}
	if err != nil {
		c.bad++
		result.Errors = strings.Split(err.Error(), "\n")
	}
	c.results = append(c.results, result)
}

func (c *checking) path(path string) {
	info, err := os.Stat(path)
	switch {
	case err != nil:
		c.add(path, "", err)
	case info.IsDir():
		c.folder(path)
	default:
		c.file(path)
	}
}

// file checks one file and says of which kind it is.
func (c *checking) file(path string) (kind string, ok bool) {
	src, err := os.ReadFile(path)
	if err != nil {
		c.add(path, "", err)
		return "", false
	}
	root, err := strict.Parse(path, src)
	if err != nil {
		c.add(path, "", err)
		return "", false
	}
	var warnings []string
	switch {
	case hasField(root, "rules"):
		kind = ruleFile
		_, err = sensor.DecodeRules(path, src)
	case hasField(root, "allow"):
		kind = allowFile
		var list *guard.Allow
		if list, err = guard.Decode(path, src); err == nil {
			warnings = list.Warnings
		}
	default:
		kind = playbookFile
		_, err = playbook.Decode(path, src)
	}
	c.add(path, kind, err, warnings...)
	return kind, err == nil
}

// folder checks each file, and then what only shows in all of them together.
func (c *checking) folder(dir string) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		c.add(dir, "", err)
		return
	}
	files := map[string]int{}
	allFine := true
	for _, e := range entries {
		if ext := filepath.Ext(e.Name()); e.IsDir() || ext != ".yaml" && ext != ".yml" {
			continue
		}
		kind, ok := c.file(filepath.Join(dir, e.Name()))
		files[kind]++
		allFine = allFine && ok
	}
	switch {
	case len(files) == 0:
		c.add(dir, "", fmt.Errorf("%s: no *.yaml or *.yml in it", dir))
	case files[ruleFile] > 0 && files[playbookFile] > 0:
		c.add(dir, "", fmt.Errorf("%s: playbooks and rules in one folder; neither --playbooks nor --rules takes it, so keep them apart", dir))
	case files[allowFile] > 0 && files[ruleFile]+files[playbookFile] > 0:
		c.add(dir, "", fmt.Errorf("%s: an allow-list beside other files; neither --playbooks nor --rules takes it, so keep it apart", dir))
	case !allFine || files[allowFile] > 0:
	case files[ruleFile] > 0:
		if _, err := sensor.LoadRules(dir); err != nil {
			c.add(dir, ruleFile, err)
		}
	default:
		if _, err := playbook.Load(dir); err != nil {
			c.add(dir, playbookFile, err)
		}
	}
}

// hasField says whether a document has a field at the top.
func hasField(root ast.Node, name string) bool {
	fields, ok := root.(ast.MapNode)
	if !ok {
		return false
	}
	for field := fields.MapRange(); field.Next(); {
		if field.Key().GetToken().Value == name {
			return true
		}
	}
	return false
}

func (c *checking) print() error {
	if c.output == "json" {
		return c.json(c.results)
	}
	for _, r := range c.results {
		if r.OK {
			fmt.Fprintf(c.out, "OK   %s (%s)\n", plain(r.File), r.Kind)
		}
		for _, w := range r.Warnings {
			fmt.Fprintf(c.out, "WARN %s\n", plain(w))
		}
		for _, e := range r.Errors {
			fmt.Fprintf(c.out, "BAD  %s\n", plain(e))
		}
	}
	return nil
}

func (c *checking) verdict() error {
	if c.bad == 0 {
		return nil
	}
	return fmt.Errorf("%d of %d not usable", c.bad, len(c.results))
}
