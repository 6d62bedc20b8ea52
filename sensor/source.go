package sensor

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/shirou/gopsutil/v3/common"
	"github.com/shirou/gopsutil/v3/process"
)

// The event sources, as Config.Source names them.
const (
	SourceAuto = "auto" // proc where it works, else poll
	SourceProc = "proc" // the kernel's proc connector: sees every process, Linux as root
	SourcePoll = "poll" // looks at all processes every PollInterval: misses short-lived ones
)

// event is something a process did.
type event struct {
	kind   eventKind
	pid    int
	parent int // with forked
	// at is when it happened; zero where a scan found the process already running.
	at time.Time
}

type eventKind uint8

const (
	found  eventKind = iota // it is there and was not, or not as this program
	execed                  // it runs a program it did not run before
	forked                  // it began
	exited                  // it is gone
	lost                    // some of this source's events are missing; all there is is found next
)

// source tells which processes to look at. It does not look at them itself.
type source interface {
	// run calls handle, always from one goroutine, for each process there is and then for
	// what processes do, in the order in which they do it, until ctx ends. It calls ready
	// once, when every process from then on is seen as well as this source can. It returns
	// nil when ctx has ended.
	run(ctx context.Context, ready func(), handle func(event)) error
	// overruns is how often the kernel had more to say than the source could take. Each
	// time the source looked at all processes again.
	overruns() uint64
}

// openSource returns the source to use and, for the operator, which one it is and why.
func openSource(name string, interval time.Duration, log *slog.Logger) (source, string, error) {
	switch name {
	case SourcePoll:
		return newPoll(interval, log), "poll: as configured", nil
	case SourceProc:
		c, err := subscribe(log)
		if err != nil {
			return nil, "", fmt.Errorf("source proc: %w; source auto falls back to poll by itself", err)
		}
		return c, "proc: as configured, the kernel acknowledged the subscription", nil
	case SourceAuto:
		c, err := subscribe(log)
		if err != nil {
			return newPoll(interval, log), "poll: " + err.Error(), nil
		}
		return c, "proc: the kernel acknowledged the subscription", nil
	}
	return nil, "", unknownSource(name)
}

func unknownSource(name string) error {
	return fmt.Errorf("source %q is not one of %s, %s, %s", name, SourceAuto, SourceProc, SourcePoll)
}

// pids lists the processes there are.
func pids(ctx context.Context) (found []int32, err error) {
	defer func() { // gopsutil panics on some machines
		if r := recover(); r != nil {
			err = fmt.Errorf("list processes: %v", r)
		}
	}()
	// All else is read from /proc itself, so a HOST_PROC meant for another program must
	// not send this list elsewhere.
	ctx = context.WithValue(ctx, common.EnvKey, common.EnvMap{common.HostProcEnvKey: "/proc"})
	found, err = process.PidsWithContext(ctx)
	if err != nil {
		return nil, fmt.Errorf("list processes: %w", err)
	}
	return found, nil
}

// scan hands over every process there is.
func scan(ctx context.Context, handle func(event)) error {
	all, err := pids(ctx)
	if err != nil {
		return err
	}
	for _, pid := range all {
		if ctx.Err() != nil {
			return nil
		}
		handle(event{pid: int(pid)})
	}
	return nil
}
