package gate

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"

	"riposte/playbook/action"
)

const (
	// maxClaims is how many claims a target keeps, see crowded. Whoever floods a host with alerts
	// about one address must not make every block of it slower.
	maxClaims     = 1000
	maxClaimBytes = 8 << 20 // of a file; far more than maxClaims take
	unfinished    = ".new"  // ending of a file that is being written
)

// claimFile is the file of one target. It names the target, because its own name is a hash.
type claimFile struct {
	Target string         `json:"target"`
	Claims []action.Claim `json:"claims"`
}

// Hold is a set of locked targets.
type Hold struct {
	gate  *Gate
	names []string
	files []*os.File // locked; a finalised os.File would drop its lock, so it is referenced here
}

var _ action.Held = (*Hold)(nil)

// hold locks targets in sorted order, without waiting, and leaves word of who has them.
func (g *Gate) hold(targets []string, l line) (*Hold, error) {
	h := &Hold{gate: g, names: slices.Compact(slices.Sorted(slices.Values(targets)))}
	for _, t := range h.names {
		f, err := lock(g.run.targets, t)
		if err != nil {
			h.Release()
			return nil, err
		}
		h.files = append(h.files, f)
		err = f.Truncate(0)
		if err == nil {
			_, err = f.WriteAt(l.encode(), 0)
		}
		if err != nil {
			h.Release()
			return nil, fmt.Errorf("target %s: %w", t, err)
		}
	}
	return h, nil
}

// TryHold locks targets outside any step, for what is done about all of a host's claims. ok
// is false where somebody else has one of them. within is how long the caller means to hold
// them, at most: after that it counts as stuck.
func (g *Gate) TryHold(within time.Duration, targets ...string) (held action.Held, ok bool, err error) {
	holder := g.self
	holder.Until = time.Now().Add(within)
	h, err := g.hold(targets, line{Event: "entered", Holder: holder, At: time.Now()})
	if busy := (*BusyError)(nil); errors.As(err, &busy) {
		return nil, false, nil
	}
	if err != nil {
		return nil, false, err
	}
	return h, true, nil
}

// Release lets go of the targets. It may be called again.
//
// The name is taken off first: see Pass.Leave.
func (h *Hold) Release() {
	for _, f := range h.files {
		_ = f.Truncate(0)
		f.Close()
	}
	h.files = nil
}

// Locks implements action.Held.
func (h *Hold) Locks() []*os.File { return h.files }

// Claims are the claims on the targets of a step. They can be read and written for as long
// as the pass is inside.
func (p *Pass) Claims() action.Claims {
	if p.targets == nil {
		return &Hold{gate: p.gate}
	}
	return p.targets
}

// List implements action.Claims.
func (h *Hold) List(target string) ([]action.Claim, error) {
	if err := h.holds(target); err != nil {
		return nil, err
	}
	return h.gate.readClaims(hash(target), target)
}

// Put implements action.Claims. Beyond maxClaims it forgets others.
func (h *Hold) Put(target string, c action.Claim) error {
	if c.Key == "" {
		return fmt.Errorf("claims on %s: a claim without a step", target)
	}
	list, err := h.List(target)
	if err != nil {
		return err
	}
	list = slices.DeleteFunc(list, func(old action.Claim) bool { return old.Key == c.Key })
	for len(list) >= maxClaims {
		i := crowded(list)
		list = slices.Delete(list, i, i+1)
	}
	return h.gate.writeClaims(target, append(list, c), !c.Begun)
}

// crowded is the claim to forget first: of those for the addresses that most claims are for, the one
// that ends first, so that a flood about one address costs none of its neighbours their claims.
// What is over goes before all others.
func crowded(list []action.Claim) int {
	now, count := time.Now(), make(map[string]int)
	crowd := func(c action.Claim) int {
		if c.Left(now) <= 0 {
			return len(list) + 1
		}
		return count[fmt.Sprint(c.Nets)]
	}
	for _, c := range list {
		count[fmt.Sprint(c.Nets)]++
	}
	first := 0
	for i, c := range list {
		if more := cmp.Compare(crowd(c), crowd(list[first])); more > 0 || more == 0 && c.Until.Before(list[first].Until) {
			first = i
		}
	}
	return first
}

