package demo

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"riposte/ledger"
	"riposte/stream"
)

const (
	host     = stream.Host("demo")
	group    = stream.DefaultGroup
	replicas = 3
	lease    = time.Second
	attacks  = 24
	every    = 150 * time.Millisecond
	patience = 25 * time.Second // for the whole burst to be settled
)

// attack is one decoy chain and what became of it.
type attack struct {
	chain Chain
	gone  chan struct{} // closed once the two below are set
	died  time.Time
	ended string // how, as its parent saw it
}

// show is one run of the demo.
type show struct {
	*stage
	out     io.Writer
	nonce   string
	backend *backend
	ledger  *ledger.Reader
	team    []*process
	report  Report

	mu       sync.Mutex      // guards what follows, and out
	attacks  map[int]*attack // by PID of the child
	killed   string          // the replica that was killed
	killedAt time.Time
}

// Run gives the demo and returns its report, also where it did not go as promised. Nothing
// of it is left when it returns, also where ctx has ended it.
func Run(ctx context.Context, out io.Writer, nonce string) (report *Report, err error) {
	st, err := newStage()
	if err != nil {
		return nil, err
	}
	asked := ctx
	ctx, cancel := context.WithCancel(ctx)
	defer func() {
		cancel()
		left := st.close()
		if err != nil && left == nil && asked.Err() != nil {
			report, err = nil, fmt.Errorf("stopped before the end: %d processes and the decoys were ended, the folder %s is removed, and nothing is left behind", len(st.procs), st.dir)
		}
		err = errors.Join(err, left)
	}()
	s := &show{stage: st, out: out, nonce: nonce, attacks: map[int]*attack{}}
	if err := s.set(ctx); err != nil {
		return nil, err
	}
	defer s.backend.close()
	if err := s.play(ctx); err != nil {
		return nil, err
	}
	return &s.report, s.count(ctx)
}

// set starts Redis, the replicas and the sensor.
func (s *show) set(ctx context.Context) (err error) {
	fmt.Fprintf(s.out, "Everything below is a decoy in %s: nothing else on this machine is touched.\n", s.dir)
	if s.backend, err = s.startRedis(ctx); err != nil {
		return err
	}
	s.report.Backend = s.backend.name
	s.ledger = ledger.NewReader(s.backend.rdb, host, group)
	fmt.Fprintln(s.out, "redis      ", s.backend.name)
	rules, books := filepath.Join(s.dir, "rules"), filepath.Join(s.dir, "playbooks")
	if err := s.write(rules, "demo.yaml", s.rules()); err != nil {
		return err
	}
	if err := s.write(books, "demo.yaml", s.playbook()); err != nil {
		return err
	}
	common := append([]string{"--host", string(host), "--runtime-dir", filepath.Join(s.dir, "run"), "--state-dir", filepath.Join(s.dir, "state")}, s.backend.flags...)
	responder := append([]string{"responder", "--mode", "enforce", "--own-uid", "--lease", lease.String(), "--concurrency", "8",
		"--playbooks", books, "--trace", s.trace()}, common...)
	if s.backend.volatile {
		responder = append(responder, "--allow-volatile")
	}
	for i := range replicas {
		p, _, err := s.riposte(ctx, fmt.Sprintf("responder-%d", i+1), responder...)
		if err != nil {
			return err
		}
		s.team = append(s.team, p)
		fmt.Fprintln(s.out, "responder  ", p.id)
	}
	_, source, err := s.riposte(ctx, "sensor", append([]string{"sensor", "--rules", rules, "--poll-interval", "20ms"}, common...)...)
	s.report.Source, _, _ = strings.Cut(source, ":")
	fmt.Fprintln(s.out, "sensor     ", source)
	return err
}

// rules match only what carries the nonce in its command line.
func (s *show) rules() string {
	text := "rules:\n"
	for i, c := range Chains {
		text += fmt.Sprintf(`  - id: demo-%d
    name: %s started %s
    description: A decoy of the demo.
    level: HIGH
    tags: [attack.execution, attack.t1204.002]
    parent: [%q]
    child: [%q]
    cmdline: [%q]
`, i, c.Parent, c.Child, c.Parent, c.Child, s.nonce)
	}
	return text
}

// playbook matches only what carries it, too, and blocks no address.
func (s *show) playbook() string {
	return fmt.Sprintf(`name: demo
description: Stop a decoy and log it.
match: alert.level == "HIGH" and alert.rule.id startsWith "demo-" and alert.process.cmdline contains %q
steps:
  - name: terminate
    action: terminate_process
    with: {grace: %s}
  - name: log
    action: log
    with: {path: %q}
`, s.nonce, grace, filepath.Join(s.dir, "containment.log"))
}

func (s *show) write(dir, name, text string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600)
}

func (s *show) trace() string { return filepath.Join(s.dir, "trace") }

// play starts the attacks and breaks replicas while they are dealt with.
func (s *show) play(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	decoys, err := NewDecoys(s.dir, s.nonce)
	if err != nil {
		return err
	}
	fmt.Fprintf(s.out, "\n%-8s  %-34s  %-22s  %-12s  %s\n", "ALERT", "RULE", "REPLICA", "OUTCOME", "DETECTED TO DEAD")
	failed := make(chan error, attacks+2)
	var acting, breaking, watching sync.WaitGroup
	watch, stop := context.WithCancel(ctx)
	watching.Go(func() { s.watch(watch) })
	breaking.Go(func() {
		if err := s.breakReplicas(ctx); err != nil && ctx.Err() == nil {
			failed <- err
		}
	})
	tick := time.NewTicker(every)
	defer tick.Stop()
	for n := range attacks {
		acting.Go(func() {
			if err := s.attack(ctx, decoys, Chains[n%len(Chains)], n%3 == 2); err != nil && ctx.Err() == nil {
				failed <- err
			}
		})
		select {
		case <-tick.C:
		case <-ctx.Done():
		}
	}
	acting.Wait()
	breaking.Wait()
	settled := s.settled(ctx)
	stop()
	watching.Wait()
	s.report.attacks = attacks
	select {
	case err := <-failed:
		return err
	default:
	}
	if errors.Is(ctx.Err(), context.Canceled) {
		return ctx.Err()
	}
	return settled
}

// attack runs one decoy chain to its end.
func (s *show) attack(ctx context.Context, decoys *Decoys, c Chain, stubborn bool) error {
	a := &attack{chain: c, gone: make(chan struct{})}
	ended, err := decoys.Attack(ctx, c, stubborn, func(pid int) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.attacks[pid] = a
	})
	s.mu.Lock()
	defer s.mu.Unlock()
	a.died, a.ended = time.Now(), ended
	close(a.gone)
	return err
}

// settled waits until no alert of the burst is open.
func (s *show) settled(ctx context.Context) error {
	for {
		entries, _, err := s.ledger.List(ctx)
		open := 0
		for _, e := range entries {
			if !e.Header.Settled() {
				open++
			}
		}
		if err == nil && open == 0 && len(entries) >= attacks {
			return nil
		}
		select {
		case <-ctx.Done():
			return nil // the report says what is missing
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// resolved is what the demo reads back of a frozen terminate_process step.
type resolved struct {
	PID int `json:"pid"`
}

func pidOf(e ledger.Entry) int {
	var with resolved
	for _, step := range e.Body.Steps {
		if step.Action == "terminate_process" && json.Unmarshal(step.With, &with) == nil {
			return with.PID
		}
	}
	return 0
}
