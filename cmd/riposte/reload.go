package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"riposte/playbook"
	"riposte/stream"
)

// reloadEvery is how often the folder of playbooks is looked at. Looking beats being told: an
// editor, a ConfigMap and a git checkout each replace files in a way of their own.
const reloadEvery = 2 * time.Second

// keepLoaded gives a replica the playbooks of its folder, as they change: whole, or not at all.
func (r *responder) keepLoaded(ctx context.Context, replica *playbook.Responder, group stream.Group) {
	if r.books == "" {
		return
	}
	asked := make(chan struct{}, 1)
	hup := func() {
		select {
		case asked <- struct{}{}:
		default:
		}
	}
	r.reload.Store(&hup)
	defer r.reload.Store(nil)
	tick := time.NewTicker(reloadEvery)
	defer tick.Stop()
	seen, _ := fingerprint(r.books)
	for {
		select {
		case <-ctx.Done():
			return
		case <-asked:
		case <-tick.C:
			now, err := fingerprint(r.books)
			if now == seen && err == nil {
				continue
			}
			if seen = now; err != nil {
				r.log.Warn("playbooks cannot be looked at; those that were read stay in force", "err", err)
				continue
			}
		}
		books, err := loadPlaybooks(r.books, group)
		if err == nil {
			err = checkCapabilities(books, playbook.Mode(r.mode), r.ownUID)
		}
		if err != nil {
			r.log.Error("playbooks have changed and are not usable; those that were read before stay in force", "err", err)
			continue
		}
		replica.Reload(books)
		r.log.Info("playbooks read again", "playbooks", len(books), "names", names(books))
	}
}

func names(books []*playbook.Playbook) string {
	var all []string
	for _, b := range books {
		all = append(all, b.Name+"@"+b.Hash)
	}
	return strings.Join(all, " ")
}

// fingerprint changes when the files of a folder do.
func fingerprint(dir string) (string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return "", err
	}
	var b strings.Builder
	for _, e := range entries {
		info, err := os.Stat(filepath.Join(dir, e.Name())) // where a link leads to
		if err != nil {
			return "", err
		}
		fmt.Fprintln(&b, e.Name(), info.Size(), info.ModTime().UnixNano())
	}
	return b.String(), nil
}
