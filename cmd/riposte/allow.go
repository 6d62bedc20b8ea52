package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"

	"github.com/spf13/pflag"

	"riposte/playbook/action"
	"riposte/playbook/gate"
	"riposte/playbook/guard"
	"riposte/stream/strict"
)

// allowFlag adds --allow.
func allowFlag(f *pflag.FlagSet, path *string) {
	f.StringVar(path, "allow", "", "allow-list: `file` of processes and networks that no playbook may act on")
}

// loadAllow reads an allow-list. Without a path there is none.
func loadAllow(path string) (*guard.Allow, error) {
	if path == "" {
		return nil, nil
	}
	src, err := readAllow(path)
	if err != nil {
		return nil, fmt.Errorf("allow-list: %w", err)
	}
	return guard.Decode(path, src)
}

func readAllow(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	src, err := io.ReadAll(io.LimitReader(f, strict.MaxBytes+1)) // of what is longer, Decode says so
	return src, errors.Join(err, f.Close())
}

// setAllow puts an allow-list in force. It returns what to log of it.
func setAllow(log *slog.Logger, g *guard.Allowing, list *guard.Allow) []any {
	g.Set(list)
	for _, w := range list.Warnings {
		log.Warn("allow-list: " + w)
	}
	return []any{"processes", len(list.Processes), "networks", len(list.Networks)}
}

// liftProtected takes away blocks of what is protected by now.
func liftProtected(ctx context.Context, log *slog.Logger, g *gate.Gate, env action.Env) {
	lifted, err := action.LiftProtected(ctx, g, env)
	for _, l := range lifted {
		log.Info("lifted a block of what is protected by now", "address", l.Address, "reason", l.Reason, "alerts", l.Alerts, "now", l.Left)
	}
	if err != nil && ctx.Err() == nil {
		log.Warn("blocks of what is protected by now not lifted", "err", err)
	}
}
