package main

import (
	"context"
	"strings"
	"testing"
)

// What a sensor has to say of its beginning and its end it says once.
func TestSensorLog(t *testing.T) {
	f := newFleet(t)
	ctx, cancel := context.WithCancel(f.ctx)
	defer cancel()
	var out, errw lockedBuffer
	ended := make(chan int, 1)
	args := append([]string{"sensor", "--source", "poll", "--runtime-dir", f.run, "--state-dir", f.run + "-state"}, f.args...)
	go func() {
		ended <- run(ctx, args, func(string) (string, bool) { return "", false }, strings.NewReader(""), &out, &errw)
	}()
	f.eventually("it is ready", func() bool { return strings.Contains(errw.String(), `msg="sensor is ready" host=h1 source=`) })
	cancel()
	if code := <-ended; code != 0 || out.String() != "" {
		t.Errorf("exit %d, stdout %s", code, out.String())
	}
	said := errw.String()
	if strings.Count(said, "level=INFO") != 2 || !strings.Contains(said, `msg="sensor has stopped" processes=`) {
		t.Errorf("said:\n%s", said)
	}
}
