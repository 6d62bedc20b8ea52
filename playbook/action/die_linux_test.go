package action_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"riposte/playbook/action"
)

// errand is an effect that a copy of this program carries out, and in which it dies.
type errand struct {
	Name   string
	Effect json.RawMessage
	State  string
	Key    string
	Die    int64 // when ctx is asked for the nth time whether to go on
}

const errandEnv = "RIPOSTE_TEST_ERRAND"

// mortal is a context that kills its process by SIGKILL when it is asked for the nth time
// whether to go on, which every effect asks between any two things it does.
type mortal struct {
	context.Context
	left atomic.Int64
}

func (m *mortal) Err() error {
	if m.left.Add(-1) == 0 {
		_ = unix.Kill(os.Getpid(), unix.SIGKILL)
		select {}
	}
	return m.Context.Err()
}

// applyAndDie is what the copy does.
func applyAndDie() {
	var e errand
	err := json.Unmarshal([]byte(os.Getenv(errandEnv)), &e)
	if err != nil {
		panic(err)
	}
	effect, _, err := action.Decode(e.Name, e.Effect)
	if err != nil {
		panic(err)
	}
	ctx := &mortal{Context: context.Background()}
	ctx.left.Store(e.Die)
	env := floor()
	env.State, env.Key, env.AlertID = e.State, e.Key, "a-1"
	r, err := effect.Apply(ctx, env)
	fmt.Println(r, err)
	os.Exit(0)
}

// dies has a copy of this program carry the effect out and die when it asks for the nth time
// whether to go on. It says whether the copy got as far as that.
func dies(t *testing.T, name string, e action.Effect, env action.Env, nth int64) bool {
	t.Helper()
	raw, err := json.Marshal(e)
	if err != nil {
		t.Fatal(err)
	}
	order, err := json.Marshal(errand{name, raw, env.State, env.Key, nth})
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	cmd := exec.Command("/proc/self/exe")
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.Env = append(os.Environ(), helperEnv+"=apply", errandEnv+"="+string(order))
	err = cmd.Run()
	if err == nil {
		if !strings.Contains(out.String(), "<nil>") {
			t.Fatalf("%s: %s", e.Describe(), out.String())
		}
		return false
	}
	if status, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); !ok || status.Signal() != unix.SIGKILL {
		t.Fatalf("%s: %v\n%s", e.Describe(), err, out.String())
	}
	return true
}

// succeed is what a successor does: it probes, and applies what is not in place.
func succeed(t *testing.T, e action.Effect, env action.Env) action.Receipt {
	t.Helper()
	r, inPlace, err := e.Probe(t.Context(), env)
	if err != nil {
		t.Fatalf("probe of %s: %v", e.Describe(), err)
	}
	if inPlace {
		return r
	}
	return apply(t, e, env)
}
