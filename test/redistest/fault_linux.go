package redistest

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// Pause stops the server's process (SIGSTOP): connections stay, and nobody answers them.
func (s *Server) Pause() { s.t.Helper(); s.signal(syscall.SIGSTOP) }

// Resume lets a paused server go on, with all that was sent to it meanwhile.
func (s *Server) Resume() { s.t.Helper(); s.signal(syscall.SIGCONT) }

func (s *Server) signal(sig syscall.Signal) {
	s.t.Helper()
	if err := s.proc.Signal(sig); err != nil {
		s.t.Fatalf("redis-server: %v: %v", sig, err)
	}
}

// Written is the length of the append-only file now.
func (s *Server) Written() int64 {
	s.t.Helper()
	st, err := os.Stat(s.appendOnly())
	if err != nil {
		s.t.Fatal(err)
	}
	return st.Size()
}

// CutPower kills the server and takes back all that it wrote to its append-only file after
// the mark, which an earlier Written gave. Kill alone loses nothing that the kernel was
// given; a power cut also loses what was not synced yet: up to a second, with everysec.
func (s *Server) CutPower(mark int64) {
	s.t.Helper()
	s.Kill()
	if err := os.Truncate(s.appendOnly(), mark); err != nil {
		s.t.Fatal(err)
	}
}

// appendOnly is the one incremental append-only file; it is far from being rewritten.
func (s *Server) appendOnly() string {
	s.t.Helper()
	found, err := filepath.Glob(filepath.Join(s.dir, "appendonlydir", "*.incr.aof"))
	if err != nil || len(found) != 1 {
		s.t.Fatalf("append-only files %v, %v; want one", found, err)
	}
	return found[0]
}

// Replica runs a second server that copies this one, and returns when it has all of it.
func (s *Server) Replica(args ...string) *Server {
	s.t.Helper()
	host, port, err := net.SplitHostPort(s.Addr)
	if err != nil {
		s.t.Fatal(err)
	}
	r := Start(s.t, append([]string{"--replicaof", host, port}, args...)...)
	rdb := r.Client()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		info, err := rdb.Info(ctx, "replication").Result()
		if err == nil && strings.Contains(info, "master_link_status:up") {
			return r
		}
		select {
		case <-ctx.Done():
			s.t.Fatalf("the replica did not catch up within %v (%v):\n%s", patience, err, info)
		case <-tick.C:
		}
	}
}

// CutOff takes a replica from its master: what the master acknowledges from now on does
// not reach it any more.
func (s *Server) CutOff() {
	s.t.Helper()
	s.replicaOf("127.0.0.1", "1") // where nobody listens
}

// Promote makes a replica a master.
func (s *Server) Promote() { s.t.Helper(); s.replicaOf("no", "one") }

func (s *Server) replicaOf(host, port string) {
	s.t.Helper()
	rdb := s.Client()
	defer rdb.Close()
	if err := rdb.Do(context.Background(), "REPLICAOF", host, port).Err(); err != nil {
		s.t.Fatal(err)
	}
}
