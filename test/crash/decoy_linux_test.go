package crash

import (
	"bufio"
	"io"
	"os/exec"
	"syscall"
	"testing"
	"time"

	"riposte/test/need"
)

// decoy is a process for the replicas to end: a shell that waits for input which never
// comes. It ends with its input, however the test ends.
type decoy struct {
	pid    int
	input  io.Closer
	gone   chan struct{} // closed when it has been reaped; then:
	exit   time.Time     // when that was seen
	status syscall.WaitStatus
}

// What a decoy does about SIGTERM.
const (
	meek     = "echo ready; read x"               // dies of it
	stubborn = `trap "" TERM; echo ready; read x` // ignores it
	tough    = `exec 3<&0; cat <&3 & trap 'n=x$n; [ $n = xx ] && kill $! && exit' TERM
		echo ready; while kill -0 $!; do wait $!; done 2>/dev/null` // ignores the first one
)

func newDecoy(t testing.TB, script string) *decoy {
	t.Helper()
	cmd := exec.Command(need.Binary(t, "sh"), "-c", script)
	input, err1 := cmd.StdinPipe()
	output, err2 := cmd.StdoutPipe()
	if err1 != nil || err2 != nil {
		t.Fatal(err1, err2)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := bufio.NewReader(output).ReadString('\n'); err != nil {
		t.Fatalf("a decoy is not ready: %v", err)
	}
	d := &decoy{pid: cmd.Process.Pid, input: input, gone: make(chan struct{})}
	go func() {
		defer close(d.gone)
		_ = cmd.Wait()
		d.exit, d.status = time.Now(), cmd.ProcessState.Sys().(syscall.WaitStatus)
	}()
	t.Cleanup(func() {
		_ = input.Close()
		<-d.gone
	})
	return d
}

func (d *decoy) dead() bool {
	select {
	case <-d.gone:
		return true
	default:
		return false
	}
}
