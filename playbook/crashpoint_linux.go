//go:build riposte_crashpoints

package playbook

import (
	"os"
	"runtime"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

var crashed sync.Once

// crashpoint kills or freezes this process where RIPOSTE_CRASH says so, the first time it
// comes by: BOUNDARY:kill or BOUNDARY:stop, and with a third part, a duration, that long
// after; BOUNDARY@WORD is for what is about WORD alone. What follows the boundary does not happen: the signal goes to this very thread.
func crashpoint(b boundary, about ...string) {
	f := strings.Split(os.Getenv("RIPOSTE_CRASH"), ":")
	if len(f) < 2 {
		return
	}
	where, word, _ := strings.Cut(f[0], "@")
	if where != string(b) || !strings.Contains(strings.Join(about, ""), word) {
		return
	}
	signal := unix.SIGKILL
	if f[1] == "stop" {
		signal = unix.SIGSTOP
	}
	crashed.Do(func() {
		if len(f) == 3 {
			delay, err := time.ParseDuration(f[2])
			if err != nil {
				panic(err)
			}
			time.AfterFunc(delay, func() { _ = unix.Kill(os.Getpid(), signal) })
			return
		}
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		_ = unix.Tgkill(os.Getpid(), unix.Gettid(), signal)
	})
}
