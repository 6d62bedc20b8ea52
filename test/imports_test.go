package test

import (
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// mayImport is the direction of imports: for each part of the tree, the parts it may use
// beside itself. A part is a package and all below it.
var mayImport = map[string][]string{
	"cmd":      {"sensor", "playbook", "ledger", "stream"},
	"sensor":   {"stream"},
	"playbook": {"ledger", "stream"},
	"ledger":   {"stream"},
	"stream":   {},
	"test":     {"sensor", "playbook", "ledger", "stream"},
}

// The data runs one way, and so do the imports, on every system we build for. Tests of a
// package may use test/... and nothing else that the package may not.
func TestImports(t *testing.T) {
	for _, system := range []string{"linux", "windows", "darwin"} {
		packages := list(t, system)
		if !slices.ContainsFunc(packages, func(p listed) bool { return p.ImportPath == "riposte/stream" }) {
			t.Fatalf("%s: riposte/stream is not among the packages: %v", system, packages)
		}
		for _, p := range packages {
			from := part(p.ImportPath)
			allowed, known := mayImport[from]
			if !known {
				t.Errorf("%s is in none of the parts this test knows", p.ImportPath)
			}
			check := func(kind string, imports []string, more ...string) {
				for _, i := range imports {
					if to := part(i); to != "" && to != from && !slices.Contains(allowed, to) && !slices.Contains(more, to) {
						t.Errorf("%s: %s of %s imports %s", system, kind, p.ImportPath, i)
					}
				}
			}
			check("the code", p.Imports)
			check("a test", p.TestImports, "test")
			check("a test", p.XTestImports, "test")
		}
	}
}

type listed struct {
	ImportPath                         string
	Imports, TestImports, XTestImports []string
}

func list(t *testing.T, system string) []listed {
	t.Helper()
	cmd := exec.Command("go", "list", "-e", "-json=ImportPath,Imports,TestImports,XTestImports", "riposte/...")
	cmd.Env = append(os.Environ(), "GOOS="+system, "CGO_ENABLED=0", "GOFLAGS=") // the race detector asks for cgo
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v: %v\n%s", cmd, err, stderr.String())
	}
	var all []listed
	dec := json.NewDecoder(strings.NewReader(string(out)))
	for {
		var p listed
		err := dec.Decode(&p)
		if errors.Is(err, io.EOF) {
			return all
		}
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
}

// part is the first word below riposte/ of one of our import paths, or empty.
func part(path string) string {
	rest, ours := strings.CutPrefix(path, "riposte/")
	if !ours {
		return ""
	}
	first, _, _ := strings.Cut(rest, "/")
	return first
}
