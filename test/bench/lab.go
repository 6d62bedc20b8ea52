package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"riposte/ledger"
	"riposte/stream"
)

const (
	host  = stream.Host("bench")
	group = stream.DefaultGroup
)

// lab is what one run has: folders of its own, one Redis, one riposte binary.
type lab struct {
	options
	machine Machine
	dir     string       // on disk, as data folders are in production
	fast    string       // on tmpfs, as /run is
	nonce   string       // in the title of every alert that may end a process
	self    string       // this binary
	riposte string       // ours
	python  string       // an interpreter
	busybox string       // what decoys run
	alive   map[int]bool // decoys that nobody has seen end
	redis   *server
	rdb     *redis.Client
	ledger  *ledger.Reader
	thread  *thread
	procs   []*process
	mark    string // line of the journal after which a measurement begins
	site    int    // counts resets: each has a runtime folder of its own
}

// patience is for what takes milliseconds unless it is broken.
const patience = 60 * time.Second

func newLab(ctx context.Context, o options) (_ *lab, err error) {
	l := &lab{options: o, thread: newThread(), alive: map[int]bool{}, nonce: fmt.Sprintf("bench-%d-%x", os.Getpid(), time.Now().UnixNano())}
	defer func() {
		if err != nil {
			err = errors.Join(err, l.close())
		}
	}()
	if l.self, err = os.Executable(); err != nil {
		return nil, err
	}
	if l.busybox, err = busybox(); err != nil {
		return nil, err
	}
	if l.dir, err = os.MkdirTemp("", "riposte-bench-"); err != nil {
		return nil, err
	}
	if l.fast, err = os.MkdirTemp("/dev/shm", "riposte-bench-"); err != nil {
		return nil, fmt.Errorf("%w; the runtime folder is a tmpfs in production, so it must be one here", err)
	}
	root, err := output(ctx, "go", "list", "-m", "-f", "{{.Dir}}", "riposte")
	if err != nil {
		return nil, err
	}
	l.riposte = filepath.Join(l.dir, "riposte")
	build := exec.CommandContext(ctx, "go", "build", "-C", root, "-o", l.riposte, "./cmd/riposte")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("build riposte: %w\n%s", err, out)
	}
	if err := l.books(); err != nil {
		return nil, err
	}
	if l.redis, err = l.startRedis(ctx); err != nil {
		return nil, err
	}
	// To empty a Redis of a million entries takes longer than a command may otherwise.
	if l.rdb, err = stream.Open(stream.Options{URL: "redis://" + l.redis.addr + "?read_timeout=2m"}); err != nil {
		return nil, err
	}
	l.ledger = ledger.NewReader(l.rdb, host, group)
	l.machine, err = describe(ctx, l, root)
	return l, err
}

// books writes the playbooks. The one that ends processes asks for the nonce, which no
// alert has but ours.
func (l *lab) books() error {
	return errors.Join(
		write(l.playbooks("noop"), "noop.yaml", fmt.Sprintf(`name: noop
match: alert.level == "HIGH"
steps:
  - name: log
    action: log
    with: {path: %q}
`, l.effects())),
		write(l.playbooks("terminate"), "terminate.yaml", fmt.Sprintf(`name: terminate
match: alert.level == "HIGH" and (alert.title contains %[1]q or alert.process.exe contains %[1]q)
steps:
  - name: terminate
    action: terminate_process
`, l.nonce)),
		write(l.playbooks("hold"), "hold.yaml", fmt.Sprintf(`name: hold
match: alert.level == "HIGH" and alert.title contains %q
steps:
  - name: terminate
    action: terminate_process
    with: {grace: 50s}
    timeout: 60s
`, l.nonce)),
	)
}

func (l *lab) playbooks(name string) string { return filepath.Join(l.dir, "playbooks", name) }

// effects is where the no-op effect writes. The action log takes regular files only, so it
// cannot be /dev/null; a file in memory is the next best, and is what ours pays for more.
func (l *lab) effects() string { return filepath.Join(l.fast, "effects.ndjson") }

func (l *lab) runtime() string { return filepath.Join(l.fast, fmt.Sprintf("run-%d", l.site)) }

// reset stops all workers and leaves nothing of what was measured before: an empty Redis
// with an empty append-only file, a new runtime folder.
func (l *lab) reset(ctx context.Context) error {
	l.stopAll()
	if err := os.RemoveAll(l.runtime()); err != nil {
		return err
	}
	l.site++
	if err := os.WriteFile(l.effects(), nil, 0o600); err != nil {
		return err
	}
	if err := os.RemoveAll(filepath.Join(l.dir, "state")); err != nil {
		return err
	}
	l.mark = "0"
	return l.redis.empty(ctx, l.rdb)
}

// close ends every process and removes the folders.
func (l *lab) close() error {
	l.stopAll()
	if l.rdb != nil {
		_ = l.rdb.Close()
	}
	if l.redis != nil {
		l.redis.stop()
	}
	var err error
	for _, dir := range []string{l.dir, l.fast} {
		if dir != "" {
			err = errors.Join(err, os.RemoveAll(dir))
		}
	}
	return err
}

// say tells the operator how far the run is.
func (l *lab) say(format string, args ...any) {
	fmt.Fprintf(os.Stderr, time.Now().Format("15:04:05 ")+format+"\n", args...)
}

// slow is the number of rounds for what takes long.
func (l *lab) slow() int { return (l.repeat() + 1) / 2 }

func (l *lab) repeat() int {
	if l.short {
		return 1
	}
	return l.rounds
}

// size is n, or in the short form tiny.
func (l *lab) size(n, tiny int) int {
	if l.short {
		return tiny
	}
	return n
}

func write(dir, name, text string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600)
}

func output(ctx context.Context, name string, args ...string) (string, error) {
	out, err := exec.CommandContext(ctx, name, args...).Output()
	if err != nil {
		return "", fmt.Errorf("%s %s: %w", name, strings.Join(args, " "), err)
	}
	return strings.TrimSpace(string(out)), nil
}
