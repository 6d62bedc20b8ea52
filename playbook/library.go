package playbook

import (
	"embed"
	"fmt"
	"path"
	"strings"

	"riposte/stream/strict"
)

//go:embed library/*.yaml
var library embed.FS

// Shipped are the names of the playbooks that come with Riposte, sorted.
func Shipped() []string {
	entries, err := library.ReadDir("library")
	if err != nil {
		panic(err) // it is part of the binary
	}
	var names []string
	for _, e := range entries {
		names = append(names, strings.TrimSuffix(e.Name(), ".yaml"))
	}
	return names
}

// Source is the text of a playbook that comes with Riposte.
func Source(name string) ([]byte, error) {
	src, err := library.ReadFile(path.Join("library", name+".yaml"))
	if err != nil {
		return nil, fmt.Errorf("no playbook %q comes with riposte%s", name, strict.Hint(name, Shipped()))
	}
	return src, nil
}

// Default is the playbook of a responder that is given none.
func Default() ([]*Playbook, error) {
	src, err := Source("default")
	if err != nil {
		return nil, err
	}
	p, err := Decode("default.yaml (embedded)", src)
	if err != nil {
		return nil, err
	}
	return []*Playbook{p}, nil
}
