package gate

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"time"

	"riposte/stream/proc"
)

// Token fences a grant; it is the ledger's, see ledger.Token.
type Token struct {
	Epoch uint64 `json:"epoch"`
	Nonce string `json:"nonce"`
}

// Holder says who is inside a step or holds a target.
type Holder struct {
	Replica string    `json:"replica"`
	Role    string    `json:"role,omitempty"` // its consumer group; empty for what is no responder
	PID     int       `json:"pid"`
	Ticks   uint64    `json:"ticks,omitempty"` // start of the process, see package proc
	PIDNS   uint64    `json:"pid_ns,omitempty"`
	Until   time.Time `json:"until,omitzero"` // when it has overstayed
}

// BusyError says that somebody else is inside the step or holds one of its targets. The
// caller tries again a little later.
type BusyError struct {
	What   string
	Holder Holder

	closed *line // the outcome, where it is decided all the same
}

func (e *BusyError) Error() string { return fmt.Sprintf("%s is held by %s", e.What, e.Holder.Replica) }

// StaleError says that a newer token has passed the gate. The caller gives its grant back
// and begins anew with Newest as the floor.
type StaleError struct{ Newest uint64 }

func (e *StaleError) Error() string {
	return fmt.Sprintf("a token of epoch %d has passed the gate", e.Newest)
}

// Gate is one replica's hand on the host's gate. It is safe for concurrent use.
type Gate struct {
	id      string
	run     *folder // runtime folder: life files, receipts, targets
	state   *folder // outlives reboots: receipts of at-most-once steps; nil where there is none
	replica string
	self    Holder
}

// Open opens the gate in a runtime folder that all replicas of the host share. stateDir
// holds what must outlive a reboot; it is created when first needed. replica is this
// process's consumer name, role its consumer group if it has one.
func Open(runtimeDir, stateDir, replica, role string) (*Gate, error) {
	run, err := openGateFolder(runtimeDir)
	if err != nil {
		return nil, err
	}
	g := &Gate{run: run, replica: replica, self: Holder{Replica: replica, Role: role, PID: os.Getpid()}}
	if st, err := proc.ReadStat(os.Getpid()); err == nil {
		g.self.Ticks = st.StartTicks
	}
	g.self.PIDNS, _ = proc.Namespace()
	if stateDir != "" {
		if g.state, err = openGateFolder(stateDir); err != nil {
			return nil, errors.Join(err, run.Close())
		}
	}
	if g.id, err = g.readID(); err != nil {
		return nil, errors.Join(fmt.Errorf("gate %s: %w", runtimeDir, err), g.Close())
	}
	return g, nil
}

// Close lets go of the folders. Locks of passes that are still open stand.
func (g *Gate) Close() error {
	err := g.run.Close()
	if g.state != nil {
		err = errors.Join(err, g.state.Close())
	}
	return err
}

// ID names these very folders in this very boot: a random file in each, the boot ID, and the
// device and inode of the runtime folder. Receipts mean something only under the same ID.
func (g *Gate) ID() string { return g.id }

func (g *Gate) readID() (string, error) {
	run, err := randomID(g.run.Root)
	if err != nil {
		return "", err
	}
	state := ""
	if g.state != nil {
		if state, err = randomID(g.state.Root); err != nil {
			return "", err
		}
	}
	boot, err := proc.BootID()
	if err != nil && !errors.Is(err, proc.ErrUnsupported) {
		return "", err
	}
	where, err := g.run.Stat(".")
	if err != nil {
		return "", err
	}
	return hash(run, state, boot, fileIdentity(where))[:16], nil
}

// randomID is what a folder is known by, written by whoever opens it first.
func randomID(root *os.Root) (string, error) {
	f, err := root.OpenFile(idFile, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return "", err
	}
	defer f.Close()
	if err := lockWait(f); err != nil { // held for one short write, by a process that is starting
		return "", err
	}
	raw, err := io.ReadAll(io.LimitReader(f, 64))
	if err != nil {
		return "", err
	}
	if len(raw) != 32 {
		var b [16]byte
		rand.Read(b[:])
		raw = []byte(hex.EncodeToString(b[:]))
		if _, err := f.WriteAt(raw, 0); err != nil {
			return "", err
		}
	}
	return string(raw), nil
}

// Step is what a caller wants to enter.
type Step struct {
	Key     string        // stream.StepKey
	Durable bool          // an at-most-once step: its receipt outlives a reboot
	Targets []string      // what the effect acts on
	Within  time.Duration // how long the caller means to be inside, at most
}

// Pass is the right to be inside a step. It ends with Close or Leave.
type Pass struct {
	gate    *Gate
	step    Step
	token   Token
	file    *os.File // locked; a finalised os.File would drop its lock, so it is referenced here
	targets *Hold
	size    int64
	receipt receipt
	inside  bool // our name stands in the receipt
}

