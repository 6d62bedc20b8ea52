package guard

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// opened is a file as the executable of this process.
func opened(t *testing.T, path string, s *sums) process {
	t.Helper()
	fd, err := unix.Open(path, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	return process{executable: executable{fd, "/proc/self"}, sums: s}
}

// A sum is worked out once, for as long as the file does not change; and not remembered where a
// change could bear the same time.
func TestSums(t *testing.T) {
	var s sums
	begun := time.Now()
	fresh := filepath.Join(t.TempDir(), "fresh")
	if err := os.WriteFile(fresh, []byte("hello"), 0o600); err != nil {
		t.Fatal(err)
	}
	if sum, err := opened(t, fresh, &s).sum(); sum != helloSum || err != nil {
		t.Errorf("%s, %v", sum, err)
	}
	if len(s.known) != 0 && time.Since(begun) < settled {
		t.Errorf("one that has just changed is remembered: %v", s.known)
	}
	old := opened(t, "/proc/self/exe", &s)
	id, err := old.version()
	if err != nil {
		t.Fatal(err)
	}
	s.put(id, "remembered")
	if sum, err := old.sum(); sum != "remembered" || err != nil {
		t.Errorf("worked out again: %s, %v", sum, err)
	}
	id.changed++
	s.known = map[version]string{id: "of another time"}
	if sum, err := old.sum(); len(sum) != 64 || err != nil {
		t.Errorf("of what has changed since: %s, %v", sum, err)
	}

	big := filepath.Join(t.TempDir(), "big")
	if err := os.WriteFile(big, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(big, mostSummed+1); err != nil {
		t.Fatal(err)
	}
	if sum, err := opened(t, big, &s).sum(); sum != "" || err != nil {
		t.Errorf("of what is too big: %q, %v", sum, err)
	}
	// Whoever keeps changing his file, to have it never read in peace, is not spared for that.
	restless := filepath.Join(t.TempDir(), "restless")
	if err := errors.Join(os.WriteFile(restless, nil, 0o600), os.Truncate(restless, 64<<20)); err != nil {
		t.Fatal(err)
	}
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
				if err := os.Chmod(restless, os.FileMode(0o600+i%2)); err != nil {
					t.Error(err)
				}
			}
		}
	}()
	const zeros = "3b6a07d0d404fab4e23b6d34bc6696a6a312dd92821332385e5af7c01c421351" // of 64 MiB
	if sum, err := opened(t, restless, &s).sum(); sum != zeros || err != nil {
		t.Errorf("of what keeps changing: %q, %v", sum, err)
	}
	close(stop)
	<-stopped
	for i := range 3 * mostSums {
		s.put(version{ino: uint64(i)}, "x")
	}
	if n := len(s.known); n > mostSums {
		t.Errorf("%d are remembered", n)
	}
}

func TestParseCgroups(t *testing.T) {
	for raw, want := range map[string]string{
		"0::/system.slice/a.service\n":                              "[/system.slice/a.service] <nil>",
		"9:name=systemd:/a:b\n8:pids:/x\n1:cpu,cpuacct:/y\n0::/c\n": "[/a:b /c] <nil>",
		"0::/a (deleted)\n":                                         "[/a] <nil>",
		"0::/../../system.slice/a.service\n":                        "[] its control group is outside of the cgroup namespace of this process (docker run --cgroupns=host)",
		"8:pids:/x\n":                                               "[] it is in no control group of version 2, nor in one of systemd's",
		"":                                                          "[] it is in no control group of version 2, nor in one of systemd's",
	} {
		all, err := parseCgroups([]byte(raw))
		if got := fmt.Sprint(all, " ", err); got != want {
			t.Errorf("%q: %s", raw, got)
		}
	}
}
