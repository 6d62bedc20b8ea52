package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"github.com/redis/go-redis/v9"
)

// server is the redis-server that all contenders share.
type server struct {
	addr string
	cmd  *exec.Cmd
	gone chan struct{}
}

// startRedis starts it on a free port, with a data folder of its own. It rewrites its
// append-only file only when told to, so that no rewrite falls into a measurement, and it
// keeps no log of slow commands, which would count as memory.
func (l *lab) startRedis(ctx context.Context) (*server, error) {
	probe, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	s := &server{addr: probe.Addr().String(), gone: make(chan struct{})}
	if err := probe.Close(); err != nil {
		return nil, err
	}
	_, port, _ := net.SplitHostPort(s.addr)
	data := filepath.Join(l.dir, "redis")
	if err := os.Mkdir(data, 0o700); err != nil {
		return nil, err
	}
	log := filepath.Join(l.dir, "redis.log")
	s.cmd = exec.Command("redis-server", "--bind", "127.0.0.1", "--port", port, "--dir", data, "--save", "",
		"--appendonly", "yes", "--appendfsync", "everysec", "--auto-aof-rewrite-percentage", "0",
		"--slowlog-log-slower-than", "-1", "--logfile", log)
	attr := leash
	s.cmd.SysProcAttr = &attr
	if err := l.thread.do(s.cmd.Start); err != nil {
		return nil, fmt.Errorf("%w; on Debian: apt-get install redis-server", err)
	}
	go func() { defer close(s.gone); _ = s.cmd.Wait() }()
	return s, until(ctx, func() (bool, error) {
		select {
		case <-s.gone:
			text, _ := os.ReadFile(log)
			return false, fmt.Errorf("redis-server ended at once:\n%s", text)
		default:
		}
		conn, err := net.Dial("tcp", s.addr)
		if err != nil {
			return false, nil
		}
		return true, conn.Close()
	})
}

func (s *server) stop() {
	_ = s.cmd.Process.Signal(syscall.SIGTERM)
	<-s.gone
}

// empty forgets all data and their traces in the append-only file.
func (s *server) empty(ctx context.Context, rdb *redis.Client) error {
	if err := rdb.FlushAll(ctx).Err(); err != nil {
		return err
	}
	if err := rdb.BgRewriteAOF(ctx).Err(); err != nil {
		return err
	}
	return until(ctx, func() (bool, error) {
		info, err := infoOf(ctx, rdb, "persistence")
		return info["aof_rewrite_in_progress"] == "0" && info["aof_rewrite_scheduled"] == "0", err
	})
}

func infoOf(ctx context.Context, rdb *redis.Client, section string) (map[string]string, error) {
	text, err := rdb.Info(ctx, section).Result()
	info := map[string]string{}
	for line := range strings.Lines(text) {
		if name, value, ok := strings.Cut(strings.TrimSpace(line), ":"); ok {
			info[name] = value
		}
	}
	return info, err
}

// redisCPU is the CPU time of Redis's main thread, in seconds: commands, scripts and network.
func redisCPU(ctx context.Context, rdb *redis.Client) (float64, error) {
	info, err := infoOf(ctx, rdb, "cpu")
	if err != nil {
		return 0, err
	}
	user, _ := strconv.ParseFloat(info["used_cpu_user_main_thread"], 64)
	system, _ := strconv.ParseFloat(info["used_cpu_sys_main_thread"], 64)
	return user + system, nil
}

// commands are the microseconds that Redis says each command has taken. What a script calls
// is in the script's and, again, in its own.
func commands(ctx context.Context, rdb *redis.Client) (map[string]float64, error) {
	info, err := infoOf(ctx, rdb, "commandstats")
	took := map[string]float64{}
	for name, value := range info {
		_, usec, _ := strings.Cut(value, "usec=")
		usec, _, _ = strings.Cut(usec, ",")
		took[strings.TrimPrefix(name, "cmdstat_")], _ = strconv.ParseFloat(usec, 64)
	}
	return took, err
}
