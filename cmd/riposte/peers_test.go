package main

import (
	"context"
	"errors"
	"net/netip"
	"testing"

	"github.com/redis/go-redis/v9"

	"riposte/playbook/action"
	"riposte/playbook/guard"
	"riposte/test/need"
)

// While the name of Redis is looked up, decisions go by what it last had, and so they do
// where the answer is an error.
func TestPeersWhileLookingUp(t *testing.T) {
	need.Linux(t)
	addrs := func(s string) []netip.Addr { return []netip.Addr{netip.MustParseAddr(s)} }
	found, failed := addrs("203.0.113.7"), error(nil)
	asked, answer := make(chan string, 10), make(chan bool, 10)
	p := &peers{name: "redis.example", lookup: func(ctx context.Context, _, name string) ([]netip.Addr, error) {
		asked <- name
		select {
		case <-answer:
			return found, failed
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}}
	protected := func(addr string) bool {
		t.Helper()
		floor := &guard.Floor{RedisPeers: p.known}
		_, refused := action.Reason(floor.Address(addrs(addr)[0]))
		if n := len(asked); n > 0 {
			t.Fatalf("a decision looked up %s itself", <-asked)
		}
		return refused
	}
	answer <- true
	p.renew(t.Context())
	if name := <-asked; name != "redis.example" {
		t.Errorf("looked up %q", name)
	}
	for _, next := range []error{errors.New("no such host"), nil} {
		found, failed = addrs("203.0.113.8"), next
		renewed := make(chan bool)
		go func() { p.renew(t.Context()); close(renewed) }()
		<-asked // and not answered yet
		if !protected("203.0.113.7") || protected("203.0.113.8") {
			t.Error("what was last known is forgotten while it is looked up")
		}
		answer <- true
		<-renewed
		if moved := next == nil; protected("203.0.113.7") == moved || protected("203.0.113.8") != moved {
			t.Errorf("after the answer %v, %v: known are %v", found, failed, p.known())
		}
	}
}

func TestPeersBehindSocket(t *testing.T) {
	rdb := redis.NewClient(&redis.Options{Network: "unix", Addr: "/run/redis.sock"})
	defer rdb.Close()
	p := redisPeers(rdb)
	p.renew(t.Context())
	if known := p.known(); known != nil {
		t.Errorf("a socket has the addresses %v", known)
	}
}
