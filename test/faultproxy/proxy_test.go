package faultproxy_test

import (
	"context"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"riposte/stream"
	"riposte/test/faultproxy"
	"riposte/test/redistest"
)

// through is a client with the options of production, through the proxy.
func through(t *testing.T, p *faultproxy.Proxy) *redis.Client {
	t.Helper()
	rdb, err := stream.Open(stream.Options{URL: p.URL})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { rdb.Close() })
	return rdb
}

func hit(t *testing.T, f *faultproxy.Fault, want bool) {
	t.Helper()
	if want {
		select {
		case <-f.Hit:
		case <-time.After(10 * time.Second):
			t.Error("the fault did not strike")
		}
		return
	}
	select {
	case <-f.Hit:
		t.Error("the fault struck")
	default:
	}
}

func TestFaults(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t)
	direct := s.Client()
	for _, tt := range []struct {
		name string
		rule faultproxy.Rule
		ran  bool
		says string // the client's error
	}{
		{"before", faultproxy.Rule{Command: "INCR", When: faultproxy.Before}, false, "EOF"},
		{"before, answered", faultproxy.Rule{Command: "INCR", When: faultproxy.Before, Error: "OOM command not allowed"}, false, "OOM command not allowed"},
		{"after", faultproxy.Rule{Command: "INCR", When: faultproxy.After}, true, "EOF"},
		{"in reply", faultproxy.Rule{Command: "INCR", When: faultproxy.InReply}, true, "EOF"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			ctx, key := t.Context(), tt.name
			p := faultproxy.Start(t, s.Addr)
			rdb := through(t, p)
			tt.rule.Nth, tt.rule.Arg = 2, key
			f := p.Inject(tt.rule)
			if err := rdb.Incr(ctx, key).Err(); err != nil {
				t.Fatalf("the first: %v", err)
			}
			if err := rdb.Incr(ctx, "another key").Err(); err != nil {
				t.Fatalf("another one: %v", err)
			}
			hit(t, f, false)
			if err := rdb.Incr(ctx, key).Err(); err == nil || !strings.Contains(err.Error(), tt.says) {
				t.Errorf("the second says %v, want %s", err, tt.says)
			}
			hit(t, f, true)
			want, passed := int64(1), 2
			if tt.ran {
				want, passed = 2, 3
			}
			if n, err := direct.Get(ctx, key).Int64(); n != want || err != nil {
				t.Errorf("the server ran it %d times, want %d (%v)", n, want, err)
			}
			if got := p.Seen()["INCR"]; got != passed {
				t.Errorf("%d were seen to pass, want %d", got, passed)
			}
			if n, err := rdb.Incr(ctx, key).Result(); n != want+1 || err != nil {
				t.Errorf("afterwards: %d, %v", n, err)
			}
		})
	}
}

// TestPipeline: what was asked before the fault is answered, and nothing after it.
func TestPipeline(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t)
	for _, tt := range []struct {
		rule faultproxy.Rule
		want string // all the client gets
		ran  string // the counter
	}{
		{faultproxy.Rule{When: faultproxy.Before, Error: "OOM no"}, "+OK\r\n:1\r\n-OOM no\r\n:2\r\n", "2"},
		{faultproxy.Rule{When: faultproxy.Before}, "+OK\r\n:1\r\n", "1"},
		{faultproxy.Rule{When: faultproxy.After}, "+OK\r\n:1\r\n", ""},
		{faultproxy.Rule{When: faultproxy.InReply}, "+OK\r\n:1\r\n:2", ""},
	} {
		p := faultproxy.Start(t, s.Addr)
		tt.rule.Command, tt.rule.Nth = "INCR", 2
		f := p.Inject(tt.rule)
		conn, err := net.Dial("tcp", p.Addr)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if err := conn.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
			t.Fatal(err)
		}
		const incr = "*2\r\n$4\r\nincr\r\n$1\r\nn\r\n"
		if _, err := io.WriteString(conn, "*3\r\n$3\r\nSET\r\n$1\r\nn\r\n$1\r\n0\r\n"+strings.Repeat(incr, 3)); err != nil {
			t.Fatal(err)
		}
		got := make([]byte, len(tt.want))
		if _, err := io.ReadFull(conn, got); err != nil || string(got) != tt.want {
			t.Errorf("%+v: got %q, %v, want %q", tt.rule, got, err, tt.want)
		}
		hit(t, f, true)
		if tt.rule.Error == "" {
			if rest, _ := io.ReadAll(conn); len(rest) > 0 {
				t.Errorf("%+v: and then %q", tt.rule, rest)
			}
		}
		if n := s.Client().Get(t.Context(), "n").Val(); tt.ran != "" && n != tt.ran {
			t.Errorf("%+v: the server counts %s, want %s", tt.rule, n, tt.ran)
		}
	}
}

// TestScripts: scripts go by their names, and a fault waits for one that is run.
func TestScripts(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t)
	p := faultproxy.Start(t, s.Addr)
	rdb := through(t, p)
	source, err := os.ReadFile("../../stream/lua/trim.lua")
	if err != nil {
		t.Fatal(err)
	}
	script := redis.NewScript(string(source))
	trim := func() error { return script.Run(t.Context(), rdb, []string{"none"}, 1, 1).Err() }
	f := p.Inject(faultproxy.Rule{Command: "trim", When: faultproxy.After})
	if err := trim(); err == nil {
		t.Error("the reply was not lost")
	}
	hit(t, f, true)
	if known, err := script.Exists(t.Context(), s.Client()).Result(); err != nil || !known[0] {
		t.Errorf("the script was not run: %v", err)
	}
	if err := trim(); err != nil {
		t.Error(err)
	}
	if seen := p.Seen(); seen["trim"] != 3 || seen["EVALSHA"]+seen["EVAL"] != 0 { // the first one was not known
		t.Errorf("seen: %v", seen)
	}
	names := map[string]bool{}
	for _, name := range faultproxy.Scripts(t) {
		names[name] = true
	}
	for _, name := range []string{"begin", "renew", "record", "bury", "release", "takeover", "trim"} {
		if !names[name] {
			t.Errorf("no script %q", name)
		}
	}
}

