package main

import (
	"context"
	_ "embed"
	"fmt"
	"os/exec"
	"path/filepath"
	"time"

	"riposte/stream"
)

//go:embed yardstick.py
var yardstickSource string

const yardstickChannel = "high_severity_alerts"

// yardstick starts the original design. Its standard output has a line for each alert.
func (l *lab) yardstick(ctx context.Context) (*process, error) {
	if err := write(l.dir, "yardstick.py", yardstickSource); err != nil {
		return nil, err
	}
	return l.start(ctx, exec.Command(l.python, filepath.Join(l.dir, "yardstick.py"), l.redis.addr), true)
}

// tell publishes alerts the way it expects them.
func (l *lab) tell(ctx context.Context, alerts ...*stream.Alert) error {
	pipe := l.rdb.Pipeline()
	for _, a := range alerts {
		pipe.Publish(ctx, yardstickChannel, raw(a))
	}
	_, err := pipe.Exec(ctx)
	return err
}

// heard waits for the next line of a worker.
func (p *process) heard(within time.Duration) (string, error) {
	select {
	case line, ok := <-p.said:
		if !ok {
			return "", fmt.Errorf("%s has ended", p.cmd)
		}
		return line, nil
	case <-time.After(within):
		return "", fmt.Errorf("%s said nothing for %s", p.cmd, within)
	}
}
