package action

import (
	"embed"
	"fmt"
)

//go:embed reference/*.md
var pages embed.FS

// Reference is the page of an action for those who write playbooks, in Markdown.
func Reference(name string) (string, error) {
	if _, ok := Lookup(name); !ok {
		return "", fmt.Errorf("there is no action %q", name)
	}
	page, err := pages.ReadFile("reference/" + name + ".md")
	if err != nil {
		return "", fmt.Errorf("this build has no reference page for %s", name)
	}
	return string(page), nil
}

// Platforms are where an action works, as GOOS has them: Linux alone, unless its Spec says
// otherwise.
func (k Kind) Platforms() []string {
	if s, ok := k.Spec().(interface{ Platforms() []string }); ok {
		return s.Platforms()
	}
	return []string{"linux"}
}

// Platforms are all that Riposte is built for.
func (s *LogSpec) Platforms() []string { return []string{"linux", "windows", "darwin"} }

// Platforms are all that Riposte is built for.
func (s *NotifySpec) Platforms() []string { return []string{"linux", "windows", "darwin"} }

// Platforms are those with a firewall that block_ip knows.
func (s *BlockSpec) Platforms() []string { return []string{"linux", "windows"} }
