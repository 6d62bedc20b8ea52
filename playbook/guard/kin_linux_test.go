package guard

import (
	"fmt"
	"os"
	"os/exec"
	"reflect"
	"testing"
)

// What is remembered of the processes of Riposte ends with any of them, and with any new one.
func TestKinAreRemembered(t *testing.T) {
	parent := exec.CommandContext(t.Context(), "sh", "-c", "sleep 1000 & echo $!; wait")
	out, err := parent.StdoutPipe()
	if err == nil {
		err = parent.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	var pid int
	if _, err := fmt.Fscan(out, &pid); err != nil {
		t.Fatal(err)
	}
	member, err := os.FindProcess(pid)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { member.Kill() })
	other := exec.CommandContext(t.Context(), "sleep", "1000")
	if err := other.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { other.Process.Kill(); other.Wait() })

	members := []int{pid}
	f := Floor{Members: func() ([]int, error) { return members, nil }}
	kin := func() map[int]string {
		t.Helper()
		kin, err := f.kin()
		if err != nil {
			t.Fatal(err)
		}
		if kin[os.Getpid()] == "" || kin[pid] == "" {
			t.Fatalf("not all are in %v", kin)
		}
		return kin
	}
	first := kin()
	if first[parent.Process.Pid] != "an ancestor of Riposte" {
		t.Errorf("the parent is %q", first[parent.Process.Pid])
	}
	if again := kin(); reflect.ValueOf(again).Pointer() != reflect.ValueOf(first).Pointer() {
		t.Error("they were looked up again, though all of them live")
	}
	members = append(members, other.Process.Pid)
	if kin()[other.Process.Pid] == "" {
		t.Error("a new one is not protected")
	}
	kin()
	parent.Process.Kill()
	parent.Wait()
	if what := kin()[parent.Process.Pid]; what != "" {
		t.Errorf("the PID of an ancestor that has exited is still %s", what)
	}
	other.Process.Kill() // and not reaped: its PID stays its own
	members = members[:1]
	if what := kin()[other.Process.Pid]; what != "" {
		t.Errorf("the PID of one that has left is still %s", what)
	}
}
