package gate

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"riposte/stream/proc"
	"riposte/test/need"
)

// A frozen holder keeps the lock. It is ended when its time is up, and not before.
func TestFrozenHolder(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	p, g := h.start("h-1-peer"), h.open("h-2-own")
	s := someStep
	s.Within = 300 * time.Millisecond
	p.do(order{Do: "enter", Step: s, Token: Token{10, "n"}})
	p.do(order{Do: "begin"})
	if err := p.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	holder := h.busy(g, s, Token{11, "m"}).Holder
	if ended, err := g.End(holder); ended || err != nil {
		t.Fatalf("ended %v before its time: %v", time.Until(holder.Until), err)
	}
	// Neither another process under its PID, nor a PID that is numbered elsewhere.
	for _, change := range []func(*Holder){func(h *Holder) { h.Ticks++ }, func(h *Holder) { h.PIDNS++ }, func(h *Holder) { h.PID = 0 }, func(h *Holder) { h.PID = -holder.PID }} {
		other := holder
		other.Until = time.Now().Add(-time.Second)
		change(&other)
		_, _ = g.End(other)
		h.busy(g, s, Token{11, "m"})
	}
	h.eventually("its time is up", func() bool {
		ended, err := g.End(h.busy(g, s, Token{11, "m"}).Holder)
		if err != nil {
			t.Fatal(err)
		}
		return ended
	})
	if time.Now().Before(holder.Until) {
		t.Errorf("ended %v before its time", time.Until(holder.Until))
	}
	<-p.gone
	if pass := h.enter(g, s, Token{11, "m"}); pass.Begun() != 1 {
		t.Errorf("begun %d times", pass.Begun())
	}
	if ended, err := g.End(holder); ended || err != nil {
		t.Errorf("ended again: %v, %v", ended, err)
	}
}

// One that has left has not overstayed, however long ago it was inside: while the next one
// holds the lock and has not put its own name there yet, nobody is to be ended.
func TestWhoLeftIsNotEnded(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	p, g := h.start("h-1-peer"), h.open("h-2-own")
	s := Step{Key: "s", Targets: []string{"t"}, Within: time.Millisecond}
	for _, leave := range []order{{Do: "leave"}, {Do: "close", Outcome: "killed"}} {
		p.do(order{Do: "enter", Step: s, Token: Token{10, "n"}})
		until := h.busy(g, s, Token{11, "m"}).Holder.Until
		h.eventually("its time would be up", func() bool { return time.Now().After(until) })
		p.do(leave)
		for dir, what := range map[string]string{stepDir: s.Key, targetDir: "t"} {
			f, err := os.OpenFile(filepath.Join(h.run, dir, hash(what)), os.O_RDWR, 0)
			if err != nil {
				t.Fatal(err)
			}
			if ok, err := tryLock(f); !ok || err != nil {
				t.Fatal(ok, err)
			}
			step := s
			if dir == targetDir {
				step.Key = "another"
			}
			if dir == targetDir || leave.Do == "leave" { // what is closed keeps nobody waiting
				holder := h.busy(g, step, Token{11, "m"}).Holder
				if ended, err := g.End(holder); ended || err != nil || !p.alive() {
					t.Errorf("after %s: %+v was ended for %s: %v", leave.Do, holder, what, err)
				}
			}
			f.Close()
		}
	}
}

