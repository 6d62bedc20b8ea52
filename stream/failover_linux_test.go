package stream_test

import (
	"strings"
	"testing"
	"time"

	"riposte/stream"
	"riposte/test/faultproxy"
	"riposte/test/redistest"
)

// A copy that lacks what the master acknowledged becomes the master: what was published is
// published again, there, once.
func TestPublishedAgainAfterFailover(t *testing.T) {
	t.Parallel()
	deposed := redistest.Start(t, "--repl-diskless-sync-delay", "0")
	promoted := deposed.Replica()
	way := faultproxy.Start(t, deposed.Addr)
	rdb, err := stream.Open(stream.Options{URL: way.URL})
	if err != nil {
		t.Fatal(err)
	}
	defer rdb.Close()
	w := watch(t, rdb, stream.PublisherConfig{})
	w.publish("a")
	eventually(t, "the copy has the first", func() bool { return copies(t, promoted.Client()) == "[a:1]" })
	promoted.CutOff()
	w.publish("b")
	promoted.Promote()
	w.publish("c") // the deposed master still acknowledges
	w.looksAgain()
	way.Retarget(promoted.Addr)
	w.has(promoted.Client(), "[a:2 b:1 c:1]")
	w.publish("d")
	w.has(promoted.Client(), "[a:2 b:1 c:1 d:1]")
	if got := copies(t, deposed.Client()); got != "[a:1 b:1 c:1]" {
		t.Errorf("with the deposed master: %s", got)
	}
}

// An alert that a deposed master acknowledged after the publisher has seen the new one is
// published again as well: of several connections some may still lead there.
func TestPublishedAgainFromADeposedMaster(t *testing.T) {
	t.Parallel()
	deposed, present := redistest.Start(t), redistest.Start(t)
	way := faultproxy.Start(t, present.Addr)
	rdb, err := stream.Open(stream.Options{URL: way.URL})
	if err != nil {
		t.Fatal(err)
	}
	defer rdb.Close()
	w := watch(t, rdb, stream.PublisherConfig{})
	w.publish("a")
	w.looksAgain()
	way.Retarget(deposed.Addr)
	w.publish("b") // between two looks
	way.Retarget(present.Addr)
	w.has(present.Client(), "[a:1 b:1]")
}

// The tail of the append-only file is lost, and it takes long until Redis is back: longer
// than alerts are kept, because nothing grows old while nobody can look.
func TestPublishedAgainAfterPowerCut(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t)
	const keep = 3 * time.Second
	w := watch(t, s.Client(), stream.PublisherConfig{Keep: keep})
	mark := s.Written()
	w.publish("a", "b")
	s.CutPower(mark)
	long := time.NewTimer(keep + 500*time.Millisecond)
	<-long.C
	s.Restart()
	w.has(s.Client(), "[a:1 b:1]")
	if !strings.Contains(w.log.String(), "may have lost") {
		t.Error(w.log.String())
	}
}
