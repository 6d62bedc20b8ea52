package redisfaults

import (
	"testing"
	"time"
)

// Redis is away for longer than any lease, and back with all it had. Nobody holds anything
// any more by then, and whoever was in the middle of an effect has stopped.
func TestAway(t *testing.T) {
	t.Parallel()
	s := open(t, scenario{fault: "away for 3 leases", each: 80, over: 3 * time.Second, lease: time.Second, hold: 1500 * time.Millisecond})
	s.start()
	s.awaitAccepted(0.5)
	s.redis.Pause()
	away := time.NewTimer(3 * s.lease)
	s.await("leases to run out", func() bool { return s.said("the lease ran out") > 0 })
	<-away.C
	s.redis.Resume()
	s.drain()
	v := s.judge()
	lost := s.said("grant lost")
	t.Logf("%d grants were lost", lost)
	if lost == 0 {
		t.Error("no grant was lost")
	}
	s.innocent(v, "")
}
