package namespace_test

import (
	"net"
	"os"
	"path/filepath"
	"testing"

	"riposte/test/namespace"
)

// What is done inside is not seen outside: no process of this machine, none of its
// networks.
func TestEnter(t *testing.T) {
	links := func() (pid, net string) {
		pid, err1 := os.Readlink("/proc/self/ns/pid")
		net, err2 := os.Readlink("/proc/self/ns/net")
		if err1 != nil || err2 != nil {
			t.Fatal(err1, err2)
		}
		return pid, net
	}
	const outside = "RIPOSTE_TEST_OUTSIDE"
	pid, network := links()
	t.Setenv(outside, orElse(os.Getenv(outside), pid+network))
	if !namespace.Enter(t) {
		return
	}
	if os.Getenv(outside) == pid+network {
		t.Error("these are the namespaces of the machine")
	}
	processes, err := filepath.Glob("/proc/[0-9]*")
	if err != nil || len(processes) > 5 {
		t.Errorf("other processes are seen: %v, %v", processes, err)
	}
	if os.Getppid() != 1 {
		t.Errorf("the parent is %d, not the shell that is PID 1", os.Getppid())
	}
	all, err := net.Interfaces()
	if err != nil || len(all) != 1 || all[0].Flags&net.FlagUp == 0 || all[0].Flags&net.FlagLoopback == 0 {
		t.Errorf("want loopback alone, and up: %v, %v", all, err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
}

func orElse(s, fallback string) string {
	if s != "" {
		return s
	}
	return fallback
}
