package playbook

import (
	"context"
	"sync"
	"time"
)

// workers counts those who are at work. A worker that merely waits, for a retry or for
// its turn at the gate, is not at work, so that one slow alert delays no other; but the
// alerts begun and not finished are bounded too.
type workers struct {
	mu        sync.Mutex
	changed   chan struct{} // closed and replaced at every release
	busy, max int
	open      int // alerts begun and not finished
}

const openPerWorker = 16

func newWorkers(n int) *workers { return &workers{changed: make(chan struct{}), max: n} }

// free waits until somebody could start work and says how many could.
func (w *workers) free(ctx context.Context) (n int, err error) {
	err = w.wait(ctx, func() bool {
		n = min(w.max-w.busy, w.max*openPerWorker-w.open)
		return n > 0
	})
	return n, err
}

// gather is free for a reader under load: where nearly all are at work, it waits a moment, so
// that alerts are read by the batch and not one for each that is done.
func (w *workers) gather(ctx context.Context) (n int, err error) {
	if n, err = w.free(ctx); err != nil || n >= w.max/4 {
		return n, err
	}
	if err := sleep(ctx, gatherFor); err != nil {
		return 0, err
	}
	return w.free(ctx)
}

const gatherFor = time.Millisecond

// atWork counts those who are.
func (w *workers) atWork() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.busy
}

// hire puts n more to work on new alerts, without asking: whoever read the alerts asked.
func (w *workers) hire(n int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.busy += n
	w.open += n
}

// fire ends the work of n.
func (w *workers) fire(n int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.busy -= n
	w.open -= n
	w.tell()
}

// rest lets somebody else work while wait runs, and returns to work after it.
func (w *workers) rest(ctx context.Context, wait func() error) error {
	w.mu.Lock()
	w.busy--
	w.tell()
	w.mu.Unlock()
	err := wait()
	back := w.wait(ctx, func() bool {
		if w.busy >= w.max {
			return false
		}
		w.busy++
		return true
	})
	if back != nil { // the caller goes on to clean up, and is counted while it does
		w.mu.Lock()
		w.busy++
		w.mu.Unlock()
	}
	if err != nil {
		return err
	}
	return back
}

// wait calls ready with the lock held, until it returns true or ctx ends.
func (w *workers) wait(ctx context.Context, ready func() bool) error {
	for {
		w.mu.Lock()
		ok, changed := ready(), w.changed
		w.mu.Unlock()
		if ok {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

func (w *workers) tell() {
	close(w.changed)
	w.changed = make(chan struct{})
}
