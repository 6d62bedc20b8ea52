package playbook_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"riposte/playbook"
	"riposte/playbook/gate"
	"riposte/playbook/guard"
	"riposte/test/redistest"
)

// BenchmarkThroughput has one replica bring a backlog of alerts to an end, each with one
// step that does next to nothing: what is left is the pipeline.
func BenchmarkThroughput(b *testing.B) {
	srv := redistest.Start(b)
	rdb := srv.Client()
	g, err := gate.Open(runtimeFolder(b), "", "bench", string(group))
	if err != nil {
		b.Fatal(err)
	}
	defer g.Close()
	r, err := playbook.New(rdb, g, playbook.Config{
		Name: "bench", Host: host, Playbooks: decode(b, `{name: b, match: 'true', steps: [{name: log, action: log}]}`), Mode: playbook.Enforce,
		Guard: &guard.Floor{}, Out: io.Discard, Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		b.Fatal(err)
	}
	pipe := rdb.Pipeline()
	for i := range b.N {
		alert := fmt.Sprintf(`{"id":"a%d","level":"HIGH","title":"suspicious chain: nginx -> sh","description":"a web server started a shell",`+
			`"timestamp":"%s","actionable_pid":4711,"source_ip":"203.0.113.7","process":{"pid":4711,"start_ticks":123456,"name":"sh","exe":"/bin/dash","cmdline":"sh -c id","uid":33,"parent":{"pid":4000,"start_ticks":1000,"name":"nginx","exe":"/usr/sbin/nginx"}}}`,
			i, time.Now().UTC().Format(time.RFC3339))
		pipe.XAdd(b.Context(), &redis.XAddArgs{Stream: host.AlertsKey(), Values: []any{"alert", alert}})
		if i%1000 == 999 || i == b.N-1 {
			if _, err := pipe.Exec(b.Context()); err != nil {
				b.Fatal(err)
			}
		}
	}
	ctx, stop := context.WithCancel(b.Context())
	b.ResetTimer()
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for r.Settled.Load() < int64(b.N) {
		<-tick.C
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "alerts/s")
	stop()
	if err := <-done; err != nil {
		b.Fatal(err)
	}
}

// runtimeFolder is in memory, as /run is.
func runtimeFolder(b *testing.B) string {
	dir, err := os.MkdirTemp("/dev/shm", "riposte")
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}
