package main

import (
	"context"
	"net"
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"
)

const (
	peersEvery    = 5 * time.Second
	peersPatience = 2 * time.Second
)

// peers are the addresses behind which Redis is: blocking one would cut off the hand that
// could undo it. They are looked up aside, so that no decision waits for a resolver.
type peers struct {
	name   string // empty: Redis is on this host, behind a unix socket
	lookup func(ctx context.Context, network, name string) ([]netip.Addr, error)
	last   atomic.Pointer[[]netip.Addr]
}

func redisPeers(rdb *redis.Client) *peers {
	p := &peers{lookup: net.DefaultResolver.LookupNetIP}
	opt := rdb.Options()
	if name, _, err := net.SplitHostPort(opt.Addr); err == nil && opt.Network != "unix" {
		p.name = name
	}
	return p
}

// reach makes a fresh connection to Redis, as the client would if it lost those it has.
func reach(rdb *redis.Client) func(ctx context.Context) error {
	opt := rdb.Options()
	return func(ctx context.Context) error {
		conn, err := new(net.Dialer).DialContext(ctx, opt.Network, opt.Addr)
		if err != nil {
			return err
		}
		return conn.Close()
	}
}

// known are the addresses as last looked up.
func (p *peers) known() []netip.Addr {
	if last := p.last.Load(); last != nil {
		return *last
	}
	return nil
}

// renew looks the name up again. Where it cannot be resolved, what it last had stays.
func (p *peers) renew(ctx context.Context) {
	if p.name == "" {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, peersPatience)
	defer cancel()
	if found, err := p.lookup(ctx, "ip", p.name); err == nil {
		p.last.Store(&found)
	}
}

// keep renews what is known until ctx ends: a name may move to another server.
func (p *peers) keep(ctx context.Context) {
	tick := time.NewTicker(peersEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			p.renew(ctx)
		}
	}
}
