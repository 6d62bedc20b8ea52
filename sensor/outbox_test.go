package sensor

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"riposte/stream"
)

// inbox is a publisher that can be away.
type inbox struct {
	mu       sync.Mutex
	down     error
	got      []string // IDs, in the order of arrival
	attempts []time.Time
}

func (i *inbox) Publish(ctx context.Context, alerts ...*stream.Alert) error {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.attempts = append(i.attempts, time.Now())
	if i.down != nil && !errors.Is(i.down, stream.ErrMalformed) {
		return i.down
	}
	for _, a := range alerts {
		i.got = append(i.got, string(a.ID))
	}
	return i.down
}

func (i *inbox) set(err error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.down = err
}

// ids are the numbers from first to last.
func ids(first, last int) []string {
	var s []string
	for n := first; n <= last; n++ {
		s = append(s, strconv.Itoa(n))
	}
	return s
}

func fill(o *outbox, first, last int) {
	for _, id := range ids(first, last) {
		o.add(&stream.Alert{ID: stream.AlertID(id)})
	}
}

func TestOutboxLosesNothingWithinItsRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		in := &inbox{down: errors.New("connection refused")}
		o := newOutbox(in, 1000, slog.New(slog.NewTextHandler(&out, nil)))
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { o.run(ctx); close(done) }()
		fill(o, 1, 400)
		<-time.After(time.Minute)
		fill(o, 401, 1000)
		in.set(nil)
		<-time.After(maxRetry)
		fill(o, 1001, 1001)
		synctest.Wait()
		if want := ids(1, 1001); fmt.Sprint(in.got) != fmt.Sprint(want) {
			t.Errorf("published %d alerts, want 1 to 1001 in order: %v", len(in.got), in.got)
		}
		if o.dropped != 0 || o.published != 1001 || o.pending() != 0 {
			t.Errorf("dropped %d, published %d, pending %d", o.dropped, o.published, o.pending())
		}
		for i := 1; i < len(in.attempts); i++ {
			if gap := in.attempts[i].Sub(in.attempts[i-1]); gap > maxRetry && i < len(in.attempts)-1 {
				t.Errorf("attempt %d came after %s, more than %s", i, gap, maxRetry)
			}
		}
		if n := len(in.attempts); n < 15 || n > 60 {
			t.Errorf("%d attempts in a minute: backoff is meant to be some 12 to 40", n)
		}
		cancel()
		<-done
		if strings.Contains(out.String(), "dropped") || strings.Count(out.String(), "\n") != 2 {
			t.Errorf("want one line when it begins and one when it ends:\n%s", out.String())
		}
	})
}

// What a full stream refuses is kept, and the operator is told why.
func TestOutboxKeepsWhatAFullStreamRefuses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		in := &inbox{down: fmt.Errorf("%w: 1000000 entries", stream.ErrFull)}
		o := newOutbox(in, 10, slog.New(slog.NewTextHandler(&out, nil)))
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { o.run(ctx); close(done) }()
		fill(o, 1, 3)
		<-time.After(time.Minute)
		if o.pending() != 3 || !strings.Contains(out.String(), "stream is full") {
			t.Errorf("%d are kept, want 3:\n%s", o.pending(), out.String())
		}
		in.set(nil)
		<-time.After(maxRetry)
		cancel()
		<-done
		if fmt.Sprint(in.got) != fmt.Sprint(ids(1, 3)) {
			t.Errorf("published %v", in.got)
		}
	})
}

func TestOutboxDropsTheOldestAndSaysSo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		in := &inbox{down: errors.New("connection refused")}
		o := newOutbox(in, 10, slog.New(slog.NewTextHandler(&out, nil)))
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { o.run(ctx); close(done) }()
		for n := range 120 { // one a tenth of a second, for 12 s
			fill(o, n, n)
			<-time.After(100 * time.Millisecond)
		}
		in.set(nil)
		cancel()
		<-done
		if want := ids(110, 119); fmt.Sprint(in.got) != fmt.Sprint(want) {
			t.Errorf("published %v, want %v", in.got, want)
		}
		if o.dropped != 110 {
			t.Errorf("%d counted as dropped, want 110", o.dropped)
		}
		if n := len(in.attempts); n > 30 {
			t.Errorf("%d attempts in 12 s: new alerts must not cut the pause short", n)
		}
		lines := 0
		for line := range strings.Lines(out.String()) {
			if strings.Contains(line, "dropped=") {
				lines++
			}
		}
		if lines < 1 || lines > 3 || !strings.Contains(out.String(), "dropped_total=110") {
			t.Errorf("%d lines about drops, want 1 to 3 and the total:\n%s", lines, out.String())
		}
	})
}

// What is dropped of a batch that is being published is not lost, and nothing else is given up
// in its place.
func TestOutboxDropsDuringAPublish(t *testing.T) {
	o := newOutbox(&inbox{}, 4, slog.New(slog.DiscardHandler))
	fill(o, 1, 4)
	batch := o.take()[:2] // as if two were a batch
	fill(o, 5, 7)
	o.settle(len(batch), 0)
	var left []string
	for _, a := range o.alerts {
		left = append(left, string(a.ID))
	}
	if fmt.Sprint(left) != fmt.Sprint(ids(4, 7)) || o.dropped != 1 || o.published != 2 {
		t.Errorf("left %v, dropped %d, published %d, want 4 to 7, 3 dropped", left, o.dropped, o.published)
	}
}

func TestOutboxFlushesForAMomentAtTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		began := time.Now()
		o := newOutbox(hanging{}, 10, slog.New(slog.DiscardHandler))
		fill(o, 1, 3)
		o.run(ctx)
		if took := time.Since(began); took != flushTimeout {
			t.Errorf("ended after %s, want %s", took, flushTimeout)
		}
		if o.pending() != 3 {
			t.Errorf("%d pending", o.pending())
		}
		in := &inbox{}
		o.publisher = in
		o.run(ctx)
		if len(in.got) != 3 {
			t.Errorf("flushed %v", in.got)
		}
	})
}

// hanging is a publisher that answers only when it is told to stop.
type hanging struct{}

func (hanging) Publish(ctx context.Context, _ ...*stream.Alert) error {
	<-ctx.Done()
	return ctx.Err()
}

// An alert that no stream ever takes must not hold up those behind it.
func TestOutboxGivesUpTheUnfit(t *testing.T) {
	in := &inbox{down: errors.Join(fmt.Errorf("alert 2: %w", stream.ErrMalformed), fmt.Errorf("alert 3: %w", stream.ErrMalformed))}
	o := newOutbox(in, 10, slog.New(slog.DiscardHandler))
	fill(o, 1, 5)
	if err := o.publish(t.Context()); err != nil {
		t.Fatal(err)
	}
	if o.pending() != 0 || o.dropped != 2 || o.published != 3 {
		t.Errorf("pending %d, dropped %d, published %d", o.pending(), o.dropped, o.published)
	}
}
