package playbook_test

import (
	"bufio"
	"fmt"
	"os/exec"
	"testing"
	"time"

	"riposte/playbook"
	"riposte/stream"
	"riposte/stream/proc"
	"riposte/test/namespace"
	"riposte/test/redistest"
)

// victim starts a process, which has got as far as its first line of output, and returns
// an alert about it as Riposte's own sensor would write it.
func victim(t *testing.T, id stream.AlertID, script string) (alert string) {
	t.Helper()
	cmd := exec.Command("sh", "-c", script)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	if _, err := bufio.NewReader(out).ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	st, err := proc.ReadStat(cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf(`{"id":%q,"level":"HIGH","process":{"pid":%d,"start_ticks":%d}}`, id, st.PID, st.StartTicks)
}

// One alert in a long grace delays no other: with one worker busy waiting, the other one
// contains everything else meanwhile.
func TestGraceDelaysNoOther(t *testing.T) {
	t.Parallel()
	if !namespace.Enter(t) {
		return
	}
	srv := redistest.Start(t)
	rdb := srv.Client()
	r := newReplica(t, srv, "h1-1-a", t.TempDir(), `
name: contain
match: "true"
steps:
  - {name: stop, action: terminate_process, with: {grace: 3s}}
`, func(cfg *playbook.Config) { cfg.Concurrency = 2 })
	r.start()
	publish(t, rdb, victim(t, "slow", `trap "" TERM; echo ready; exec sleep 1000`))
	until(t, "the slow one is in its grace", func() bool { return r.begun() == 1 })
	begun := time.Now()
	for i := range 30 {
		publish(t, rdb, victim(t, stream.AlertID(fmt.Sprint("other-", i)), `echo ready; exec sleep 1000`))
	}
	for i := range 30 {
		h, b := settled(t, rdb, stream.AlertID(fmt.Sprint("other-", i)))
		if b.Steps[0].Outcome != "terminated" {
			t.Errorf("%+v: %+v", h, b.Steps[0])
		}
	}
	others := time.Since(begun)
	if _, b := settled(t, rdb, "slow"); b.Steps[0].Outcome != "killed" || b.Steps[0].Ended.Before(begun.Add(others)) {
		t.Errorf("the slow one was to outlast the others, which took %s: %+v", others, b.Steps[0])
	}
}
