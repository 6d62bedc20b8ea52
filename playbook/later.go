package playbook

import (
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"riposte/stream"
)

// later keeps deliveries that could not begin yet: copies of an alert somebody works on,
// mostly. It is bounded; what does not fit is still pending in Redis, where the sweep
// finds it.
type later struct {
	mu      sync.Mutex
	waiting map[string]intake // by stream ID
	orphans atomic.Bool       // a read failed: look for entries served to us unseen
}

const maxLater = 4096

func newLater() *later { return &later{waiting: map[string]intake{}} }

// add keeps a delivery for at least a pause, doubled each time.
func (l *later) add(in intake, pause time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.waiting) >= maxLater {
		return
	}
	in.due = time.Now().Add(pause << min(in.tries, 4))
	in.tries++
	l.waiting[in.StreamID] = in
}

func (l *later) empty() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.waiting) == 0
}

// without drops the deliveries that wait here already.
func (l *later) without(batch []intake) []intake {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.DeleteFunc(batch, func(in intake) bool { _, ok := l.waiting[in.StreamID]; return ok })
}

// take removes at most n deliveries that are due.
func (l *later) take(now time.Time, n int) []intake {
	l.mu.Lock()
	defer l.mu.Unlock()
	var out []intake
	for id, in := range l.waiting {
		if len(out) == n {
			break
		}
		if !in.due.After(now) {
			out = append(out, in)
			delete(l.waiting, id)
		}
	}
	return out
}

// readBound keeps a read within bytes as well as in number: after large entries it asks
// for fewer.
type readBound struct{ largest int }

const maxReadBytes = 16 << 20

func newReadBound() *readBound { return &readBound{} }

func (b *readBound) count() int { return max(1, maxReadBytes/max(b.largest, 16<<10)) }

func (b *readBound) saw(ds []stream.Delivery) {
	if len(ds) > 0 {
		b.largest /= 2 // forget slowly
	}
	for _, d := range ds {
		b.largest = max(b.largest, len(d.Raw))
	}
}
