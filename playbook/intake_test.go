package playbook

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"riposte/stream"
)

func arrived(streamID string) intake { return intake{Delivery: stream.Delivery{StreamID: streamID}} }

// What waits is handed out when it is due, no earlier, once, and each time it is put off
// it waits longer.
func TestLaterPutsOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // time stands still
		l, in := newLater(), arrived("1-0")
		for _, pause := range []time.Duration{1, 2, 4, 8, 16, 16, 16} {
			l.add(in, time.Second)
			due := time.Now().Add(pause * time.Second)
			if early := l.take(due.Add(-1), 10); len(early) != 0 {
				t.Errorf("after %d tries due before %s", in.tries, pause*time.Second)
			}
			taken := l.take(due, 10)
			if len(taken) != 1 || !l.empty() || taken[0].tries != in.tries+1 {
				t.Fatalf("after %d tries, at %s: %v", in.tries, pause*time.Second, taken)
			}
			in = taken[0]
		}
	})
}

func TestLaterTakesAsMuchAsAskedFor(t *testing.T) {
	l := newLater()
	for i := range 5 {
		l.add(arrived(fmt.Sprintf("%d-0", i)), 0)
	}
	l.add(arrived("9-0"), time.Hour)
	seen := map[string]bool{}
	for _, want := range []int{2, 2, 1, 0} {
		got := l.take(time.Now(), 2)
		if len(got) != want {
			t.Errorf("took %d, want %d", len(got), want)
		}
		for _, in := range got {
			seen[in.StreamID] = true
		}
	}
	if len(seen) != 5 || seen["9-0"] || l.empty() {
		t.Errorf("took %v", seen)
	}
	if left := l.without([]intake{arrived("1-0"), arrived("9-0")}); len(left) != 1 || left[0].StreamID != "1-0" {
		t.Errorf("without what waits: %v", left)
	}
}

// It is bounded; what is too much is pending in Redis and is found there.
func TestLaterIsBounded(t *testing.T) {
	l := newLater()
	for i := range maxLater + 10 {
		l.add(arrived(fmt.Sprintf("%d-0", i)), 0)
	}
	if n := len(l.take(time.Now(), 2*maxLater)); n != maxLater {
		t.Errorf("%d wait, want %d", n, maxLater)
	}
}

// A read stays within bytes: after large entries fewer are asked for, and later more again.
func TestReadBound(t *testing.T) {
	b := newReadBound()
	sized := func(n int) []stream.Delivery {
		return []stream.Delivery{{Raw: make([]byte, n)}, {Raw: make([]byte, 1)}}
	}
	if got := b.count(); got != 1024 {
		t.Errorf("before anything was read: %d", got)
	}
	b.saw(sized(100))
	if got := b.count(); got != 1024 {
		t.Errorf("after a small alert: %d", got)
	}
	b.saw(sized(1 << 20))
	if got := b.count(); got != 16 {
		t.Errorf("after one of 1 MiB: %d", got)
	}
	b.saw(nil)
	if got := b.count(); got != 16 {
		t.Errorf("a read of nothing tells nothing: %d", got)
	}
	b.saw(sized(100))
	if got := b.count(); got != 32 {
		t.Errorf("then a small one: %d", got)
	}
	b.saw(sized(100 << 20))
	if got := b.count(); got != 1 {
		t.Errorf("after one of 100 MiB: %d", got)
	}
	for range 20 {
		b.saw(sized(100))
	}
	if got := b.count(); got != 1024 {
		t.Errorf("after many small ones: %d", got)
	}
}
