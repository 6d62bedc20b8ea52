// Package faultproxy is a TCP proxy in front of a redis-server that breaks what passes
// through it, at a command and a moment that a test chooses. It knows just enough of RESP
// to see where a command or a reply begins and ends.
package faultproxy

import (
	"maps"
	"net"
	"sync"
	"testing"
	"time"
)

// Proxy forwards connections to a server. Its methods are safe for concurrent use.
type Proxy struct {
	Addr string // 127.0.0.1:PORT
	URL  string // redis://127.0.0.1:PORT

	listener net.Listener
	scripts  map[string]string
	working  sync.WaitGroup

	mu        sync.Mutex
	server    string
	latency   time.Duration
	faults    []*Fault
	seen      map[string]int
	expected  []Rule // nil: anything
	strangers map[string]bool
	links     map[*link]bool
	closed    bool
}

// Start puts a proxy on loopback in front of the server at addr, until the test ends.
func Start(t testing.TB, addr string) *Proxy {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &Proxy{
		Addr: listener.Addr().String(), URL: "redis://" + listener.Addr().String(),
		listener: listener, scripts: Scripts(t), server: addr,
		seen: map[string]int{}, strangers: map[string]bool{}, links: map[*link]bool{},
	}
	p.working.Go(p.accept)
	t.Cleanup(p.close)
	return p
}

// Latency delays every reply from now on; 0 ends that. Replies of one connection stay in
// order, and are late by no more than this, however many there are.
func (p *Proxy) Latency(d time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.latency = d
}

// Cut closes all connections. New ones are welcome.
func (p *Proxy) Cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for l := range p.links {
		l.close()
	}
}

// Retarget sends new connections to another server, and cuts the existing ones.
func (p *Proxy) Retarget(addr string) {
	p.mu.Lock()
	p.server = addr
	p.mu.Unlock()
	p.Cut()
}

// Seen is how often each command has passed to the server.
func (p *Proxy) Seen() map[string]int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return maps.Clone(p.seen)
}

func (p *Proxy) accept() {
	for {
		client, err := p.listener.Accept()
		if err != nil {
			return
		}
		p.working.Go(func() { p.serve(client) })
	}
}

// serve links a client to the server of the moment, until either of them hangs up.
func (p *Proxy) serve(client net.Conn) {
	p.mu.Lock()
	addr := p.server
	p.mu.Unlock()
	server, err := net.Dial("tcp", addr)
	if err != nil {
		client.Close()
		return
	}
	l := newLink(p, client, server)
	p.mu.Lock()
	if p.closed || p.server != addr { // cut while it was dialled
		l.close()
	}
	p.links[l] = true
	p.mu.Unlock()
	l.run()
	p.mu.Lock()
	delete(p.links, l)
	p.mu.Unlock()
}

func (p *Proxy) delay() time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.latency
}

func (p *Proxy) close() {
	p.listener.Close()
	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
	p.Cut()
	p.working.Wait()
}
