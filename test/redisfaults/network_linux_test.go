package redisfaults

import (
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"riposte/test/faultproxy"
)

// ways are proxies to the server, one for each replica.
func (s *site) ways() (all []*faultproxy.Proxy, urls []string) {
	s.t.Helper()
	for range replicas {
		way := faultproxy.Start(s.t, s.redis.Addr)
		all, urls = append(all, way), append(urls, way.URL)
	}
	return all, urls
}

// Every reply is late, by a third of the lease, and there are effects that take longer
// than a lease: a replica that is slow to be heard, but alive and connected, keeps its
// alerts.
func TestLatency(t *testing.T) {
	t.Parallel()
	const late = 2 * time.Second
	s := open(t, scenario{fault: "2 s latency on every reply", each: 30, over: 3 * time.Second, lease: 10 * time.Second, hold: 11 * time.Second})
	ways, urls := s.ways()
	s.start(urls...)
	s.awaitAccepted(0.3)
	for _, way := range ways {
		way.Latency(late)
	}
	begun := time.Now()
	s.drain()
	if took := time.Since(begun); took < 2*late {
		t.Errorf("all done in %v: nothing was late", took)
	}
	if n := s.said("grant lost"); n > 0 {
		t.Errorf("%d grants were lost by replicas that were alive and connected", n)
	}
	s.innocent(s.judge(), "")
}

// Connections break in the middle of replies, again and again: those that deliver alerts,
// grant them, renew them and confirm their records.
func TestCutReplies(t *testing.T) {
	t.Parallel()
	s := open(t, scenario{fault: "connections cut inside replies", each: 80, over: 4 * time.Second, lease: time.Second, hold: 100 * time.Millisecond})
	ways, urls := s.ways()
	s.start(urls...)
	var cuts atomic.Int64
	var cutters sync.WaitGroup
	enough := make(chan struct{})
	for _, way := range ways {
		for _, rule := range []faultproxy.Rule{
			{Command: "XREADGROUP", Arg: ">", Nth: 2}, {Command: "begin", Nth: 2}, {Command: "record", Nth: 3}, {Command: "renew", Nth: 2},
		} {
			rule.When = faultproxy.InReply
			cutters.Go(func() {
				for {
					select {
					case <-way.Inject(rule).Hit:
						cuts.Add(1)
					case <-enough:
						return
					}
				}
			})
		}
	}
	s.awaitAccepted(1)
	close(enough)
	cutters.Wait()
	s.drain()
	t.Logf("%d connections were cut", cuts.Load())
	if cuts.Load() < 50 {
		t.Errorf("only %d connections were cut", cuts.Load())
	}
	s.innocent(s.judge(), "")
}
