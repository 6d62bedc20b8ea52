package action

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"riposte/stream/proc"
)

// stopWait is how long the threads of a process may take to stop, or to go on. Only those
// in uninterruptible sleep take longer than a moment.
const stopWait = 5 * time.Second

// threads counts those of a process that have not exited, by what they do.
type threads struct {
	stopped int  // by a signal (state T)
	traced  int  // held by a debugger (state t), which alone can let them go
	waiting int  // in uninterruptible sleep (state D), where no signal reaches them
	running int  // or about to
	frozen  bool // by its control group, whatever else they do: state S, mostly
}

func (t threads) held() int { return t.stopped + t.traced }

// still says that no thread runs, nor will, before somebody lets it.
func (t threads) still() bool {
	return t.frozen || t.held() > 0 && t.waiting == 0 && t.running == 0
}

// count sorts a thread in.
func (t *threads) count(state byte) {
	switch state {
	case 'T':
		t.stopped++
	case 't':
		t.traced++
	case 'D':
		t.waiting++
	case 'Z', 'X': // has exited
	default:
		t.running++
	}
}

// readThreads looks at all threads of a process. What it returns was read by PID: it is the
// caller who sees to it that the process was still there afterwards.
func readThreads(pid int) (threads, error) {
	tasks, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
	if err != nil {
		return threads{}, fmt.Errorf("threads of PID %d: %w", pid, err)
	}
	var all threads
	for _, task := range tasks {
		tid, err := strconv.Atoi(task.Name())
		if err != nil {
			return threads{}, fmt.Errorf("threads of PID %d: %w", pid, err)
		}
		st, err := proc.ReadStat(tid)
		if errors.Is(err, proc.ErrGone) {
			continue
		}
		if err != nil {
			return threads{}, fmt.Errorf("thread %d of PID %d: %w", tid, pid, err)
		}
		all.count(st.State)
	}
	return all, nil
}

// threads looks at all threads of the process, which is pid here. gone means that there are
// none any more.
func (fd pidfd) threads(pid int) (now threads, gone bool, err error) {
	now, err = readThreads(pid)
	now.frozen = err == nil && !now.still() && frozen(pid)
	if gone, err2 := fd.exited(0); gone || err2 != nil {
		return threads{}, gone, err2
	}
	return now, false, err
}

// settle waits until the threads of the process are as wanted, or none is left. It is an
// error if they are not within the time given; now is then what was seen last.
func (fd pidfd) settle(ctx context.Context, pid int, within time.Duration, want func(threads) bool) (now threads, gone bool, err error) {
	deadline := time.Now().Add(within)
	for pause := time.Duration(0); ; pause = min(pause+time.Millisecond, pollSlice) {
		cut := ctx.Err()
		if cut == nil && time.Now().After(deadline) {
			cut = fmt.Errorf("waited %s", within)
		}
		now, gone, err := fd.threads(pid)
		if gone || err != nil || want(now) {
			return now, gone, err
		}
		if cut != nil {
			return now, false, fmt.Errorf("%w, but %s", cut, now.words())
		}
		if _, err := fd.exited(pause); err != nil { // a pause that an exit ends
			return now, false, err
		}
	}
}

// words say what was seen where that is not what was wanted.
func (t threads) words() string {
	if t.frozen {
		return "it is frozen by its control group, or by one above that; write 0 to cgroup.freeze there if nobody else does"
	}
	return fmt.Sprintf("%d of its threads are stopped, %d held by a debugger, %d in uninterruptible sleep (state D in ps), %d running",
		t.stopped, t.traced, t.waiting, t.running)
}

// stop stops the process and waits until no thread runs.
func (fd pidfd) stop(ctx context.Context, pid int) (now threads, gone bool, err error) {
	switch err := fd.signal(unix.SIGSTOP); {
	case errors.Is(err, unix.ESRCH):
		return threads{}, true, nil
	case err != nil:
		return threads{}, false, err
	}
	now, gone, err = fd.halt(ctx, pid, stopWait)
	if err != nil {
		return now, gone, fmt.Errorf("sent SIGSTOP, then: %w", err)
	}
	return now, gone, nil
}

// nudgeAfter is how long one signal may take to stop all threads.
const nudgeAfter = 50 * time.Millisecond

// halt waits for a process that was sent SIGSTOP until no thread runs. The kernel gives a
// signal to one thread, which stops the others; if that one waits in vfork(2), say, where no
// signal reaches it, the others would run on. Then each of them gets one of its own.
func (fd pidfd) halt(ctx context.Context, pid int, within time.Duration) (now threads, gone bool, err error) {
	now, gone, err = fd.settle(ctx, pid, min(within, nudgeAfter), threads.still)
	if err == nil || ctx.Err() != nil {
		return now, gone, err
	}
	if now.waiting > 0 && now.running > 0 {
		if err := nudge(pid); err != nil {
			return now, false, err
		}
	}
	return fd.settle(ctx, pid, within-nudgeAfter, threads.still)
}

// nudge sends SIGSTOP to each thread but the first: a process that is another's by now has
// hardly a thread of the same number as well.
func nudge(pid int) error {
	tasks, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
	if err != nil {
		return fmt.Errorf("threads of PID %d: %w", pid, err)
	}
	for _, task := range tasks {
		tid, err := strconv.Atoi(task.Name())
		if err != nil || tid == pid {
			continue
		}
		if err := unix.Tgkill(pid, tid, unix.SIGSTOP); err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("SIGSTOP of thread %d of PID %d: %w", tid, pid, err)
		}
	}
	return nil
}
