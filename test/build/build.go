// Package build builds the riposte binary for tests that run it as a process of its own.
package build

import (
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
)

// Riposte builds cmd/riposte, statically and with the given build tags, once per test
// process and set of tags, and returns the path of the binary. A test that goes on in
// namespaces of its own calls it before, too: within one run of go test the binary is
// then found again, and needs no network for its modules.
func Riposte(t testing.TB, tags ...string) string {
	t.Helper()
	once, _ := builds.LoadOrStore(strings.Join(tags, ","), sync.OnceValues(func() (string, error) { return build(tags) }))
	path, err := once.(func() (string, error))()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

var builds sync.Map // from tags to what builds with them, once

func build(tags []string) (string, error) {
	if err := watchSources(); err != nil {
		return "", err
	}
	dir, err := folder()
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, strings.Join(append([]string{"riposte"}, tags...), "-"))
	if runtime.GOOS == "windows" {
		path += ".exe"
	}
	if _, err := os.Stat(path); err == nil {
		return path, nil
	}
	unfinished := fmt.Sprintf("%s.%d", path, os.Getpid())
	cmd := exec.Command("go", "build", "-race=false", "-o", unfinished, "-tags", strings.Join(tags, ","), "riposte/cmd/riposte")
	// The tests may run under the race detector; the binary is the one users get.
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS="+strings.ReplaceAll(os.Getenv("GOFLAGS"), "-race", ""))
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("go build: %w\n%s", err, out)
	}
	return path, os.Rename(unfinished, path)
}

// folder is where go test put the test binary, and removes it when all tests are through.
// A binary that was built with go test -c lies where its user wants nothing else.
func folder() (string, error) {
	exe, err := os.Executable()
	if err != nil {
		return "", err
	}
	if dir := filepath.Dir(exe); strings.HasPrefix(filepath.Base(filepath.Dir(dir)), "go-build") {
		return dir, nil
	}
	return os.MkdirTemp("", "riposte-build")
}

// watchSources opens every folder of the module. The result of a test is remembered by
// what its own process opened, and what only the binary is made of would not count.
func watchSources() error {
	mod, err := exec.Command("go", "env", "GOMOD").Output()
	if err != nil {
		return fmt.Errorf("go env GOMOD: %w", err)
	}
	return filepath.WalkDir(filepath.Dir(string(mod)), func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() && strings.HasPrefix(d.Name(), ".") {
			return fs.SkipDir
		}
		return err
	})
}
