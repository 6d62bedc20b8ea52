package gate

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"testing"
	"time"
)

// The gate is between processes, so its tests are too: a peer is this very test binary,
// which does at its own gate what it is told on its standard input.

const peerVariable = "RIPOSTE_TEST_PEER"

func TestMain(m *testing.M) {
	switch os.Getenv(peerVariable) {
	case "":
		os.Exit(m.Run())
	case "idle": // until its standard input ends
		_, _ = bufio.NewReader(os.Stdin).ReadString(0)
	default:
		if err := servePeer(os.Getenv(peerVariable)); err != nil {
			fmt.Fprintln(os.Stderr, "peer:", err)
			os.Exit(1)
		}
	}
}

// order is what a peer is to do; answer is what came of it.
type order struct {
	Do      string // enter, begin, close, leave, join, bequeath
	Run     string // with open
	State   string
	Step    Step
	Token   Token
	Outcome string
}

type answer struct {
	Busy   *BusyError
	Stale  *StaleError
	Err    string
	Closed string
	Begun  int
}

func servePeer(name string) error {
	in, out := json.NewDecoder(os.Stdin), json.NewEncoder(os.Stdout)
	var g *Gate
	var pass *Pass
	var kept []any
	defer func() { runtime.KeepAlive(kept) }() // a finalised file would drop its lock
	for {
		var o order
		if err := in.Decode(&o); err != nil {
			return nil // the test has ended
		}
		var a answer
		var err error
		switch o.Do {
		case "open":
			g, err = Open(o.Run, o.State, name, "containment")
		case "enter":
			if pass, err = g.Enter(o.Step, o.Token); err == nil {
				a.Closed, _, _ = pass.Closed()
				a.Begun = pass.Begun()
			}
		case "begin":
			err = pass.Begin()
		case "close":
			err = pass.Close(o.Outcome, "by "+name)
		case "leave":
			pass.Leave()
		case "join":
			var life *Life
			life, err = g.Join()
			kept = append(kept, life)
		case "bequeath": // the lock, to a child that lives on standard input 3
			cmd := exec.Command(os.Args[0])
			cmd.Env = append(os.Environ(), peerVariable+"=idle")
			cmd.Stdin = os.NewFile(3, "will")
			cmd.ExtraFiles = pass.Locks()
			err = cmd.Start()
			kept = append(kept, cmd)
		}
		if !errors.As(err, &a.Busy) && !errors.As(err, &a.Stale) && err != nil {
			a.Err = err.Error()
		}
		if err := out.Encode(a); err != nil {
			return err
		}
	}
}

// peer is another process at the gate.
type peer struct {
	t    *testing.T
	cmd  *exec.Cmd
	in   *json.Encoder
	out  *json.Decoder
	gone chan struct{} // closed when it is dead and reaped
}

// start starts a peer at the gate of a folder. inherit becomes its descriptor 3.
func (h *host) start(name string, inherit ...*os.File) *peer {
	h.t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), peerVariable+"="+name)
	cmd.Stderr = os.Stderr
	cmd.ExtraFiles = inherit
	in, err1 := cmd.StdinPipe()
	out, err2 := cmd.StdoutPipe()
	if err := errors.Join(err1, err2); err != nil {
		h.t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		h.t.Fatal(err)
	}
	p := &peer{t: h.t, cmd: cmd, in: json.NewEncoder(in), out: json.NewDecoder(out), gone: make(chan struct{})}
	go func() {
		defer close(p.gone)
		_, _ = cmd.Process.Wait() // not cmd.Wait, which would close the pipe under a reader
	}()
	h.t.Cleanup(p.kill)
	h.t.Cleanup(func() { in.Close(); out.Close() })
	p.do(order{Do: "open", Run: h.run, State: h.state})
	return p
}

// do gives an order that must succeed.
func (p *peer) do(o order) answer {
	p.t.Helper()
	a := p.try(o)
	if a.Busy != nil || a.Stale != nil || a.Err != "" {
		p.t.Fatalf("peer: %s: %+v", o.Do, a)
	}
	return a
}

func (p *peer) try(o order) (a answer) {
	p.t.Helper()
	if err := p.in.Encode(o); err != nil {
		p.t.Fatal(err)
	}
	if err := p.out.Decode(&a); err != nil {
		p.t.Fatal(err)
	}
	return a
}

// kill ends the peer as a crash would.
func (p *peer) kill() {
	_ = p.cmd.Process.Kill()
	<-p.gone
}

func (p *peer) alive() bool {
	select {
	case <-p.gone:
		return false
	default:
		return true
	}
}

// host is a machine's folders.
type host struct {
	t          *testing.T
	ctx        context.Context
	run, state string
}

func newHost(t *testing.T) *host {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	t.Cleanup(cancel)
	dir := t.TempDir()
	return &host{t, ctx, filepath.Join(dir, "run"), filepath.Join(dir, "state")}
}

// open opens the gate for this process.
func (h *host) open(name string) *Gate {
	h.t.Helper()
	g, err := Open(h.run, h.state, name, "containment")
	if err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(func() { g.Close() })
	return g
}

// enter enters where nothing is in the way.
func (h *host) enter(g *Gate, s Step, token Token) *Pass {
	h.t.Helper()
	p, err := g.Enter(s, token)
	if err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(p.Leave)
	return p
}

// busy enters where somebody else is, and says who.
func (h *host) busy(g *Gate, s Step, token Token) *BusyError {
	h.t.Helper()
	p, err := g.Enter(s, token)
	var busy *BusyError
	if !errors.As(err, &busy) {
		if p != nil {
			p.Leave()
		}
		h.t.Fatalf("entered where somebody is inside (%v)", err)
	}
	return busy
}

// stale enters under a token that has been overtaken, and says by what.
func (h *host) stale(g *Gate, s Step, token Token) uint64 {
	h.t.Helper()
	p, err := g.Enter(s, token)
	var stale *StaleError
	if !errors.As(err, &stale) {
		if p != nil {
			p.Leave()
		}
		h.t.Fatalf("entered under an overtaken token %v (%v)", token, err)
	}
	return stale.Newest
}

// eventually polls until ok says so.
func (h *host) eventually(what string, ok func() bool) {
	h.t.Helper()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-h.ctx.Done():
			h.t.Fatalf("never: %s", what)
		}
	}
}

// receipt is the file of a step.
func (h *host) receipt(key string) string { return filepath.Join(h.run, stepDir, hash(key)) }

func member(t *testing.T, g *Gate, name string) (Member, bool) {
	t.Helper()
	members, err := g.Members()
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(members, func(m Member) bool { return m.Replica == name })
	if i < 0 {
		return Member{}, false
	}
	return members[i], true
}

var someStep = Step{Key: "h/g/a/p/s", Within: time.Minute}
