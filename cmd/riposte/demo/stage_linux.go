package demo

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
)

// stage is the temporary folder and the processes of a demo.
type stage struct {
	dir string

	mu    sync.Mutex
	procs []*process
	wait  sync.WaitGroup
}

// process is a child of the demo, on the kernel's leash.
type process struct {
	cmd   *exec.Cmd
	gone  chan struct{} // closed when it has ended
	ready chan string   // gets the attribute "source" of its "... is ready" line, and is closed at its end
	id    string        // of a responder: its consumer name, known once ready
}

func newStage() (*stage, error) {
	dir, err := os.MkdirTemp("", "riposte-demo-")
	if err != nil {
		return nil, err
	}
	return &stage{dir: dir}, nil
}

// spawn starts a process whose log, JSON lines on stderr, is kept in the folder.
func (s *stage) spawn(name string, cmd *exec.Cmd) (*process, error) {
	log, err := os.Create(filepath.Join(s.dir, name+".log"))
	if err != nil {
		return nil, err
	}
	p := &process{cmd: cmd, gone: make(chan struct{}), ready: make(chan string, 1)}
	stderr, err := cmd.StderrPipe()
	if err != nil {
		return nil, errors.Join(err, log.Close())
	}
	started := make(chan error, 1)
	s.wait.Go(func() { // on a goroutine of its own, whose thread lives as long as the process
		defer close(p.gone)
		defer log.Close()
		_ = Leashed(cmd, func() error {
			err := cmd.Start()
			started <- err
			if err != nil {
				return err
			}
			p.follow(stderr, log)
			return cmd.Wait()
		})
	})
	if err := <-started; err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.procs = append(s.procs, p)
	return p, nil
}

// follow copies the log and looks for the line that says the process is ready.
func (p *process) follow(from io.Reader, to io.Writer) {
	defer close(p.ready)
	lines := bufio.NewReader(io.TeeReader(from, to))
	told := false
	for {
		text, err := lines.ReadString('\n')
		var l struct{ Msg, Source, Replica string }
		if !told && json.Unmarshal([]byte(text), &l) == nil && strings.HasSuffix(l.Msg, "is ready") {
			told = true
			p.id = l.Replica
			p.ready <- l.Source
		}
		if err != nil {
			return
		}
	}
}

// riposte starts one of our own commands and waits until it is ready.
func (s *stage) riposte(ctx context.Context, name string, args ...string) (p *process, source string, err error) {
	self, err := os.Executable()
	if err != nil {
		return nil, "", err
	}
	cmd := exec.Command(self, append(args, "--log-format", "json")...)
	cmd.Env = slices.DeleteFunc(os.Environ(), func(kv string) bool { return strings.HasPrefix(kv, "RIPOSTE_") })
	if p, err = s.spawn(name, cmd); err != nil {
		return nil, "", err
	}
	select {
	case source, ok := <-p.ready:
		if !ok {
			<-p.gone
			return nil, "", fmt.Errorf("%s ended: %s", name, tail(filepath.Join(s.dir, name+".log")))
		}
		return p, source, nil
	case <-ctx.Done():
		return nil, "", ctx.Err()
	}
}

// signal sends a signal to a process that has not been waited for.
func (p *process) signal(sig syscall.Signal) error { return p.cmd.Process.Signal(sig) }

// close ends everything and removes the folder. Processes get SIGKILL: what they hold is
// in the folder too.
func (s *stage) close() error {
	s.mu.Lock()
	for _, p := range s.procs {
		_ = p.cmd.Process.Kill()
	}
	s.mu.Unlock()
	s.wait.Wait()
	return os.RemoveAll(s.dir)
}
