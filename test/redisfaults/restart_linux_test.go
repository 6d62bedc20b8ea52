package redisfaults

import (
	"testing"
	"time"
)

var restart = scenario{each: 80, over: 4 * time.Second, lease: 2 * time.Second, hold: 300 * time.Millisecond}

// A server that was killed still has all that it wrote. One that lost its power has what
// it synced.
func TestKillEverysec(t *testing.T) {
	t.Parallel()
	sc := restart
	sc.fault, sc.redis = "kill -9, then a power cut; appendfsync everysec", []string{"--appendfsync", "everysec"}
	s := open(t, sc)
	s.start()
	s.awaitAccepted(0.25)
	s.redis.Kill()
	s.redis.Restart()
	s.awaitAccepted(0.5)
	mark := s.redis.Written()
	s.awaitAccepted(0.65) // less than a second later
	acked := s.publisher.added.entries()
	s.redis.CutPower(mark)
	s.redis.Restart()
	vanished := s.vanished(acked)
	s.drain()
	v := s.judge()
	if vanished == 0 || v.again == 0 {
		t.Errorf("of what was acknowledged, %d alerts and %d outcomes were lost; want some of both", vanished, v.again)
	}
	s.innocent(v, s.cost(v, vanished))
}

// With always, what was acknowledged is there.
func TestKillAlways(t *testing.T) {
	t.Parallel()
	sc := restart
	sc.fault, sc.redis = "kill -9 three times; appendfsync always", []string{"--appendfsync", "always"}
	s := open(t, sc)
	s.start()
	for _, part := range []float64{0.25, 0.5, 0.75} {
		s.awaitAccepted(part)
		warned := s.said("level=WARN")
		s.redis.Kill()
		acked := s.publisher.added.entries()
		s.await("the replicas to miss Redis", func() bool { return s.said("level=WARN") > warned })
		s.redis.Restart()
		if n := s.vanished(acked); n > 0 {
			t.Errorf("%d alerts were lost though acknowledged", n)
		}
	}
	s.drain()
	v := s.judge()
	if v.again > 0 {
		t.Errorf("%d records were lost though acknowledged", v.again)
	}
	s.innocent(v, "")
}
