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
	"riposte/sensor"
	"riposte/stream/strict"
)

func newCheckCmd(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "check PATH...",
		Short: "Validate playbooks and rules",
		Long: `Check validates playbooks and sensor rules: files, or folders of *.yaml and *.yml files as
--playbooks and --rules take them. A file with the key "rules" holds rules, any other is a
playbook. It needs neither Redis nor privileges. The exit code is 0 if all is well and 1 if
something was found.`,
		Example: `  riposte check /etc/riposte/playbooks /etc/riposte/rules`,
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
)

// checked is what became of one file, or of a folder as a whole.
type checked struct {
	File   string   `json:"file"`
	Kind   string   `json:"kind,omitempty"` // playbook or rules
	OK     bool     `json:"ok"`
	Errors []string `json:"errors,omitempty"`
}

// checking is one run of the command.
type checking struct {
	*app
	results []checked
	bad     int
}

func (c *checking) add(file, kind string, err error) {
	result := checked{File: file, Kind: kind, OK: err == nil}
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
	if hasField(root, "rules") {
		kind = ruleFile
		_, err = sensor.DecodeRules(path, src)
	} else {
		kind = playbookFile
		_, err = playbook.Decode(path, src)
	}
	c.add(path, kind, err)
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
	case !allFine:
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
