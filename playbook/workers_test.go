package playbook

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

// free counts who could start work, and waits while nobody can.
func TestWorkersFree(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorkers(3)
		free := func(want int) {
			t.Helper()
			if n, err := w.free(t.Context()); n != want || err != nil {
				t.Errorf("free: %d, %v; want %d", n, err, want)
			}
		}
		free(3)
		w.hire(2)
		free(1)
		w.hire(1)
		answered := make(chan int)
		go func() {
			n, _ := w.free(t.Context())
			answered <- n
		}()
		synctest.Wait()
		select {
		case n := <-answered:
			t.Fatalf("%d of 3 busy workers are free", n)
		default:
		}
		w.fire(2)
		if n := <-answered; n != 2 {
			t.Errorf("after two were fired %d are free", n)
		}

		w.hire(2)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if n, err := w.free(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("free with everybody busy: %d, %v", n, err)
		}
	})
}

// Who rests is not at work: a slow alert delays no other. Who comes back waits for a place.
func TestWorkersRest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorkers(1)
		w.hire(1)
		wake, back := make(chan struct{}), make(chan error)
		go func() { back <- w.rest(t.Context(), func() error { <-wake; return nil }) }()
		synctest.Wait()
		if n, err := w.free(t.Context()); n != 1 || err != nil {
			t.Fatalf("while the only one rests: %d, %v", n, err)
		}
		w.hire(1)
		close(wake)
		synctest.Wait()
		select {
		case err := <-back:
			t.Fatalf("came back to a place that is taken: %v", err)
		default:
		}
		w.fire(1)
		if err := <-back; err != nil {
			t.Error(err)
		}
		if w.busy != 1 || w.open != 1 {
			t.Errorf("%d busy, %d open; want 1, 1", w.busy, w.open)
		}
	})
}

// Whatever ends a rest, the count is right after it.
func TestWorkersRestFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, broken := newWorkers(1), errors.New("broken")
		w.hire(1)
		if err := w.rest(t.Context(), func() error { return broken }); err != broken || w.busy != 1 {
			t.Errorf("%v, %d busy", err, w.busy)
		}
		ctx, cancel := context.WithCancelCause(t.Context())
		cancel(broken)
		err := w.rest(ctx, func() error { w.hire(1); return nil }) // somebody takes the place meanwhile
		if err != broken || w.busy != 2 {                          // why it ended, not just that it did
			t.Errorf("%v, %d busy; it is counted while it cleans up", err, w.busy)
		}
		w.fire(2)
		if w.busy != 0 {
			t.Errorf("%d busy at the end", w.busy)
		}
	})
}

// Those who rest are many, but not without end.
func TestWorkersOpen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorkers(2)
		for range 2 * openPerWorker {
			w.hire(1)
			go func() {
				_ = w.rest(t.Context(), func() error { <-t.Context().Done(); return nil })
			}()
			synctest.Wait()
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if n, err := w.free(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("with %d alerts open %d more may be begun: %v", 2*openPerWorker, n, err)
		}
		if w.busy != 0 {
			t.Errorf("%d busy, though all rest", w.busy)
		}
	})
}
