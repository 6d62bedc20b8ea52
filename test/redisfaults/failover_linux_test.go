package redisfaults

import (
	"testing"
	"time"

	"riposte/test/faultproxy"
)

var failover = scenario{
	fault: "failover to a stalled copy, deposed master still serving", each: 80, over: 4 * time.Second,
	lease: 2 * time.Second, hold: 400 * time.Millisecond, slots: 4,
}

func TestFailover(t *testing.T) {
	t.Parallel()
	s, v, vanished := failOver(t, failover)
	if v.again == 0 {
		t.Error("no outcome was recorded again: the new master lacked none")
	}
	s.innocent(v, s.cost(v, vanished))
}

func TestFailoverWithoutGate(t *testing.T) {
	t.Parallel()
	sc := failover
	sc.tags = []string{"riposte_no_gate"}
	s, v, _ := failOver(t, sc)
	s.guilty(v)
}

// failOver promotes a copy that lacks what its master has acknowledged last. Two replicas go
// there at once; the publisher and the third replica some time later, during which the
// deposed master has more for that replica than it can do. So when the publisher comes to
// publish everything again, both masters give the same alerts to different replicas.
func failOver(t *testing.T, sc scenario) (_ *site, _ verdict, vanished int) {
	t.Helper()
	s := open(t, sc)
	deposed := s.redis
	promoted := deposed.Replica()
	ways, urls := s.ways()
	toPublish, late := faultproxy.Start(t, deposed.Addr), ways[replicas-1]
	s.start(append(urls, toPublish.URL)...)
	s.awaitAccepted(0.4)
	promoted.CutOff()
	s.awaitAccepted(0.5)
	promoted.Promote()
	from := lastLine(t, deposed)
	for _, way := range ways[:replicas-1] {
		way.Retarget(promoted.Addr)
	}
	s.awaitAccepted(0.75)
	acked := s.publisher.added.entries()
	toPublish.Retarget(promoted.Addr)
	s.redis = promoted
	if vanished = s.vanished(acked); vanished == 0 {
		t.Error("the promoted copy lacked nothing")
	}
	s.await("the publisher to publish again", func() bool { return s.publisher.again() > 0 })
	moment := time.NewTimer(time.Second) // in which they get in each other's way
	<-moment.C
	if _, recorded := since(t, deposed, from); recorded == 0 {
		t.Error("nothing was recorded with the deposed master after it was")
	} else {
		t.Logf("%d outcomes were recorded with the deposed master after it was", recorded)
	}
	late.Retarget(promoted.Addr)
	s.drain()
	return s, s.judge(), vanished
}
