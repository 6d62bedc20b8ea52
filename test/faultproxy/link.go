package faultproxy

import (
	"bufio"
	"bytes"
	"io"
	"net"
	"sync"
	"time"
)

// link is a client's connection and the one to the server that belongs to it.
type link struct {
	proxy          *Proxy
	client, server net.Conn
	asked          chan command // in the order of their replies
	replies        chan reply
	gone           chan struct{} // closed with the connections
	once           sync.Once
}

// command is one that waits for its reply.
type command struct {
	fault  *Fault // may be nil
	stream bool   // from now on the server says what it likes: SUBSCRIBE, MONITOR
}

// reply is one on its way to the client.
type reply struct {
	raw  []byte
	due  time.Time
	last bool   // the connection is closed after it
	hit  *Fault // has struck with that; may be nil
}

// most is how many commands may wait for their replies before the client has to.
const most = 4096

func newLink(p *Proxy, client, server net.Conn) *link {
	return &link{
		proxy: p, client: client, server: server, gone: make(chan struct{}),
		asked: make(chan command, most), replies: make(chan reply, most),
	}
}

func (l *link) close() {
	l.once.Do(func() {
		close(l.gone)
		l.client.Close()
		l.server.Close()
	})
}

func (l *link) run() {
	var pumps sync.WaitGroup
	for _, pump := range []func(){l.ask, l.answer, l.deliver} {
		pumps.Go(func() {
			defer l.close()
			pump()
		})
	}
	pumps.Wait()
}

// ask passes on what the client asks for.
func (l *link) ask() {
	from := bufio.NewReader(l.client)
	for {
		raw, words, err := request(from)
		if err != nil {
			return
		}
		name := l.proxy.name(words)
		c := command{fault: l.proxy.meet(name, words)}
		switch name {
		case "SUBSCRIBE", "PSUBSCRIBE", "SSUBSCRIBE", "MONITOR":
			c.stream = true
		}
		select {
		case l.asked <- c:
		case <-l.gone:
			return
		}
		if c.fault != nil && c.fault.rule.When == Before {
			if c.fault.rule.Error == "" {
				<-l.gone // closed when the replies to what was asked before are through
				return
			}
			continue
		}
		if _, err := l.server.Write(raw); err != nil {
			return
		}
		if c.stream {
			_, _ = io.Copy(l.server, from)
			return
		}
	}
}

// answer reads the server's replies and decides what becomes of each.
func (l *link) answer() {
	from := bufio.NewReader(l.server)
	for {
		var c command
		select {
		case c = <-l.asked:
		case <-l.gone:
			return
		}
		switch {
		case c.fault != nil && c.fault.rule.When == Before:
			r := reply{hit: c.fault, last: c.fault.rule.Error == ""}
			if !r.last {
				r.raw = []byte("-" + c.fault.rule.Error + "\r\n")
			}
			if !l.send(r) {
				return
			}
		case c.stream && c.fault != nil: // its reply may be a push, like all that would follow
			if raw, err := frame(from); err != nil || !l.send(broken(raw, c.fault)) {
				return
			}
		case c.stream:
			for {
				raw, err := frame(from)
				if err != nil || !l.send(reply{raw: raw}) {
					return
				}
			}
		default:
			if !l.pass(from, c.fault) {
				return
			}
		}
	}
}

// pass reads the reply to one command, with what the server pushes before it.
func (l *link) pass(from *bufio.Reader, fault *Fault) bool {
	raw, err := frame(from)
	for err == nil && raw[0] == '>' {
		if !l.send(reply{raw: raw}) {
			return false
		}
		raw, err = frame(from)
	}
	switch {
	case err != nil:
		return false
	case fault == nil:
		return l.send(reply{raw: raw})
	case bytes.HasPrefix(raw, []byte("-NOSCRIPT ")):
		l.proxy.rearm(fault)
		return l.send(reply{raw: raw})
	}
	return l.send(broken(raw, fault))
}

// broken is what a fault leaves of a reply.
func broken(raw []byte, fault *Fault) reply {
	if fault.rule.When == InReply {
		return reply{raw: raw[:len(raw)/2], last: true, hit: fault}
	}
	return reply{last: true, hit: fault}
}

func (l *link) send(r reply) bool {
	r.due = time.Now().Add(l.proxy.delay())
	select {
	case l.replies <- r:
		return true
	case <-l.gone:
		return false
	}
}

// deliver hands the replies to the client when they are due.
func (l *link) deliver() {
	for {
		var r reply
		select {
		case r = <-l.replies:
		case <-l.gone:
			return
		}
		if wait := time.Until(r.due); wait > 0 {
			late := time.NewTimer(wait)
			select {
			case <-late.C:
			case <-l.gone:
				late.Stop()
				return
			}
		}
		_, err := l.client.Write(r.raw)
		if r.last {
			l.close()
		}
		if r.hit != nil {
			close(r.hit.hit)
		}
		if err != nil || r.last {
			return
		}
	}
}
