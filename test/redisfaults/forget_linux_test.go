package redisfaults

import (
	"testing"
	"time"
)

var flushAll = scenario{fault: "FLUSHALL", each: 80, over: 3 * time.Second, lease: time.Second, hold: 300 * time.Millisecond}

func TestFlushAll(t *testing.T) {
	t.Parallel()
	s, v, vanished := forget(t, flushAll)
	if v.again == 0 {
		t.Error("no outcome was recorded again: Redis lost none")
	}
	s.innocent(v, s.cost(v, vanished))
}

func TestFlushAllWithoutGate(t *testing.T) {
	t.Parallel()
	sc := flushAll
	sc.tags = []string{"riposte_no_gate"}
	s, v, _ := forget(t, sc)
	s.guilty(v)
}

func forget(t *testing.T, sc scenario) (_ *site, _ verdict, vanished int) {
	t.Helper()
	s := open(t, sc)
	s.start()
	s.awaitAccepted(0.5)
	acked := s.publisher.added.entries()
	s.redis.FlushAll()
	if vanished = s.vanished(acked); vanished == 0 {
		t.Error("no alert vanished")
	}
	s.drain()
	return s, s.judge(), vanished
}

// A script that Redis has forgotten is loaded again, by the very call that misses it.
func TestScriptFlush(t *testing.T) {
	t.Parallel()
	s := open(t, scenario{fault: "SCRIPT FLUSH", each: 80, over: 3 * time.Second, lease: time.Second, hold: 100 * time.Millisecond})
	s.start()
	rdb := s.observer()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	flushed, loaded := 0, 0
	for len(s.publisher.accepted()) < len(s.alerts) {
		<-tick.C
		cached := rdb.InfoMap(t.Context(), "memory").Val()["Memory"]["number_of_cached_scripts"]
		if err := rdb.ScriptFlush(t.Context()).Err(); err != nil {
			t.Fatal(err)
		}
		flushed++
		if cached != "0" {
			loaded++
		}
	}
	s.drain()
	t.Logf("flushed %d times, %d times there were scripts to forget", flushed, loaded)
	if loaded < 20 {
		t.Errorf("scripts were forgotten only %d times", loaded)
	}
	s.innocent(s.judge(), "")
}
