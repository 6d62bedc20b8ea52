package playbook

import (
	"fmt"
	"io"
	"log/slog"
	"os"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"riposte/ledger"
	"riposte/playbook/gate"
	"riposte/playbook/guard"
	"riposte/stream"
	"riposte/test/redistest"
)

// What was under way when its holder died is asked for steadily during a pause, however long
// that takes, and not ever more rarely.
func TestPausedIsAskedForSteadily(t *testing.T) {
	t.Parallel()
	srv, dir := redistest.Start(t), t.TempDir()
	rdb := srv.Client()
	if err := os.Chmod(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	g, err := gate.Open(dir, "", "h1-1-a", "containment")
	if err != nil {
		t.Fatal(err)
	}
	defer g.Close()
	books, err := Default()
	if err != nil {
		t.Fatal(err)
	}
	r, err := New(rdb, g, Config{
		Name: "h1-1-a", Host: "h1", Playbooks: books, Mode: Enforce, Lease: time.Minute,
		Guard: &guard.Floor{}, Out: io.Discard, Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := r.consumer.Ensure(t.Context()); err != nil {
		t.Fatal(err)
	}
	raw := fmt.Sprintf(`{"id":"x","level":"HIGH","timestamp":%q}`, time.Now().UTC().Format(time.RFC3339))
	entry, err := rdb.XAdd(t.Context(), &redis.XAddArgs{Stream: "riposte:{h1}:alerts", Values: []any{"alert", raw}}).Result()
	if err != nil {
		t.Fatal(err)
	}
	in := intake{Delivery: stream.Delivery{StreamID: entry, Raw: []byte(raw), Times: 1}}
	dead, err := ledger.New(rdb, ledger.Config{Host: "h1", Group: "containment", Owner: "h1-2-b"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := dead.Begin(t.Context(), []ledger.Claim{r.claim(in).Claim}, nil); err != nil {
		t.Fatal(err)
	}
	r.dead.Store(&[]string{"h1-2-b"})
	if _, err := ledger.HostSwitches(rdb, "h1").Pause(t.Context(), ledger.HostSwitch, "me", "why"); err != nil {
		t.Fatal(err)
	}
	for range 5 {
		r.dispatch(t.Context(), []intake{in})
		next, waits := r.later.waiting[entry]
		if !waits || next.due.After(time.Now().Add(r.ledger.Lease())) {
			t.Fatalf("waits %v, asked for again in %v", waits, time.Until(next.due))
		}
		in = next
	}
}