// TestStrangers: a command is known by its name and, where one is given, by an argument.
func TestStrangers(t *testing.T) {
	t.Parallel()
	p := faultproxy.Start(t, redistest.Start(t).Addr)
	rdb := through(t, p)
	if err := rdb.Ping(t.Context()).Err(); err != nil { // when anything is welcome
		t.Fatal(err)
	}
	p.Expect([]faultproxy.Rule{{Command: "INCR"}, {Command: "GET", Arg: "a"}, {Command: "GET", Arg: "b"}})
	for _, key := range []string{"a", "b", "c", "c"} {
		if err := rdb.Incr(t.Context(), key).Err(); err != nil {
			t.Fatal(err)
		}
		if err := rdb.Get(t.Context(), key).Err(); err != nil {
			t.Fatal(err)
		}
	}
	_ = rdb.Del(t.Context(), "a").Err()
	if got := strings.Join(p.Strangers(), ", "); got != `DEL "a", GET "c"` {
		t.Errorf("strangers: %s", got)
	}
}

func TestLatency(t *testing.T) {
	t.Parallel()
	const late = 200 * time.Millisecond
	p := faultproxy.Start(t, redistest.Start(t).Addr)
	rdb := through(t, p)
	p.Latency(late)
	start := time.Now()
	var counts []*redis.IntCmd
	if _, err := rdb.Pipelined(t.Context(), func(pipe redis.Pipeliner) error {
		for range 20 {
			counts = append(counts, pipe.Incr(t.Context(), "n"))
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	for i, c := range counts {
		if c.Val() != int64(i)+1 {
			t.Errorf("reply %d is %d", i, c.Val())
		}
	}
	if took := time.Since(start); took < late || took > 10*late { // one delay, and one to connect; not 20
		t.Errorf("20 replies took %v, with %v of latency", took, late)
	}
	// A delayed connection holds up no other: all are late at the same time.
	p.Latency(time.Hour)
	ctx, cancel := context.WithTimeout(t.Context(), late)
	defer cancel()
	if err := rdb.Ping(ctx).Err(); err == nil {
		t.Error("answered before its time")
	}
	p.Latency(0)
	if err := through(t, p).Ping(t.Context()).Err(); err != nil {
		t.Error(err)
	}
}

func TestCutAndRetarget(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	a, b := redistest.Start(t), redistest.Start(t)
	p := faultproxy.Start(t, a.Addr)
	rdb := through(t, p)
	waiting := make(chan error, 1)
	for i, change := range []func(){p.Cut, func() { p.Retarget(b.Addr) }} {
		go func() { waiting <- rdb.BLPop(ctx, time.Minute, "list").Err() }()
		awaitBlocked(t, a.Client())
		change()
		if err := <-waiting; err == nil {
			t.Errorf("%d: the connection was not cut", i)
		}
		if err := rdb.Set(ctx, "k", i, 0).Err(); err != nil {
			// Another connection of the pool was cut, too.
			if err = rdb.Set(ctx, "k", i, 0).Err(); err != nil {
				t.Errorf("%d: afterwards: %v", i, err)
			}
		}
	}
	if got := a.Client().Get(ctx, "k").Val() + b.Client().Get(ctx, "k").Val(); got != "01" {
		t.Errorf("writes went to %q", got)
	}
}

func awaitBlocked(t *testing.T, rdb *redis.Client) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); <-tick.C {
		if strings.Contains(rdb.Info(t.Context(), "clients").Val(), "blocked_clients:1") {
			return
		}
	}
	t.Fatal("no client is blocked")
}

// TestSubscribe: what the server says unasked passes, too.
func TestSubscribe(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t)
	sub := through(t, faultproxy.Start(t, s.Addr)).Subscribe(t.Context(), "channel")
	defer sub.Close()
	if _, err := sub.Receive(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := s.Client().Publish(t.Context(), "channel", "hello").Err(); err != nil {
		t.Fatal(err)
	}
	if m, err := sub.ReceiveMessage(t.Context()); err != nil || m.Payload != "hello" {
		t.Errorf("got %v, %v", m, err)
	}
}

// TestSubscribeBroken: a subscription can be broken like any other command.
func TestSubscribeBroken(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t)
	for _, when := range []faultproxy.When{faultproxy.Before, faultproxy.After, faultproxy.InReply} {
		p := faultproxy.Start(t, s.Addr)
		f := p.Inject(faultproxy.Rule{Command: "SUBSCRIBE", When: when})
		sub := through(t, p).Subscribe(t.Context(), "channel")
		defer sub.Close()
		if m, err := sub.ReceiveTimeout(t.Context(), 10*time.Second); err == nil {
			t.Errorf("%s: got %v", when, m)
		}
		hit(t, f, true)
	}
}

// TestServerGone: a client hears that the server has hung up.
func TestServerGone(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t)
	rdb := through(t, faultproxy.Start(t, s.Addr))
	if err := rdb.Ping(t.Context()).Err(); err != nil {
		t.Fatal(err)
	}
	s.Kill()
	if err := rdb.Ping(t.Context()).Err(); err == nil {
		t.Error("the server is dead, and answers")
	}
	s.Restart()
	if err := rdb.Ping(t.Context()).Err(); err != nil {
		t.Error(err)
	}
}
