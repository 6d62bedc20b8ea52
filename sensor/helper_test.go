package sensor

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"riposte/stream"
)

// helperMode tells a copy of the test binary, under a suspicious name, what to play.
const helperMode = "RIPOSTE_SENSOR_TEST"

func TestMain(m *testing.M) {
	mode, argument, _ := strings.Cut(os.Getenv(helperMode), " ")
	switch mode {
	case "wait": // until whoever started it lets go
		_, _ = io.Copy(io.Discard, os.Stdin)
	case "burst":
		exitOn(burst(argument))
	case "start":
		exitOn(startOne())
	default:
		os.Exit(m.Run())
	}
}

// helperEnv is the environment of a helper. Under the race detector a program would wait
// for a second before it exits.
func helperEnv(mode string) []string {
	return append(os.Environ(), helperMode+"="+mode, "GORACE=atexit_sleep_ms=0")
}

func exitOn(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// child is powershell.exe beside the running executable, which waits.
func child() (*exec.Cmd, io.Closer, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, nil, err
	}
	cmd := exec.Command(filepath.Join(filepath.Dir(self), "powershell.exe"), "-nop", "-w", "hidden")
	cmd.Env = helperEnv("wait")
	hold, err := cmd.StdinPipe()
	if err != nil {
		return nil, nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, nil, err
	}
	fmt.Println(cmd.Process.Pid)
	return cmd, hold, nil
}

// burst starts that many children, one after the other, each of which lives 5 ms.
func burst(number string) error {
	n, err := strconv.Atoi(number)
	if err != nil {
		return err
	}
	for range n {
		cmd, _, err := child()
		if err != nil {
			return err
		}
		<-time.After(5 * time.Millisecond)
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}
	return nil
}

// startOne starts a child that lives until stdin is closed.
func startOne() error {
	cmd, hold, err := child()
	if err != nil {
		return err
	}
	_, _ = io.Copy(io.Discard, os.Stdin)
	return errors.Join(hold.Close(), cmd.Wait())
}

// decoys is a folder with copies of the test binary as winword.exe and powershell.exe.
func decoys(t testing.TB) string {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	copyProgram(t, self, filepath.Join(dir, "winword.exe"))
	copyProgram(t, self, filepath.Join(dir, "powershell.exe"))
	return dir
}

func copyProgram(t testing.TB, from, to string) {
	t.Helper()
	program, err := os.ReadFile(from)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(to, program, 0o755); err != nil {
		t.Fatal(err)
	}
}

// attack runs winword.exe with a child powershell.exe, both until the test ends.
func attack(t testing.TB, dir string) (parent, child int) {
	t.Helper()
	cmd := exec.Command(filepath.Join(dir, "winword.exe"))
	cmd.Env = helperEnv("start")
	hold, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = hold.Close()
		if err := cmd.Wait(); err != nil {
			t.Errorf("winword.exe: %v", err)
		}
	})
	if _, err := fmt.Fscan(bufio.NewReader(out), &child); err != nil {
		t.Fatalf("PID of powershell.exe: %v", err)
	}
	return cmd.Process.Pid, child
}

// collector is a publisher that keeps what it gets.
type collector struct {
	mu      sync.Mutex
	alerts  []*stream.Alert
	arrived chan struct{}
}

func newCollector() *collector { return &collector{arrived: make(chan struct{}, 1)} }

func (c *collector) Publish(_ context.Context, alerts ...*stream.Alert) error {
	c.mu.Lock()
	c.alerts = append(c.alerts, alerts...)
	c.mu.Unlock()
	select {
	case c.arrived <- struct{}{}:
	default:
	}
	return nil
}

func (c *collector) all() []*stream.Alert {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.alerts)
}

// about waits for the alert of a rule about a process.
func (c *collector) about(t testing.TB, pid int, rule string) *stream.Alert {
	t.Helper()
	ctx, cancel := testContext(t)
	defer cancel()
	for {
		for _, a := range c.all() {
			if *a.ActionablePID == int64(pid) && a.Rule.ID == rule {
				return a
			}
		}
		select {
		case <-c.arrived:
		case <-ctx.Done():
			t.Fatalf("no alert of %s about PID %d", rule, pid)
		}
	}
}

// watch runs a sensor until the test ends, and returns when it is ready.
func watch(t testing.TB, cfg Config, p Publisher) *Sensor {
	t.Helper()
	s, end := watchUntil(t, cfg, p)
	t.Cleanup(end)
	return s
}

// watchUntil runs a sensor until end is called.
func watchUntil(t testing.TB, cfg Config, p Publisher) (s *Sensor, end func()) {
	t.Helper()
	cfg.Host = "h1"
	cfg.Log = slogTo(t)
	s, err := New(cfg, p)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	failed := make(chan error, 1)
	go func() { failed <- s.Run(ctx) }()
	select {
	case <-s.Ready():
	case err := <-failed:
		cancel()
		t.Fatalf("the sensor ended before it was ready: %v", err)
	}
	return s, func() {
		cancel()
		if err := <-failed; err != nil {
			t.Errorf("the sensor ended with %v", err)
		}
	}
}

func slogTo(t testing.TB) *slog.Logger { return slog.New(slog.NewTextHandler(t.Output(), nil)) }

func testContext(t testing.TB) (context.Context, context.CancelFunc) {
	return context.WithTimeout(t.Context(), 20*time.Second)
}
