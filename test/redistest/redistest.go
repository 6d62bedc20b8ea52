// Package redistest runs real Redis servers for tests. What the tests prove about streams
// and scripts must be true of Redis itself, not of an imitation.
package redistest

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"riposte/stream"
	"riposte/test/need"
)

// Server is a redis-server of the test's own: on loopback, in a directory of its own,
// with an append-only file. Its methods fail the test where they cannot do their work, and
// must be called from the test's goroutine.
type Server struct {
	Addr string // 127.0.0.1:PORT
	URL  string // redis://127.0.0.1:PORT

	t    testing.TB
	path string
	dir  string
	args []string
	port int

	log  lockedBuffer
	proc *os.Process
	done chan struct{} // closed when the process has been reaped
}

// patience is how long a server may take to start or stop. It is for slow machines; a
// start takes some 10 ms.
const patience = 2 * time.Minute

// Start runs a server until the test ends. args are further redis-server arguments, such
// as "--appendfsync", "always"; the last word on an option wins.
func Start(t testing.TB, args ...string) *Server {
	t.Helper()
	s := &Server{t: t, path: need.Binary(t, "redis-server"), dir: t.TempDir(), args: args}
	t.Cleanup(s.Kill)
	var err error
	for range 10 { // another process can take the free port before the server does
		s.port = freePort(t)
		s.Addr = net.JoinHostPort("127.0.0.1", strconv.Itoa(s.port))
		s.URL = "redis://" + s.Addr
		if err = s.start(); err == nil {
			return s
		}
	}
	t.Fatalf("redis-server: %v", err)
	return nil
}

// PID is the process ID of the server.
func (s *Server) PID() int { return s.proc.Pid }

// Client is a client with the options of production, closed when the test ends.
func (s *Server) Client() *redis.Client {
	s.t.Helper()
	rdb, err := stream.Open(stream.Options{URL: s.URL})
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { _ = rdb.Close() })
	return rdb
}

// FlushAll empties the server.
func (s *Server) FlushAll() {
	s.t.Helper()
	rdb := s.Client()
	defer rdb.Close()
	if err := rdb.FlushAll(context.Background()).Err(); err != nil {
		s.t.Fatal(err)
	}
}

// Stop ends the server in good order (SIGTERM), its append-only file written.
func (s *Server) Stop() { s.t.Helper(); s.end(terminate) }

// Kill ends the server as a power cut would, but for what the kernel has in its cache.
func (s *Server) Kill() { s.t.Helper(); s.end((*os.Process).Kill) }

// Restart starts a server that was stopped or killed, on the same data and port. A
// running one is stopped first.
func (s *Server) Restart() {
	s.t.Helper()
	s.Stop()
	if err := s.start(); err != nil {
		s.t.Fatalf("restart redis-server: %v", err)
	}
}

func (s *Server) start() error {
	s.log.Reset()
	args := append([]string{
		"--port", strconv.Itoa(s.port), "--bind", "127.0.0.1", "--dir", s.dir, "--daemonize", "no",
		"--appendonly", "yes", "--save", "", "--enable-debug-command", "local", "--loglevel", "notice",
	}, s.args...)
	cmd := exec.Command(s.path, args...)
	cmd.Stdout, cmd.Stderr = &s.log, &s.log
	dieWithParent(cmd)

	started, done := make(chan error), make(chan struct{})
	go func() {
		defer close(done)
		// The kernel ties a child's life to the thread that started it, not to the process.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			_ = cmd.Wait()
		}
	}()
	if err := <-started; err != nil {
		return err
	}
	s.proc, s.done = cmd.Process, done
	return s.awaitReady()
}

// awaitReady polls until this very server answers: on a port that was snatched away,
// another one may.
func (s *Server) awaitReady() error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	rdb, err := stream.Open(stream.Options{URL: s.URL})
	if err != nil {
		return err
	}
	defer rdb.Close()
	dialer := net.Dialer{Timeout: time.Second}
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	mine := fmt.Sprintf("process_id:%d\r\n", s.PID())
	for {
		conn, err := dialer.DialContext(ctx, "tcp", s.Addr) // first, because a client logs each failure
		if err == nil {
			conn.Close()
			var info string
			info, err = rdb.Info(ctx, "server").Result()
			if err == nil && rdb.Ping(ctx).Err() == nil && strings.Contains(info, mine) {
				return nil
			}
		}
		select {
		case <-s.done:
			return fmt.Errorf("exited at once:\n%s", s.log.String())
		case <-ctx.Done():
			s.Kill()
			return fmt.Errorf("not ready after %v (%v):\n%s", patience, err, s.log.String())
		case <-tick.C:
		}
	}
}

func (s *Server) end(signal func(*os.Process) error) {
	s.t.Helper()
	if s.proc == nil {
		return
	}
	select {
	case <-s.done: // gone already
		return
	default:
	}
	_ = signal(s.proc)
	select {
	case <-s.done:
	case <-time.After(patience):
		_ = s.proc.Kill()
		<-s.done
		s.t.Errorf("redis-server did not stop within %v", patience)
	}
}

func freePort(t testing.TB) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

// lockedBuffer is what the server said, written by one goroutine and read by another.
type lockedBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

func (b *lockedBuffer) Reset() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.buf.Reset()
}
