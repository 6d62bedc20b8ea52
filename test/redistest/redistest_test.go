package redistest_test

import (
	"net"
	"strconv"
	"strings"
	"testing"

	"riposte/test/redistest"
)

func TestServer(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	s := redistest.Start(t, "--appendfsync", "always")
	rdb := s.Client()
	info, err := rdb.Info(ctx, "server", "persistence").Result()
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"process_id:" + strconv.Itoa(s.PID()) + "\r", "aof_enabled:1"} {
		if !strings.Contains(info, want) {
			t.Errorf("INFO lacks %q", want)
		}
	}
	if v := rdb.ConfigGet(ctx, "appendfsync").Val()["appendfsync"]; v != "always" {
		t.Errorf("appendfsync is %q: arguments are not passed on", v)
	}

	if err := rdb.Set(ctx, "k", "v", 0).Err(); err != nil {
		t.Fatal(err)
	}
	for _, end := range []func(){s.Stop, s.Kill} {
		pid := s.PID()
		end()
		if _, err := net.Dial("tcp", s.Addr); err == nil {
			t.Error("something still listens after the server has ended")
		}
		s.Restart()
		if s.PID() == pid {
			t.Error("the server was not started again")
		}
		if got := s.Client().Get(ctx, "k").Val(); got != "v" {
			t.Errorf("after a restart k is %q, want v", got)
		}
	}
	s.FlushAll()
	if n := s.Client().DBSize(ctx).Val(); n != 0 {
		t.Errorf("%d keys after FlushAll", n)
	}
}

func TestServersAreApart(t *testing.T) {
	t.Parallel()
	a, b := redistest.Start(t), redistest.Start(t)
	if a.Addr == b.Addr || a.PID() == b.PID() {
		t.Fatalf("one server twice: %s and %s", a.Addr, b.Addr)
	}
	if err := a.Client().Set(t.Context(), "k", "v", 0).Err(); err != nil {
		t.Fatal(err)
	}
	if n := b.Client().Exists(t.Context(), "k").Val(); n != 0 {
		t.Error("the servers share their data")
	}
}

func TestServerEndsWithItsTest(t *testing.T) {
	t.Parallel()
	var addr string
	t.Run("inner", func(t *testing.T) { addr = redistest.Start(t).Addr })
	if c, err := net.Dial("tcp", addr); err == nil {
		c.Close()
		t.Error("the server outlived its test")
	}
}
