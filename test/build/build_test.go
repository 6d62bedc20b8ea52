package build_test

import (
	"bytes"
	"os/exec"
	"testing"

	"riposte/test/build"
)

func TestRiposte(t *testing.T) {
	path := build.Riposte(t)
	if out, err := exec.Command(path, "version").CombinedOutput(); err != nil || !bytes.Contains(out, []byte("riposte")) {
		t.Errorf("version: %v\n%s", err, out)
	}
	if again := build.Riposte(t); again != path {
		t.Errorf("built twice: %s, %s", path, again)
	}
	if ungated := build.Riposte(t, "riposte_no_gate"); ungated == path {
		t.Errorf("%s stands for builds with other tags", path)
	}
}
