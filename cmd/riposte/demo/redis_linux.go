package demo

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/alicebob/miniredis/v2/server"
	"github.com/redis/go-redis/v9"

	"riposte/stream"
)

// backend is the demo's private Redis.
type backend struct {
	name     string   // for the report
	flags    []string // with which our own commands reach it
	volatile bool     // keeps nothing
	rdb      *redis.Client
	close    func()
}

// startRedis starts a redis-server or valkey-server on a socket in dir, or the embedded
// one where neither is installed.
func (s *stage) startRedis(ctx context.Context) (*backend, error) {
	for _, name := range []string{"redis-server", "valkey-server"} {
		if path, err := exec.LookPath(name); err == nil {
			return s.startServer(ctx, name, path)
		}
	}
	return s.startEmbedded()
}

func (s *stage) startServer(ctx context.Context, name, path string) (*backend, error) {
	socket := filepath.Join(s.dir, "redis.sock")
	cmd := exec.Command(path, "--port", "0", "--unixsocket", socket, "--unixsocketperm", "600", "--dir", s.dir,
		"--appendonly", "yes", "--save", "", "--daemonize", "no", "--logfile", filepath.Join(s.dir, "redis.log"))
	p, err := s.spawn(name, cmd)
	if err != nil {
		return nil, err
	}
	url := "unix://" + socket
	rdb, err := stream.Open(stream.Options{URL: url})
	if err != nil {
		return nil, err
	}
	for {
		err := rdb.Ping(ctx).Err()
		if err == nil {
			break
		}
		select {
		case <-p.gone:
			return nil, fmt.Errorf("%s ended: %s", name, tail(filepath.Join(s.dir, "redis.log")))
		case <-ctx.Done():
			return nil, errors.Join(ctx.Err(), err)
		case <-time.After(10 * time.Millisecond):
		}
	}
	version := ""
	if info, err := rdb.InfoMap(ctx, "server").Result(); err == nil {
		version = " " + info["Server"]["redis_version"]
	}
	return &backend{name: name + version + " (append-only file)", flags: []string{"--redis", url}, rdb: rdb, close: func() { rdb.Close() }}, nil
}

// startEmbedded starts a Redis within this process. It is good enough to show the work,
// and no proof of anything: it keeps nothing.
func (s *stage) startEmbedded() (*backend, error) {
	var secret [16]byte
	rand.Read(secret[:])
	password := hex.EncodeToString(secret[:])
	file := filepath.Join(s.dir, "password")
	if err := os.WriteFile(file, []byte(password), 0o600); err != nil {
		return nil, err
	}
	m := miniredis.NewMiniRedis()
	m.RequireAuth(password)
	if err := m.Start(); err != nil {
		return nil, fmt.Errorf("start the embedded Redis: %w", err)
	}
	m.Server().SetPreHook(withoutShebang)
	url := "redis://" + m.Addr()
	rdb, err := stream.Open(stream.Options{URL: url, PasswordFile: file})
	if err != nil {
		m.Close()
		return nil, err
	}
	return &backend{
		name:     "embedded, in memory, not durable (no redis-server or valkey-server in PATH)",
		flags:    []string{"--redis", url, "--redis-password-file", file},
		volatile: true,
		rdb:      rdb, close: func() { rdb.Close(); m.Close() },
	}, nil
}

// withoutShebang strips the "#!lua" line, which the embedded Redis does not know. The hook
// shares its arguments with the command that runs after it.
func withoutShebang(_ *server.Peer, cmd string, args ...string) bool {
	if cmd == "EVAL" && len(args) > 0 && strings.HasPrefix(args[0], "#!lua") {
		_, args[0], _ = strings.Cut(args[0], "\n")
	}
	return false
}

// tail is the end of a file, for an error.
func tail(path string) string {
	raw, err := os.ReadFile(path)
	if err != nil {
		return err.Error()
	}
	return strings.TrimSpace(string(raw[max(0, len(raw)-1000):]))
}
