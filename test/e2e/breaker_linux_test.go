package e2e_test

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"riposte/stream"
	"riposte/test/need"
)

// crowd is many replicas on several hosts of one Redis, each host with a log that its
// playbook writes one line to per effect.
type crowd struct {
	*site
	hosts  []stream.Host
	cmds   map[stream.Host][]*daemon
	breaks string
}

const burst = 500 // alerts a host

func newCrowd(t *testing.T, limits string) *crowd {
	need.Binary(t, "redis-server")
	return &crowd{site: newSite(t), hosts: []stream.Host{"h1", "h2", "h3"}, cmds: map[stream.Host][]*daemon{}, breaks: limits}
}

func (c *crowd) log(h stream.Host) string { return filepath.Join(c.dir, string(h)+".log") }

// join starts one more replica of a host.
func (c *crowd) join(h stream.Host) {
	c.t.Helper()
	books := filepath.Join(c.dir, "books-"+string(h))
	if err := os.MkdirAll(books, 0o755); err != nil {
		c.t.Fatal(err)
	}
	book := fmt.Sprintf("name: note\nmatch: 'alert.source != \"riposte\"'\nsteps:\n  - {name: note, action: log, with: {path: %s}}\nlimits:\n  breakers:\n    - %s\n", c.log(h), c.breaks)
	if err := os.WriteFile(filepath.Join(books, "note.yaml"), []byte(book), 0o644); err != nil {
		c.t.Fatal(err)
	}
	d := &daemon{t: c.t, cmd: exec.Command(c.binary, "responder", "--mode", "enforce", "--playbooks", books, "--lease", "2s",
		"--redis", c.redis.URL, "--host", string(h), "--runtime-dir", filepath.Join(c.dir, "run-"+string(h)), "--state-dir", filepath.Join(c.dir, "state-"+string(h)))}
	d.cmd.Env = environment()
	d.cmd.Stdout, d.cmd.Stderr = &d.out, &d.err
	d.gone = spawn(c.t, d.cmd)
	until(c.t, func() string { return "is ready:\n" + d.err.String() }, func() bool { return strings.Contains(d.err.String(), "responder is ready") })
	c.cmds[h] = append(c.cmds[h], d)
}

// burst publishes alerts on every host at once.
func (c *crowd) burst() {
	c.t.Helper()
	now := time.Now().UTC().Format(time.RFC3339Nano)
	_, err := c.rdb.Pipelined(c.t.Context(), func(p redis.Pipeliner) error {
		for i := range burst {
			for _, h := range c.hosts {
				p.XAdd(c.t.Context(), &redis.XAddArgs{Stream: h.AlertsKey(), Values: []any{"alert",
					fmt.Sprintf(`{"id":"a-%d","level":"HIGH","timestamp":%q}`, i, now)}})
			}
		}
		return nil
	})
	if err != nil {
		c.t.Fatal(err)
	}
}

// quiet waits until every alert of every host is settled or waits.
func (c *crowd) quiet() {
	c.t.Helper()
	for _, h := range c.hosts {
		until(c.t, func() string { return "is through with " + string(h) }, func() bool {
			groups, err := c.rdb.XInfoGroups(c.t.Context(), h.AlertsKey()).Result()
			return err == nil && len(groups) == 1 && groups[0].Pending == 0 && groups[0].EntriesRead >= burst &&
				groups[0].LastDeliveredID == c.rdb.XInfoStream(c.t.Context(), h.AlertsKey()).Val().LastGeneratedID
		})
	}
}

// effects counts those of a host, each key once.
func (c *crowd) effects(h stream.Host) int {
	c.t.Helper()
	f, err := os.Open(c.log(h))
	if errors.Is(err, os.ErrNotExist) {
		return 0
	}
	if err != nil {
		c.t.Fatal(err)
	}
	defer f.Close()
	keys := map[string]bool{}
	for lines := bufio.NewScanner(f); lines.Scan(); {
		var line struct{ Key string }
		if json.Unmarshal(lines.Bytes(), &line) == nil && line.Key != "" {
			keys[line.Key] = true
		}
	}
	return len(keys)
}

func (c *crowd) audit() {
	c.t.Helper()
	for _, h := range c.hosts {
		cmd := exec.Command(c.binary, "ledger", "audit", "--redis", c.redis.URL, "--host", string(h))
		cmd.Env = environment()
		if r := run(c.t, cmd); r.code != 0 {
			c.t.Errorf("audit of %s: exit %d\n%s%s", h, r.code, r.out, r.err)
		}
	}
}

// TestBreakerOfAHost: 4 replicas on each of 3 hosts, a burst on each: exactly as many effects
// a host as its breaker allows, and the rest of the alerts wait.
func TestBreakerOfAHost(t *testing.T) {
	t.Parallel()
	c := newCrowd(t, "{per: host, most: 20, within: 1m}")
	for _, h := range c.hosts {
		for range 4 {
			c.join(h)
		}
	}
	c.burst()
	c.quiet()
	for _, h := range c.hosts {
		if n := c.effects(h); n != 20 {
			t.Errorf("%d effects on %s, want 20", n, h)
		}
		if n := c.rdb.ZCard(t.Context(), h.WaitingKey(stream.DefaultGroup)).Val(); n != burst-20 {
			t.Errorf("%d alerts wait on %s, want %d", n, h, burst-20)
		}
	}
	c.audit()
}

// TestBreakerOfTheFleet: the same, for all hosts together.
func TestBreakerOfTheFleet(t *testing.T) {
	t.Parallel()
	c := newCrowd(t, "{per: fleet, most: 30, within: 1m}")
	for _, h := range c.hosts {
		for range 4 {
			c.join(h)
		}
	}
	c.burst()
	c.quiet()
	sum := 0
	for _, h := range c.hosts {
		sum += c.effects(h)
	}
	if sum != 30 {
		t.Errorf("%d effects in the fleet, want 30", sum)
	}
	c.audit()
}

// TestBreakersWhileReplicasDie: replicas are killed in the middle of the burst and replaced;
// there is never an effect more than the breaker allows.
func TestBreakersWhileReplicasDie(t *testing.T) {
	t.Parallel()
	for per, most := range map[string]int{"host": 20, "fleet": 30} {
		c := newCrowd(t, fmt.Sprintf("{per: %s, most: %d, within: 1m}", per, most))
		for _, h := range c.hosts {
			for range 4 {
				c.join(h)
			}
		}
		c.burst()
		for round := range 3 {
			for _, h := range c.hosts {
				d := c.cmds[h][round]
				_ = d.cmd.Process.Signal(syscall.SIGKILL)
				<-d.gone
				c.join(h)
			}
		}
		c.quiet()
		sum := 0
		for _, h := range c.hosts {
			n := c.effects(h)
			if sum += n; per == "host" && n > most {
				t.Errorf("%d effects on %s, at most %d are allowed", n, h, most)
			}
		}
		if per == "fleet" && sum > most || sum == 0 {
			t.Errorf("%d effects, per %s at most %d are allowed", sum, per, most)
		}
		t.Logf("per %s: %d effects in all, with 9 of 12 replicas killed", per, sum)
		c.audit()
	}
}
