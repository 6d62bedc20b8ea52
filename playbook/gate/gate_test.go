package gate

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

func TestOneInside(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	p, g := h.start("h-1-peer"), h.open("h-2-own")
	p.do(order{Do: "enter", Step: someStep, Token: Token{10, "n"}})
	busy := h.busy(g, someStep, Token{11, "m"})
	if holder := busy.Holder; busy.What != someStep.Key || holder.Replica != "h-1-peer" || holder.PID != p.cmd.Process.Pid ||
		holder.Role != "containment" || time.Until(holder.Until) > time.Minute || time.Until(holder.Until) < 50*time.Second {
		t.Errorf("%+v", busy)
	}
	h.enter(g, Step{Key: "another"}, Token{5, "m"}).Leave()
	p.do(order{Do: "leave"})
	pass := h.enter(g, someStep, Token{11, "m"})
	if a := p.try(order{Do: "enter", Step: someStep, Token: Token{12, "n"}}); a.Busy == nil || a.Busy.Holder.Replica != "h-2-own" {
		t.Errorf("the other way round: %+v", a)
	}
	// Its own process is no exception.
	h.busy(g, someStep, Token{12, "m"})
	pass.Leave()
	pass.Leave()
	p.do(order{Do: "enter", Step: someStep, Token: Token{12, "n"}})
}

func TestOvertakenTokens(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	g := h.open("h-1-own")
	h.enter(g, someStep, Token{10, "n"}).Leave()
	for _, token := range []Token{{9, "n"}, {10, "m"}, {0, ""}} {
		if newest := h.stale(g, someStep, token); newest != 10 {
			t.Errorf("%v: told of %d", token, newest)
		}
	}
	h.enter(g, someStep, Token{10, "n"}).Leave()
	h.enter(h.open("h-2-own"), someStep, Token{11, "m"}).Leave()
	if newest := h.stale(g, someStep, Token{10, "n"}); newest != 11 {
		t.Errorf("told of %d", newest)
	}
}

// What was decided is decided, whoever asks, under whatever token.
func TestClosedBeatsTokens(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	p, g := h.start("h-1-peer"), h.open("h-2-own")
	p.do(order{Do: "enter", Step: someStep, Token: Token{10, "n"}})
	p.do(order{Do: "begin"})
	p.do(order{Do: "close", Outcome: "killed"})
	for _, token := range []Token{{9, "n"}, {10, "n"}, {10, "m"}, {99, "n"}} {
		pass := h.enter(g, someStep, token)
		if outcome, reason, ok := pass.Closed(); !ok || outcome != "killed" || reason != "by h-1-peer" || pass.Begun() != 1 {
			t.Errorf("%v: %q, %q, %v, begun %d times", token, outcome, reason, ok, pass.Begun())
		}
		pass.Leave()
	}
	if raw, err := os.ReadFile(h.receipt(someStep.Key)); err != nil || strings.Count(string(raw), "\n") != 3 {
		t.Errorf("more was written after the decision: %s, %v", raw, err)
	}
	pass := h.enter(g, someStep, Token{100, "n"})
	if err := pass.Close("failed", "second thoughts"); err != nil {
		t.Fatal(err)
	}
	if outcome, _, _ := h.enter(g, someStep, Token{101, "n"}).Closed(); outcome != "killed" {
		t.Errorf("the first decision was overturned: %s", outcome)
	}
	pass = h.enter(g, Step{Key: "open"}, Token{1, "n"})
	if _, _, ok := pass.Closed(); ok {
		t.Error("a new receipt is closed")
	}
}

// A crash frees the lock and leaves the receipt begun.
func TestCrashInside(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	p, g := h.start("h-1-peer"), h.open("h-2-own")
	p.do(order{Do: "enter", Step: someStep, Token: Token{10, "n"}})
	p.do(order{Do: "begin"})
	h.busy(g, someStep, Token{11, "m"})
	p.kill()
	h.stale(g, someStep, Token{9, "m"})
	pass := h.enter(g, someStep, Token{11, "m"})
	if _, _, ok := pass.Closed(); ok || pass.Begun() != 1 {
		t.Errorf("closed %v, begun %d times", ok, pass.Begun())
	}
	if err := pass.Begin(); err != nil || pass.Begun() != 2 {
		t.Errorf("begun %d times, %v", pass.Begun(), err)
	}
}

// A line that a crash tore was never written, and the next one takes its place.
func TestTornLine(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	g := h.open("h-1-own")
	pass := h.enter(g, someStep, Token{10, "n"})
	if err := pass.Begin(); err != nil {
		t.Fatal(err)
	}
	pass.Leave()
	f, err := os.OpenFile(h.receipt(someStep.Key), os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		t.Fatal(err)
	}
	torn := line{Event: "closed", Token: Token{99, "n"}, Outcome: strings.Repeat("killed", 1000)}.encode()
	if _, err := f.Write(torn[:len(torn)-1]); err != nil {
		t.Fatal(err)
	}
	f.Close()

	pass = h.enter(g, someStep, Token{11, "n"})
	if _, _, ok := pass.Closed(); ok || pass.Begun() != 1 {
		t.Errorf("closed %v, begun %d times", ok, pass.Begun())
	}
	if err := pass.Close("killed", ""); err != nil {
		t.Fatal(err)
	}
	if outcome, _, ok := h.enter(g, someStep, Token{12, "n"}).Closed(); !ok || outcome != "killed" {
		t.Errorf("after the torn line: %q, %v", outcome, ok)
	}
}

