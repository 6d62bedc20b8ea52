package action_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"riposte/playbook/action"
	"riposte/playbook/guard"
	"riposte/stream/proc"
)

// TestAllowedIsNotTouched acts on what an allow-list has, and on its like.
func TestAllowedIsNotTouched(t *testing.T) {
	if !inside(t) {
		return
	}
	path, like := copyOf(t, "sleep", "backup"), copyOf(t, "sleep", "backup")
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(path, link); err != nil {
		t.Fatal(err)
	}
	list, err := guard.Decode("f.yaml", fmt.Appendf(nil, "allow: {processes: [{exe: %s, reason: ours}]}", link))
	if err != nil {
		t.Fatal(err)
	}
	g := &guard.Allowing{Floor: &shared}
	g.Set(list)
	env := vaultEnv(t)
	env.Guard = g
	const why = "is allow-listed: ours"

	// Nobody runs it, and it is not taken away all the same.
	refused(t, &action.QuarantineFile{Path: path}, env, path+" is what an allow-listed process runs: ours")
	v := start(t, exec.Command(path, "1000"), false)
	until(t, "it runs", func() bool { exe, err := proc.ReadExe(v.Process.Pid); return err == nil && exe == path })
	p := v.effect(0).Process
	refused(t, &action.QuarantineFile{Path: path, Process: &p}, env, why)
	refused(t, v.suspend(), env, why)
	refused(t, v.effect(0), env, why)
	v.untouched()

	// Nor is a tree that it is in.
	grove := planted(t, fmt.Sprintf(`%s 1000 & until [ "$(readlink /proc/$!/exe)" = %[1]s ]; do :; done; echo ready; wait`, path))
	refused(t, grove.tree(), env, why)
	if n := len(grove.living(t)); n != 2 || grove.holding(t) != 0 {
		t.Errorf("%d of 2 live, %d are stopped", n, grove.holding(t))
	}

	outcome(t, succeed(t, &action.QuarantineFile{Path: like}, env), action.Quarantined, "")
	if !exists(t, path) || exists(t, like) {
		t.Error("the wrong file has gone")
	}
}
