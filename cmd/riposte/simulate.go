package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"riposte/cmd/riposte/demo"
)

func newSimulateCmd(a *app) *cobra.Command {
	var every time.Duration
	var count int
	cmd := &cobra.Command{
		Use:   "simulate",
		Short: "Start a decoy attack chain every few seconds",
		Long: `Start a decoy attack chain every few seconds: processes named like a real attack, such as
winword.exe starting powershell.exe, that only sleep, for a minute at most. A sensor on this
host raises an alert for each; a responder that enforces stops it. One in three ignores SIGTERM.`,
		Example: `  riposte simulate
  riposte simulate --every 500ms --count 20`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.simulate(cmd.Context(), every, count)
		},
	}
	cmd.Flags().Var(newSpan(&every, 3*time.Second, time.Millisecond, 0), "every", "time between two attacks")
	cmd.Flags().Var(newCount(&count, 0, 0, 0), "count", "stop after so many (0: never)")
	return cmd
}

func (a *app) simulate(ctx context.Context, every time.Duration, count int) (err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	a.out = untilUnread(a.out, cancel)
	dir, err := os.MkdirTemp("", "riposte-simulate-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	decoys, err := demo.NewDecoys(dir, "simulated")
	if err != nil {
		return err
	}
	var running sync.WaitGroup
	defer running.Wait()
	tick := time.NewTicker(every)
	defer tick.Stop()
	for n := 0; count == 0 || n < count; n++ {
		chain, stubborn := demo.Chains[n%len(demo.Chains)], n%3 == 2
		running.Go(func() {
			if err := a.attack(ctx, decoys, chain, stubborn); err != nil {
				a.log.Warn("attack not simulated", "err", err)
			}
		})
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
	return nil
}

// attack starts a chain and reports its end.
func (a *app) attack(ctx context.Context, decoys *demo.Decoys, chain demo.Chain, stubborn bool) error {
	began, child := time.Time{}, 0
	ended, err := decoys.Attack(ctx, chain, stubborn, func(pid int) {
		began, child = time.Now(), pid
		a.log.Info("attack", "parent", chain.Parent, "child", chain.Child, "pid", pid, "ignores_sigterm", stubborn)
	})
	if ctx.Err() != nil {
		return nil
	}
	if err == nil {
		fmt.Fprintf(a.out, "%s -> %s (PID %d) ended after %v: %s\n", chain.Parent, chain.Child, child, time.Since(began).Round(time.Millisecond), ended)
	}
	return err
}