// What is closed is final also while somebody has the lock: a process that a script left
// behind must not keep its outcome from being recorded.
func TestClosedWhileLocked(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	if err := h.enter(h.open("h-1-own"), someStep, Token{10, "n"}).Close("ran", "why"); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(h.receipt(someStep.Key), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if ok, err := tryLock(f); !ok || err != nil {
		t.Fatal(ok, err)
	}
	pass := h.enter(h.open("h-2-own"), someStep, Token{9, "m"})
	if outcome, reason, ok := pass.Closed(); !ok || outcome != "ran" || reason != "why" {
		t.Errorf("%q, %q, %v", outcome, reason, ok)
	}
	if err := pass.Close("failed", ""); err == nil {
		t.Error("who has no lock has written")
	}
	pass.Leave()
}

// The locks stand until a child that has inherited them is gone as well.
func TestInheritedLock(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	will, hand, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer hand.Close()
	p, g := h.start("h-1-peer", will), h.open("h-2-own")
	will.Close()
	step, other := someStep, someStep
	step.Targets, other.Key, other.Targets = []string{"t"}, "other", []string{"t"}
	p.do(order{Do: "enter", Step: step, Token: Token{10, "n"}})
	p.do(order{Do: "begin"})
	p.do(order{Do: "bequeath"})
	p.kill()
	h.busy(g, step, Token{11, "m"})
	h.busy(g, other, Token{11, "m"}) // the child may still act on the target
	hand.Close()                     // the child ends
	h.eventually("the child's lock is free", func() bool {
		pass, err := g.Enter(step, Token{11, "m"})
		if err != nil {
			return false
		}
		pass.Leave()
		return true
	})
}

func TestLife(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	p, g := h.start("h-1-peer"), h.open("h-2-own")
	if _, known := member(t, g, "h-1-peer"); known {
		t.Error("it has no life file yet")
	}
	p.do(order{Do: "join"})
	m, known := member(t, g, "h-1-peer")
	if !known || !m.Alive || m.PID != p.cmd.Process.Pid || m.Role != "containment" {
		t.Errorf("%+v, %v", m, known)
	}
	if st, err := proc.ReadStat(m.PID); err != nil || st.StartTicks != m.Ticks {
		t.Errorf("start %d, want %d, %v", m.Ticks, st.StartTicks, err)
	}
	if err := g.Forget("h-1-peer"); err == nil {
		t.Error("a live one was forgotten")
	}
	life, err := g.Join()
	if err != nil {
		t.Fatal(err)
	}
	if m, known := member(t, g, "h-2-own"); !known || !m.Alive {
		t.Errorf("own: %+v, %v", m, known)
	}

	// One that has not joined yet, because its file is not locked yet.
	if err := os.WriteFile(filepath.Join(h.run, lifeDir, ".h-4-joining"), []byte("{}"), 0o600); err != nil {
		t.Fatal(err)
	}
	if m, known := member(t, g, ".h-4-joining"); known {
		t.Errorf("%+v", m)
	}

	died := make(chan struct{}, 100)
	watched := make(chan error, 1)
	ctx, stop := context.WithCancel(h.ctx)
	go func() { watched <- g.Watch(ctx, func() { died <- struct{}{} }) }()
	h.eventually("the folder is watched", h.watched)
	p.kill()
	select {
	case <-died:
	case <-h.ctx.Done():
		t.Fatal("its death was not noticed")
	}
	if m, known := member(t, g, "h-1-peer"); !known || m.Alive {
		t.Errorf("%+v, listed %v", m, known)
	}
	stop()
	if err := <-watched; err != nil {
		t.Error(err)
	}
	if err := g.Forget("h-1-peer"); err != nil {
		t.Error(err)
	}
	if _, known := member(t, g, "h-1-peer"); known {
		t.Error("it was not forgotten")
	}
	if err := errors.Join(g.Forget("h-1-peer"), life.Leave()); err != nil {
		t.Error(err)
	}
	if _, known := member(t, h.open("h-3-own"), "h-2-own"); known {
		t.Error("one that left in good order is still listed")
	}
}

// watched says whether this process watches the folder of life files, by its inode.
func (h *host) watched() bool {
	info, err := os.Stat(filepath.Join(h.run, lifeDir))
	if err != nil {
		h.t.Fatal(err)
	}
	mark := fmt.Sprintf("inotify wd:1 ino:%x ", info.Sys().(*syscall.Stat_t).Ino)
	files, err := filepath.Glob("/proc/self/fdinfo/*")
	if err != nil {
		h.t.Fatal(err)
	}
	return slices.ContainsFunc(files, func(file string) bool {
		raw, err := os.ReadFile(file) // it may be closed by now
		return err == nil && strings.Contains(string(raw), mark)
	})
}

func TestWatchEnds(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	g := h.open("h-1-own")
	ctx, stop := context.WithCancel(h.ctx)
	ended := make(chan error, 1)
	go func() { ended <- g.Watch(ctx, func() {}) }()
	stop()
	select {
	case err := <-ended:
		if err != nil {
			t.Error(err)
		}
	case <-h.ctx.Done():
		t.Error("it goes on")
	}
}

func TestFolderRefused(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	open := func(path string) error {
		g, err := Open(path, "", "h-1-own", "")
		if err == nil {
			g.Close()
		}
		return err
	}
	path := func(name string) string { return filepath.Join(dir, name) }
	for _, mode := range []os.FileMode{0o755, 0o770, 0o701, 0o777 | os.ModeSticky} {
		if err := errors.Join(os.MkdirAll(path("mode"), 0o700), os.Chmod(path("mode"), mode)); err != nil {
			t.Fatal(err)
		}
		if err := open(path("mode")); err == nil || !strings.Contains(err.Error(), "chmod 0700") {
			t.Errorf("mode %o: %v", mode, err)
		}
	}
	if err := errors.Join(os.Chmod(path("mode"), 0o700), open(path("mode"))); err != nil {
		t.Errorf("mode 0700: %v", err)
	}
	if err := os.Symlink(path("mode"), path("link")); err != nil {
		t.Fatal(err)
	}
	if err := open(path("link")); err == nil || !strings.Contains(err.Error(), "symbolic link") {
		t.Errorf("symbolic link: %v", err)
	}
	if err := os.WriteFile(path("file"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := open(path("file")); err == nil {
		t.Error("a file passes for a folder")
	}
	// A link that somebody plants inside is not followed.
	if err := errors.Join(os.WriteFile(path("victim"), []byte("v"), 0o600), os.Symlink("../../victim", filepath.Join(path("mode"), stepDir, hash("planted")))); err != nil {
		t.Fatal(err)
	}
	g, err := Open(path("mode"), "", "h-1-own", "")
	if err != nil {
		t.Fatal(err)
	}
	defer g.Close()
	if _, err := g.Enter(Step{Key: "planted"}, Token{1, "n"}); err == nil {
		t.Error("a planted link was followed")
	}
	if raw, _ := os.ReadFile(path("victim")); string(raw) != "v" {
		t.Errorf("what a planted link points to was written to: %q", raw)
	}
}

// A folder of another user's would let that user remove receipts.
func TestFolderOfAnotherUser(t *testing.T) {
	t.Parallel()
	need.Root(t)
	dir := filepath.Join(t.TempDir(), "run")
	if err := errors.Join(os.Mkdir(dir, 0o700), os.Chown(dir, 65534, 65534)); err != nil {
		t.Fatal(err)
	}
	if g, err := Open(dir, "", "h-1-own", ""); err == nil || !strings.Contains(err.Error(), "belongs to another user") {
		t.Errorf("%v, %v", g, err)
	}
}