// A receipt that cannot be read or written means that no effect may be begun.
func TestReceiptTrouble(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	g := h.open("h-1-own")
	for name, content := range map[string]string{
		"rubbish": "rubbish\n", "version": `{"event":"half-closed","epoch":1}` + "\n", "size": strings.Repeat(" ", maxReceipt+1),
	} {
		if err := os.WriteFile(h.receipt(name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		for range 2 { // the lock is not kept either
			var busy *BusyError
			if _, err := g.Enter(Step{Key: name}, Token{1, "n"}); err == nil || errors.As(err, &busy) || !strings.Contains(err.Error(), name) {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
	pass := h.enter(g, someStep, Token{1, "n"})
	pass.file.Close()
	if err := pass.Begin(); err == nil || pass.Begun() != 0 {
		t.Errorf("begun %d times, %v", pass.Begun(), err)
	}
	if err := pass.Close("killed", ""); err == nil {
		t.Error("closed without a word in the receipt")
	}
}

func TestTargetsTakeTurns(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	p, g := h.start("h-1-peer"), h.open("h-2-own")
	one, two := Step{Key: "one", Targets: []string{"ip:b", "ip:c", "ip:b"}, Within: time.Minute}, Step{Key: "two", Targets: []string{"ip:b", "ip:a"}}
	p.do(order{Do: "enter", Step: one, Token: Token{10, "n"}})
	for range 2 {
		if busy := h.busy(g, two, Token{5, "m"}); busy.What != "ip:b" || busy.Holder.Replica != "h-1-peer" {
			t.Errorf("%+v", busy)
		}
	}
	// Whoever is turned away keeps nothing: neither its step nor the targets it had.
	if a := p.try(order{Do: "enter", Step: Step{Key: "three", Targets: []string{"ip:a"}}, Token: Token{10, "n"}}); a.Busy != nil {
		t.Errorf("%+v", a)
	}
	if raw, err := os.ReadFile(h.receipt("two")); err != nil || len(raw) != 0 {
		t.Errorf("it has passed the gate: %s, %v", raw, err)
	}
	p.kill()
	pass := h.enter(g, two, Token{5, "m"})
	h.busy(g, one, Token{11, "m"})
	if err := pass.Close("blocked", ""); err != nil {
		t.Fatal(err)
	}
	h.enter(g, one, Token{11, "m"})
}

// An at-most-once step is remembered over a reboot, which empties the runtime folder.
func TestDurableReceipts(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	for _, s := range []Step{{Key: "once", Durable: true}, {Key: "often"}} {
		if err := h.enter(h.open("h-1-own"), s, Token{10, "n"}).Close("ran", ""); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.RemoveAll(h.run); err != nil {
		t.Fatal(err)
	}
	g := h.open("h-2-own")
	if outcome, _, ok := h.enter(g, Step{Key: "once", Durable: true}, Token{11, "n"}).Closed(); !ok || outcome != "ran" {
		t.Errorf("at most once: %q, %v", outcome, ok)
	}
	if _, _, ok := h.enter(g, Step{Key: "often"}, Token{11, "n"}).Closed(); ok {
		t.Error("the runtime folder was not what was removed")
	}
}

func TestGateID(t *testing.T) {
	t.Parallel()
	h, other := newHost(t), newHost(t)
	id := h.open("h-1-own").ID()
	if again := h.open("h-2-own").ID(); again != id || id == "" || strings.ContainsAny(id, " \n") {
		t.Errorf("one folder, two gates: %q, %q", id, again)
	}
	if strange := other.open("h-1-own").ID(); strange == id {
		t.Error("two folders, one gate")
	}
	// At-most-once receipts are in the other folder, so it counts as well.
	apart, err := Open(h.run, filepath.Join(t.TempDir(), "state"), "h-3-own", "")
	if err != nil {
		t.Fatal(err)
	}
	defer apart.Close()
	if apart.ID() == id {
		t.Error("two state folders, one gate")
	}
	// A copy of the folder is another gate.
	if err := os.Rename(h.run, h.run+".old"); err != nil {
		t.Fatal(err)
	}
	if err := os.CopyFS(h.run, os.DirFS(h.run+".old")); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(h.run, 0o700); err != nil {
		t.Fatal(err)
	}
	if copied := h.open("h-1-own").ID(); copied == id {
		t.Error("a copy of the folder passes for it")
	}
}

func TestClean(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	g := h.open("h-1-own")
	now := time.Now()
	age := func(key string, by time.Duration) {
		if err := os.Chtimes(h.receipt(key), now.Add(-by), now.Add(-by)); err != nil {
			t.Fatal(err)
		}
	}
	for _, key := range []string{"old", "young", "inside"} {
		if err := h.enter(g, Step{Key: key, Targets: []string{"t"}}, Token{10, "n"}).Close("killed", ""); err != nil {
			t.Fatal(err)
		}
	}
	h.enter(h.open("h-2-own"), Step{Key: "inside"}, Token{10, "n"})
	age("old", time.Hour)
	age("inside", time.Hour)
	if n, err := g.Clean(now.Add(-time.Minute)); err != nil || n != 1 {
		t.Errorf("%d removed, %v", n, err)
	}
	for key, kept := range map[string]bool{"old": false, "young": true, "inside": true} {
		if _, err := os.Stat(h.receipt(key)); (err == nil) != kept {
			t.Errorf("%s: %v", key, err)
		}
	}
	// Whoever had the receipt before it was removed is stopped by the floor, and only those.
	newest := h.stale(g, Step{Key: "old"}, Token{10, "n"})
	if newest < uint64(now.UnixMicro()) {
		t.Errorf("the floor is %d, below the time of the cleaning", newest)
	}
	h.stale(g, Step{Key: "old"}, Token{newest, "n"})
	h.enter(g, Step{Key: "old"}, Token{newest + 1, "n"}).Leave()
	// The floor never falls, and lies above what was removed.
	h.enter(g, Step{Key: "ahead"}, Token{newest + 1e15, "n"}).Leave()
	for _, key := range []string{"ahead", "young"} {
		age(key, time.Hour)
		if n, err := g.Clean(now.Add(-time.Minute)); err != nil || n != 1 {
			t.Errorf("%s: %d removed, %v", key, n, err)
		}
		if floor := h.stale(g, Step{Key: "new"}, Token{newest + 1, "n"}); floor != newest+1e15 {
			t.Errorf("after %s: the floor is %d", key, floor)
		}
	}
	// One that somebody used since it was looked at is not old.
	if ok, err := g.cleanFile(g.run.Root, stepDir+"/"+hash("new"), now); ok || err != nil {
		t.Errorf("a fresh receipt: removed %v, %v", ok, err)
	}
}

// The floor is raised once, before the first receipt goes: whoever is granted something while
// thousands of them are removed is not turned away by each.
func TestCleanTurnsNobodyAwayTwice(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	g := h.open("h-1-own")
	for i, key := range []string{"first", "second"} {
		epoch := uint64(10 * (i + 1))
		if err := h.enter(g, Step{Key: key}, Token{epoch, "n"}).Close("killed", ""); err != nil {
			t.Fatal(err)
		}
		if ok, err := g.cleanFile(g.run.Root, stepDir+"/"+hash(key), time.Now().Add(time.Hour)); !ok || err != nil {
			t.Fatalf("%s: removed %v, %v", key, ok, err)
		}
		h.enter(g, Step{Key: "new"}, Token{epoch + 1, "n"}).Leave() // above what was removed
		h.stale(g, Step{Key: "newer"}, Token{epoch, "n"})
	}
	if n, err := g.Clean(time.Now().Add(time.Hour)); n != 2 || err != nil { // those of "new" and "newer"
		t.Fatalf("%d removed, %v", n, err)
	}
	h.stale(g, Step{Key: "newer"}, Token{uint64(time.Now().Add(-time.Minute).UnixMicro()), "n"})
}

// Cleaning never lets two in: not even when it removes the file that one of them has just
// opened.
func TestCleanWhileOthersEnter(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	gates := []*Gate{h.open("a"), h.open("b"), h.open("c")}
	cleaner := h.open("cleaner")
	epoch := uint64(time.Now().Add(time.Hour).UnixMicro())
	var inside, entered, removed atomic.Int64
	for range 1500 {
		var round sync.WaitGroup
		for _, g := range gates {
			epoch++
			token := Token{epoch, g.replica}
			round.Go(func() {
				pass, err := g.Enter(someStep, token)
				var busy *BusyError
				var stale *StaleError
				switch {
				case errors.As(err, &busy), errors.As(err, &stale):
					return
				case err != nil:
					t.Error(err)
					return
				}
				mine, err1 := pass.file.Stat()
				there, err2 := os.Stat(h.receipt(someStep.Key))
				if inside.Add(1) != 1 || errors.Join(err1, err2) != nil || !os.SameFile(mine, there) {
					t.Error("two are inside, or will be: the lock is on a file that was removed")
				}
				entered.Add(1)
				inside.Add(-1)
				pass.Leave()
			})
		}
		round.Go(func() {
			n, err := cleaner.Clean(time.Now().Add(time.Hour))
			if err != nil {
				t.Error(err)
			}
			removed.Add(int64(n))
		})
		round.Wait()
	}
	if entered.Load() < 100 || removed.Load() < 20 {
		t.Errorf("entered %d times, removed %d times: that shows nothing", entered.Load(), removed.Load())
	}
}