// Drop implements action.Claims.
func (h *Hold) Drop(target string, keys ...string) error {
	list, err := h.List(target)
	if err != nil {
		return err
	}
	rest := slices.DeleteFunc(slices.Clone(list), func(c action.Claim) bool { return slices.Contains(keys, c.Key) })
	if len(rest) == len(list) {
		return nil
	}
	return h.gate.writeClaims(target, rest, true)
}

func (h *Hold) holds(target string) error {
	if fenced && (!slices.Contains(h.names, target) || len(h.files) != len(h.names)) {
		return fmt.Errorf("claims on %s: its lock is not held", target)
	}
	return nil
}

// Claimed returns the claims on all targets as they stand now, without any lock.
func (g *Gate) Claimed() (map[string][]action.Claim, error) {
	dir, err := g.claims().Open(".")
	if err != nil {
		return nil, fmt.Errorf("claims: %w", err)
	}
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return nil, fmt.Errorf("claims: %w", err)
	}
	all := make(map[string][]action.Claim)
	var errs []error
	for _, name := range names {
		if strings.HasSuffix(name, unfinished) {
			continue
		}
		file, err := g.readClaimFile(name)
		if err != nil { // one that cannot be read must not keep all the others
			errs = append(errs, err)
		} else if len(file.Claims) > 0 {
			all[file.Target] = file.Claims
		}
	}
	return all, errors.Join(errs...)
}

func (g *Gate) readClaims(name, target string) ([]action.Claim, error) {
	file, err := g.readClaimFile(name)
	if err != nil {
		return nil, fmt.Errorf("claims on %s: %w", target, err)
	}
	return file.Claims, nil
}

func (g *Gate) readClaimFile(name string) (claimFile, error) {
	f, err := g.claims().Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return claimFile{}, nil
	}
	if err != nil {
		return claimFile{}, err
	}
	defer f.Close()
	raw, err := io.ReadAll(io.LimitReader(f, maxClaimBytes+1))
	if err != nil {
		return claimFile{}, err
	}
	file, err := parseClaims(name, raw)
	if err != nil {
		return claimFile{}, fmt.Errorf("%s/%s: %w; remove it, and nothing is put back for the steps in it, nor do they count when another is undone", g.claims().Name(), name, err)
	}
	return file, nil
}

// parseClaims reads the file of a target.
func parseClaims(name string, raw []byte) (file claimFile, err error) {
	if len(raw) > maxClaimBytes {
		return claimFile{}, fmt.Errorf("more than %d bytes", maxClaimBytes)
	}
	if err := json.Unmarshal(raw, &file); err != nil {
		return claimFile{}, err
	}
	if hash(file.Target) != name {
		return claimFile{}, fmt.Errorf("it is about %.80q, whose file has another name", file.Target)
	}
	for _, c := range file.Claims {
		if c.Key == "" || c.Made < 0 || c.Until.IsZero() {
			return claimFile{}, fmt.Errorf("a claim that lacks its step or its time: %+v", c)
		}
	}
	slices.SortFunc(file.Claims, func(a, b action.Claim) int { return strings.Compare(a.Key, b.Key) })
	return file, nil
}

// writeClaims writes the file of a target aside and renames it: whoever reads meets the old
// claims or the new ones. Where it is to outlive a power cut its name is synced too. A
// target without claims has no file.
func (g *Gate) writeClaims(target string, list []action.Claim, synced bool) error {
	name := hash(target)
	err := func() error {
		if len(list) == 0 {
			if err := g.claims().Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
			return g.syncClaims()
		}
		raw, err := json.Marshal(claimFile{target, list})
		if err != nil {
			return err
		}
		f, err := g.claims().OpenFile(name+unfinished, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
		if err != nil {
			return err
		}
		_, err = f.Write(raw)
		// Always: a name that a power cut left with nothing behind it would hide the other claims.
		if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
			return err
		}
		if err := g.claims().Rename(name+unfinished, name); err != nil || !synced {
			return err
		}
		return g.syncClaims()
	}()
	if err != nil {
		return fmt.Errorf("claims on %s: %w", target, err)
	}
	return nil
}

func (g *Gate) syncClaims() error {
	if runtime.GOOS == "windows" { // which syncs no folders
		return nil
	}
	dir, err := g.claims().Open(".")
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

// claims is the folder of the claims: the one that outlives a reboot, where there is one.
func (g *Gate) claims() *os.Root {
	if g.state != nil {
		return g.state.claims
	}
	return g.run.claims
}
