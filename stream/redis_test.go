package stream_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9/maintnotifications"

	"riposte/stream"
	"riposte/test/redistest"
)

func write(t *testing.T, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestOpenOptions(t *testing.T) {
	rdb, err := stream.Open(stream.Options{URL: "rediss://u@example.com:7000/3", PasswordFile: write(t, "s e\r\n\n"), PoolSize: 7})
	if err != nil {
		t.Fatal(err)
	}
	defer rdb.Close()
	o := rdb.Options()
	if o.Addr != "example.com:7000" || o.Username != "u" || o.Password != "s e" || o.DB != 3 || o.TLSConfig == nil || o.PoolSize != 7 {
		t.Errorf("got %s, user %q, password %q, DB %d, TLS %v, pool %d", o.Addr, o.Username, o.Password, o.DB, o.TLSConfig != nil, o.PoolSize)
	}
	// go-redis turns the -1 of no retries into 0 once it has taken it in.
	if o.MaxRetries != 0 || o.DialerRetries != 1 || !o.DisableIdentity || o.MaintNotificationsConfig.Mode != maintnotifications.ModeDisabled {
		t.Errorf("retries %d and %d, identity off %v, notifications %v", o.MaxRetries, o.DialerRetries, o.DisableIdentity, o.MaintNotificationsConfig.Mode)
	}
	if o.DialTimeout != 2*time.Second || o.ReadTimeout != 3*time.Second || !o.ContextTimeoutEnabled {
		t.Errorf("timeouts %v, %v, of contexts %v", o.DialTimeout, o.ReadTimeout, o.ContextTimeoutEnabled)
	}
	if got := stream.Address(rdb); got != "rediss://u@example.com:7000?db=3" {
		t.Errorf("address %s", got)
	}

	// What the URL says cannot bring retries back.
	rdb, err = stream.Open(stream.Options{URL: "redis://h?max_retries=5&read_timeout=7s"})
	if err != nil {
		t.Fatal(err)
	}
	defer rdb.Close()
	if o := rdb.Options(); o.MaxRetries != 0 || o.ReadTimeout != 7*time.Second {
		t.Errorf("retries %d, read timeout %v", o.MaxRetries, o.ReadTimeout)
	}
}

func TestOpenNeverPrintsPasswords(t *testing.T) {
	for _, o := range []stream.Options{
		{URL: "redis://u:hunter2@h:99999x"},
		{URL: "redis://u:hun#hunter2@h:6379"},
		{URL: "redis://u:hun/hunter2@h:6379"},
		{URL: "redis://u:%hunter2@h"},
		{URL: "http://u:hunter2@h"},
		{URL: "u:hunter2@h:6379"},
		{URL: "redis://u:hunter2@h?nonsense=hunter2"},
		{URL: "redis://u:hunter2@h", PasswordFile: write(t, "hunter2x")},
		{URL: "redis://u@h", PasswordFile: write(t, "\n")},
		{URL: "redis://u@h", PasswordFile: "/does/not/exist"},
		{URL: ""},
		{URL: "127.0.0.1:6379"},
		{URL: "redis://h/notanumber"},
		{URL: "redis://h?nonsense=1"},
	} {
		rdb, err := stream.Open(o)
		if err == nil {
			rdb.Close()
			t.Errorf("%q with file %q is accepted", o.URL, o.PasswordFile)
			continue
		}
		if strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%q: the error shows the password: %v", o.URL, err)
		}
	}
}

func TestPingSaysWhereAndHow(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	l.Close()
	for _, o := range []stream.Options{{URL: "redis://u:hunter2@" + addr}, {URL: "unix:///does/not/exist.sock"}} {
		rdb, err := stream.Open(o)
		if err != nil {
			t.Fatal(err)
		}
		defer rdb.Close()
		err = stream.Ping(t.Context(), rdb)
		if err == nil {
			t.Fatalf("%s: something answers", o.URL)
		}
		for _, want := range []string{stream.Address(rdb), "redis-server --appendonly yes", "docker run", "riposte demo"} {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("%q does not name %s", err, want)
			}
		}
		if strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%q shows the password", err)
		}
	}
}

// A server that accepts and never answers must not hold anybody up for long.
func TestPingIsBounded(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	rdb, err := stream.Open(stream.Options{URL: "redis://" + l.Addr().String() + "?read_timeout=100ms"})
	if err != nil {
		t.Fatal(err)
	}
	defer rdb.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	if err := stream.Ping(ctx, rdb); err == nil || ctx.Err() != nil {
		t.Errorf("got %v, %v", err, ctx.Err())
	}
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	if err := stream.Ping(cancelled, rdb); !errors.Is(err, context.Canceled) || strings.Contains(err.Error(), "redis-server") {
		t.Errorf("the caller's own end is told as %v", err)
	}
}

func TestPasswordsAndUsers(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t)
	ctx := t.Context()
	// All that the publisher of one host needs, and not even PING.
	if err := s.Client().Do(ctx, "ACL", "SETUSER", "sensor", "on", ">hunter2", "resetkeys", "~riposte:{h1}:alerts", "-@all", "+xadd", "+xlen").Err(); err != nil {
		t.Fatal(err)
	}
	url := "redis://sensor@" + s.Addr
	rdb, err := stream.Open(stream.Options{URL: url, PasswordFile: write(t, "hunter2\n")})
	if err != nil {
		t.Fatal(err)
	}
	defer rdb.Close()
	if err := stream.Ping(ctx, rdb); err != nil {
		t.Errorf("a restricted user is turned away: %v", err)
	}
	pub, err := stream.NewPublisher(rdb, stream.PublisherConfig{Host: "h1"})
	if err != nil {
		t.Fatal(err)
	}
	if err := pub.Publish(ctx, &stream.Alert{ID: "a", Level: "HIGH"}); err != nil {
		t.Errorf("a restricted user cannot publish: %v", err)
	}
	if n := s.Client().XLen(ctx, stream.Host("h1").AlertsKey()).Val(); n != 1 {
		t.Errorf("%d entries, want 1", n)
	}

	wrong, err := stream.Open(stream.Options{URL: url, PasswordFile: write(t, "hunter3")})
	if err != nil {
		t.Fatal(err)
	}
	defer wrong.Close()
	err = stream.Ping(ctx, wrong)
	if err == nil || !strings.Contains(err.Error(), "--redis-password-file") || strings.Contains(err.Error(), "hunter3") {
		t.Errorf("a wrong password is told as %v", err)
	}
}

func TestUnixSocket(t *testing.T) {
	t.Parallel()
	dir, err := os.MkdirTemp("", "rip") // t.TempDir can be too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	socket := filepath.Join(dir, "s")
	redistest.Start(t, "--unixsocket", socket)
	rdb, err := stream.Open(stream.Options{URL: fmt.Sprintf("unix://%s?db=2", socket)})
	if err != nil {
		t.Fatal(err)
	}
	defer rdb.Close()
	if err := stream.Ping(t.Context(), rdb); err != nil {
		t.Error(err)
	}
	if got := stream.Address(rdb); got != "unix://"+socket+"?db=2" {
		t.Errorf("address %s", got)
	}
}
