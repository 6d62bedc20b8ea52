package main

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// hidden is the first argument with which this binary is a worker of a contender.
const hidden = "act"

// act is what the binary does as a process of its own.
func act(args []string) error {
	acts := map[string]func(args []string) error{
		"asynq": asynqWorker, "watermill": watermillWorker, "floor": floorWorker,
		"parent": parentWorker, "spawn": spawnWorker,
	}
	do := acts[args[0]]
	if do == nil {
		return fmt.Errorf("nothing is called %q", args[0])
	}
	return do(args[1:])
}

// thread starts all processes of a run. The kernel kills a child when the thread that
// started it ends (prctl(2), PR_SET_PDEATHSIG), so this one ends with the process.
type thread struct{ work chan func() }

func newThread() *thread {
	t := &thread{make(chan func())}
	go func() {
		runtime.LockOSThread()
		for work := range t.work {
			work()
		}
	}()
	return t
}

func (t *thread) do(start func() error) error {
	done := make(chan error, 1)
	t.work <- func() { done <- start() }
	return <-done
}

// leash makes the kernel kill the child with us, and leaves a Ctrl-C to us.
var leash = syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}

// process is a worker.
type process struct {
	cmd  *exec.Cmd
	log  string        // file with its standard error
	said chan string   // lines of its standard output, where that is asked for
	gone chan struct{} // closed when it has ended
}

// act is the command that makes this binary a worker.
func (l *lab) act(args ...string) *exec.Cmd {
	return exec.Command(l.self, append([]string{hidden}, args...)...)
}

// ours is a command of the riposte binary.
func (l *lab) ours(args ...string) *exec.Cmd {
	cmd := exec.Command(l.riposte, append(args, "--redis", "redis://"+l.redis.addr, "--host", string(host), "--log-format", "json")...)
	cmd.Env = slices.DeleteFunc(os.Environ(), func(kv string) bool { return strings.HasPrefix(kv, "RIPOSTE_") })
	return cmd
}

// responder is one replica that enforces. With --own-uid it needs no capability; what it
// may end is what the playbook matches.
func (l *lab) responder(book string, more ...string) *exec.Cmd {
	return l.ours(append([]string{"responder", "--mode", "enforce", "--own-uid", "--playbooks", l.playbooks(book),
		"--runtime-dir", l.runtime(), "--state-dir", filepath.Join(l.dir, "state")}, more...)...)
}

// start starts a worker and waits until its standard error says that it is ready.
func (l *lab) start(ctx context.Context, cmd *exec.Cmd, listen bool) (*process, error) {
	p := &process{cmd: cmd, log: filepath.Join(l.dir, fmt.Sprintf("log-%d", time.Now().UnixNano())), gone: make(chan struct{})}
	stderr, err := os.Create(p.log)
	if err != nil {
		return nil, err
	}
	defer stderr.Close()
	cmd.Stderr = stderr
	attr := leash
	cmd.SysProcAttr = &attr
	var lines *bufio.Scanner
	if listen {
		out, err := cmd.StdoutPipe()
		if err != nil {
			return nil, err
		}
		lines, p.said = bufio.NewScanner(out), make(chan string, 4096)
	}
	if err := l.thread.do(cmd.Start); err != nil {
		return nil, err
	}
	l.procs = append(l.procs, p)
	go func() {
		defer close(p.gone)
		if listen {
			for lines.Scan() {
				p.said <- lines.Text()
			}
			close(p.said)
		}
		_ = cmd.Wait()
	}()
	return p, until(ctx, func() (bool, error) {
		text, err := os.ReadFile(p.log)
		if err == nil && strings.Contains(string(text), "ready") {
			return true, nil
		}
		select {
		case <-p.gone:
			return false, fmt.Errorf("%s ended at once:\n%s", cmd, text)
		default:
			return false, err
		}
	})
}

// kill ends a worker at once.
func (p *process) kill() {
	_ = p.cmd.Process.Kill()
	p.wait()
}

// stop asks a worker to end in good order.
func (p *process) stop() {
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	p.wait()
}

func (p *process) wait() {
	for {
		select {
		case <-p.said: // what nobody listens to any more
		case <-p.gone:
			return
		}
	}
}

// forget waits for a worker that has been killed, and strikes it off.
func (l *lab) forget(p *process) {
	p.wait()
	l.procs = slices.DeleteFunc(l.procs, func(q *process) bool { return p == q })
	_ = os.Remove(p.log)
}

// cmdline is the arguments of a process, each with a zero byte behind it.
func cmdline(pid int) string {
	raw, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	return string(raw)
}

func (p *process) pid() int { return p.cmd.Process.Pid }

// stopAll kills all workers and what decoys are left.
func (l *lab) stopAll() {
	for pid := range l.alive {
		l.put(pid)
	}
	for _, p := range l.procs {
		_ = p.cmd.Process.Kill()
	}
	for _, p := range l.procs {
		p.wait()
		_ = os.Remove(p.log)
	}
	l.procs = nil
}

// cpu is the CPU time a process has used, in seconds; a tick is 10 ms on every Linux.
func cpu(pid int) float64 {
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0
	}
	fields := strings.Fields(string(raw[strings.LastIndexByte(string(raw), ')')+1:]))
	user, _ := strconv.ParseFloat(fields[11], 64)
	system, _ := strconv.ParseFloat(fields[12], 64)
	return (user + system) / 100
}

// until polls for what something else brings about.
func until(ctx context.Context, ok func() (bool, error)) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for {
		done, err := ok()
		if done || err != nil {
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("waited in vain: %w", ctx.Err())
		}
	}
}
