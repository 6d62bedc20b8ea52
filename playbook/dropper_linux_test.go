package playbook_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"riposte/playbook"
	"riposte/playbook/guard"
	"riposte/stream/proc"
	"riposte/test/namespace"
	"riposte/test/need"
	"riposte/test/redistest"
)

// One alert has a process held, its file taken away, and it ended with what it has started; and
// another, which names a file of the gate's, has nothing done.
func TestDropper(t *testing.T) {
	if !namespace.Enter(t) {
		return
	}
	srv, runtime, state := redistest.Start(t), t.TempDir(), t.TempDir()
	book := `
name: dropper
match: "true"
steps:
  - {name: hold, action: suspend_process}
  - {name: quarantine, action: quarantine_file}
  - {name: end, action: terminate_process, with: {tree: true}}
`
	body, err := os.ReadFile(need.Binary(t, "sh"))
	if err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(t.TempDir(), "malware")
	if err := os.WriteFile(program, body, 0o700); err != nil {
		t.Fatal(err)
	}
	victim := exec.Command(program, "-c", "sleep 1000 & echo $!; wait")
	out, err := victim.StdoutPipe()
	if err == nil {
		err = victim.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { victim.Process.Kill(); victim.Wait() })
	child := 0
	if _, err := fmt.Fscanln(out, &child); err != nil {
		t.Fatal(err)
	}
	st, err := proc.ReadStat(victim.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	floor := new(guard.Floor)
	defer floor.Close()
	replica := newReplica(t, srv, "h1-1-a", runtime, book, func(cfg *playbook.Config) {
		cfg.State, cfg.Guard, cfg.Lease = state, floor, 5*time.Second
	})
	stop := replica.start()
	defer stop()
	publish(t, srv.Client(), fmt.Sprintf(`{"id":"a-1","level":"HIGH","process":{"pid":%d,"start_ticks":%d,"exe":%q}}`, st.PID, st.StartTicks, program))
	_, plan := settled(t, srv.Client(), "a-1")
	for i, want := range []string{"suspended", "quarantined", "killed"} {
		if s := plan.Steps[i]; s.Outcome != want {
			t.Errorf("%s: %s: %s; want %s", s.Step, s.Outcome, s.Reason, want)
		}
	}
	if _, err := os.Lstat(program); !os.IsNotExist(err) {
		t.Errorf("the file is still there: %v", err)
	}
	victim.Wait()
	until(t, "its child has gone", func() bool { st, err := proc.ReadStat(child); return err != nil || st.Zombie() })

	publish(t, srv.Client(), fmt.Sprintf(`{"id":"a-2","level":"HIGH","process":{"exe":%q}}`, filepath.Join(runtime, "gate-id")))
	_, plan = settled(t, srv.Client(), "a-2")
	if s := plan.Steps[0]; s.Step != "quarantine" || s.Outcome != "refused" {
		t.Errorf("a file of the gate's: %s: %s: %s", s.Step, s.Outcome, s.Reason)
	}
}
