// Command riposte turns high-severity alerts into finished containments. See README.md.
package main

import (
	"context"
	"io"
	"os"
	"os/signal"
	"runtime"
	"syscall"
	_ "time/tzdata" // containers often have no zones of their own

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/logging"
)

func main() {
	redis.SetLogger(&logging.VoidLogger{}) // every failure comes back as an error, too
	os.Exit(run(context.Background(), os.Args[1:], os.LookupEnv, os.Stdin, os.Stdout, os.Stderr))
}

// run is the whole program but for the exit. The first SIGINT, SIGTERM or SIGHUP asks the
// command to finish, the second one ends the process.
func run(ctx context.Context, args []string, env func(string) (string, bool), in io.Reader, out, errw io.Writer) int {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	a := &app{in: in, out: out, errw: errw, env: env}
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, endings()...)
	defer signal.Stop(signals)
	go func() {
		for {
			select {
			case s := <-signals:
				if reload := a.reload.Load(); s == syscall.SIGHUP && reload != nil && !hasTerminal() {
					(*reload)()
					continue
				}
				signal.Stop(signals)
				cancel()
			case <-ctx.Done():
			}
			return
		}
	}()
	return a.run(ctx, args)
}

// hasTerminal says that somebody sits before this process: a hang-up then means what it says.
// A daemon is asked by one to read its configuration again.
func hasTerminal() bool {
	if runtime.GOOS == "windows" {
		return true
	}
	tty, err := os.Open("/dev/tty")
	if err != nil {
		return false
	}
	_ = tty.Close()
	return true
}

// endings are the signals that ask for an end. Of a hang-up, whoever starts riposte with nohup
// says that it is none.
func endings() []os.Signal {
	signals := []os.Signal{os.Interrupt, syscall.SIGTERM}
	if !signal.Ignored(syscall.SIGHUP) {
		signals = append(signals, syscall.SIGHUP)
	}
	return signals
}
