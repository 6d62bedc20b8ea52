package main

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"riposte/cmd/riposte/demo"
)

func newDemoCmd(a *app) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "Show the main job on this machine, safely, in half a minute",
		Long: `Start a private Redis, a sensor and three responder replicas, attack this machine with harmless
decoys, kill one replica and freeze another in the middle of their work, and count what came of it.

Nothing but the demo's own decoys is touched, no address is blocked, and nothing is left behind.
Exit code 0 means: every attack contained, none lost, no effect doubled.`,
		Example: `  riposte demo
  riposte demo --json | tail -n 1`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return a.demo(cmd.Context(), asJSON) },
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print the figures as one JSON object; the table goes to stderr")
	return cmd
}

func (a *app) demo(ctx context.Context, asJSON bool) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go untilOrphaned(ctx, cancel)
	var nonce [6]byte
	rand.Read(nonce[:])
	live := a.out
	if asJSON {
		live = a.errw
	}
	report, err := demo.Run(ctx, untilUnread(live, cancel), "demo-"+hex.EncodeToString(nonce[:]))
	if report == nil {
		return err
	}
	if asJSON {
		raw, err := json.Marshal(report)
		if err != nil {
			return err
		}
		fmt.Fprintf(a.out, "%s\n", raw)
	} else {
		report.Print(a.out)
	}
	if err != nil {
		return err
	}
	return report.Verdict()
}

// untilUnread has the end of whoever reads what is written to w end the command in good order.
// Else the signal of the first write that nobody reads (SIGPIPE) would end the process at once,
// and leave behind what it has started.
func untilUnread(w io.Writer, end func()) io.Writer {
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE)
	return &unread{w, end}
}

type unread struct {
	io.Writer
	end func()
}

func (u *unread) Write(p []byte) (int, error) {
	n, err := u.Writer.Write(p)
	if err != nil {
		u.end()
	}
	return n, err
}

// untilOrphaned ends the demo when whoever started it is gone.
func untilOrphaned(ctx context.Context, end func()) {
	parent := os.Getppid()
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for os.Getppid() == parent {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
	end()
}