// Enter passes the gate under a token. It returns a *BusyError while somebody else is
// inside, a *StaleError where a newer token has passed, and any other error where the
// receipt cannot be read or written: then no effect may be begun.
func (g *Gate) Enter(s Step, token Token) (*Pass, error) {
	file, err := lock(g.folder(s).steps, s.Key)
	if busy := new(BusyError); errors.As(err, &busy) && busy.closed != nil {
		// What is closed is final, whoever has the lock: a process that a script left behind, say.
		return &Pass{gate: g, step: s, token: token, receipt: receipt{closed: busy.closed}}, nil
	}
	if err != nil {
		return nil, err
	}
	p := &Pass{gate: g, step: s, token: token, file: file}
	if err := p.enter(); err != nil {
		p.Leave()
		return nil, err
	}
	return p, nil
}

func (p *Pass) enter() (err error) {
	if !fenced {
		return nil
	}
	if p.receipt, p.size, err = readReceipt(p.file); err != nil {
		return fmt.Errorf("receipt of %s: %w", p.step.Key, err)
	}
	if p.receipt.closed != nil {
		return nil // its outcome is all that is left to say, whoever asks
	}
	floor, err := readFloor(p.gate.folder(p.step).Root)
	if err != nil {
		return err
	}
	last := p.receipt.newest
	switch {
	case p.token.Epoch <= floor:
		return &StaleError{max(floor, last.Epoch)}
	case p.token.Epoch < last.Epoch, p.token.Epoch == last.Epoch && p.token.Nonce != last.Nonce:
		return &StaleError{last.Epoch}
	}
	if p.targets, err = p.gate.hold(p.step.Targets, line{Event: "entered", Token: p.token, Holder: p.holder()}); err != nil {
		return err
	}
	p.inside = true
	return p.write(line{Event: "entered", Token: p.token, Holder: p.holder()})
}

func (p *Pass) holder() Holder {
	h := p.gate.self
	h.Until = time.Now().Add(p.step.Within)
	return h
}

// overstayed says that a holder is another process, whose time is up.
func (g *Gate) overstayed(h Holder) bool {
	return h.Replica != g.replica && h.PID > 1 && !h.Until.IsZero() && time.Now().After(h.Until)
}

// Closed is the outcome decided earlier, if one was. Then nothing is left but to record it.
func (p *Pass) Closed() (outcome, reason string, ok bool) {
	if c := p.receipt.closed; c != nil {
		return c.Outcome, c.Reason, true
	}
	return "", "", false
}

// Begun is how often the effect may have begun before, under this and older tokens.
func (p *Pass) Begun() int { return p.receipt.begun }

// Locks are the locked descriptors, of the step and of its targets, for a process that the
// effect starts to inherit: while it lives nobody enters, nor acts on the same target.
func (p *Pass) Locks() []*os.File {
	locks := []*os.File{p.file}
	if p.targets != nil {
		locks = append(locks, p.targets.files...)
	}
	return locks
}

// Begin writes down that the effect begins. It must not begin where this fails.
func (p *Pass) Begin() error {
	if err := p.write(line{Event: "begun", Token: p.token, Holder: p.holder()}); err != nil {
		return err
	}
	p.receipt.begun++
	return nil
}

// Close writes the outcome down, for good, and leaves. Where it fails the outcome is not
// decided: the caller leaves it to whoever enters next.
func (p *Pass) Close(outcome, reason string) error {
	defer p.Leave()
	err := p.write(line{Event: "closed", Token: p.token, Holder: p.gate.self, Outcome: outcome, Reason: reason})
	p.inside = p.inside && err != nil
	return err
}

// Leave ends the pass without an outcome. It may be called again.
//
// It takes its name off first. Whoever comes next holds the lock for a moment before its
// own name stands there, and a name that is left standing would meanwhile be taken for a
// holder that has overstayed, and be ended: see End.
func (p *Pass) Leave() {
	if p.targets != nil {
		p.targets.Release()
	}
	if p.file != nil && p.inside {
		_ = p.write(line{Event: "left", Token: p.token, Holder: p.gate.self})
	}
	if p.file != nil {
		p.file.Close()
	}
	p.file, p.targets, p.inside = nil, nil, false
}

func (p *Pass) write(l line) error {
	l.At = time.Now()
	raw := l.encode()
	_, err := p.file.WriteAt(raw, p.size)
	if err == nil && p.step.Durable {
		err = p.sync()
	}
	if err != nil {
		p.inside = false // what stands there may be whole all the same: nothing may be written over it
		return fmt.Errorf("receipt of %s: %w", p.step.Key, err)
	}
	p.size += int64(len(raw))
	return nil
}

// sync makes the receipt outlive a power cut, and with its first line its name as well.
func (p *Pass) sync() error {
	if err := p.file.Sync(); err != nil || p.size > 0 || runtime.GOOS == "windows" { // which syncs no folders
		return err
	}
	dir, err := p.gate.folder(p.step).steps.Open(".")
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

func (g *Gate) folder(s Step) *folder {
	if s.Durable && g.state != nil {
		return g.state
	}
	return g.run
}
