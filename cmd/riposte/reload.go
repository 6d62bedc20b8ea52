package main

import (
	"context"
	"crypto/sha256"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"riposte/playbook"
	"riposte/stream/strict"
)

// reloadEvery is how often the files of a configuration are looked at. Looking beats being told: an
// editor, a ConfigMap and a git checkout each replace files in a way of their own.
const reloadEvery = 2 * time.Second

// source is a part of the configuration that is read again when its files change: whole, or
// not at all.
type source struct {
	what string // such as playbooks
	path string // a file or a folder; none where it is empty
	// again reads it and puts it in force, and says what to log of it.
	again func() ([]any, error)

	taken, last string // how it looked when it was read, and at the last look
}

// newSource is made before it is read for the first time, so that no change is missed.
func newSource(what, path string) *source {
	s := &source{what: what, path: path}
	if path != "" {
		s.taken, _ = s.look()
	}
	s.last = s.taken
	return s
}

// keepLoaded gives a replica its configuration, as that changes.
func (r *responder) keepLoaded(ctx context.Context, sources ...*source) {
	sources = slices.DeleteFunc(sources, func(s *source) bool { return s.path == "" })
	if len(sources) == 0 {
		return
	}
	asked := make(chan struct{}, 1)
	hup := func() { tell(asked) }
	r.reload.Store(&hup)
	defer r.reload.Store(nil)
	tick := time.NewTicker(reloadEvery)
	defer tick.Stop()
	for {
		now := false
		select {
		case <-ctx.Done():
			return
		case <-asked:
			now = true
		case <-tick.C:
		}
		for _, s := range sources {
			if s.changed(r.log) || now {
				s.reread(r.log)
			}
		}
	}
}

// tell leaves word for who listens when he can.
func tell(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// changed says that it is another than was read, and has been for two looks: who writes it may
// not be done at the first.
func (s *source) changed(log *slog.Logger) bool {
	now, err := s.look()
	steady := now == s.last
	s.last = now
	if now == s.taken || !steady {
		return false
	}
	s.taken = now
	if err != nil {
		log.Warn(s.what+" cannot be looked at; what was read before stays in force", "err", err)
	}
	return err == nil
}

func (s *source) reread(log *slog.Logger) {
	about, err := s.again()
	if err != nil {
		log.Error(s.what+" not usable any more; what was read before stays in force", "err", err)
		return
	}
	log.Info(s.what+" read again", about...)
}

func names(books []*playbook.Playbook) string {
	var all []string
	for _, b := range books {
		all = append(all, b.Name+"@"+b.Hash)
	}
	return strings.Join(all, " ")
}

// look returns what changes when the file, or a file of the folder, does.
func (s *source) look() (string, error) {
	info, err := os.Stat(s.path)
	if err != nil {
		return err.Error(), err
	}
	if !info.IsDir() {
		return fingerprint(s.path, info), nil
	}
	entries, err := os.ReadDir(s.path)
	if err != nil {
		return err.Error(), err
	}
	var b strings.Builder
	for _, e := range entries {
		file := filepath.Join(s.path, e.Name())
		info, err := os.Stat(file) // where a link leads to
		if err != nil {
			return err.Error(), err
		}
		fmt.Fprintln(&b, e.Name(), fingerprint(file, info))
	}
	return b.String(), nil
}

// fingerprint is also of what is in a file: in a package store all files are of one time, and
// "enforce" is as long as "observe".
func fingerprint(path string, info os.FileInfo) string {
	mark := fmt.Sprint(info.Size(), info.ModTime().UnixNano())
	if !info.Mode().IsRegular() || info.Size() > strict.MaxBytes {
		return mark // none that is read
	}
	src, _ := os.ReadFile(path) // who has to read it will say why not
	return fmt.Sprintf("%s %x", mark, sha256.Sum256(src))
}
