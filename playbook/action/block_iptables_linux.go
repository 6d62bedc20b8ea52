package action

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// iptables blocks by rules in a chain of its own, RIPOSTE, to which INPUT and OUTPUT jump
// first of all: a rule before the jump could accept what the chain would drop. iptables
// knows no timeout, so each rule says in its comment when it expires, and SweepExpired
// removes it; nothing else needs to be remembered.
type iptables struct{ locks []*os.File }

const iptablesChain = "RIPOSTE"

// ipRule is one rule of the chain: one direction of a block.
type ipRule struct {
	Match   string // -s, on the way in, or -d, on the way out
	What    netip.Prefix
	AlertID string
	Made    time.Duration // whole seconds
	Until   int64         // Unix seconds
}

func (r ipRule) argv() []string {
	comment := fmt.Sprintf("riposte/%s/%ds/%d", r.AlertID, int64(r.Made/time.Second), r.Until)
	return []string{r.Match, r.What.String(),
		"-m", "comment", "--comment", comment, "-j", "DROP"}
}

var commentForm = regexp.MustCompile(`^riposte/([A-Za-z0-9._:~-]{1,200})/([0-9]{1,5})s/([0-9]{1,12})$`)

// parseRule reads back a line of `iptables -S`. ok is false for every other line.
func parseRule(line string) (r ipRule, ok bool) {
	f := strings.Fields(line)
	if len(f) != 10 || f[0] != "-A" || f[1] != iptablesChain || f[2] != "-s" && f[2] != "-d" {
		return r, false
	}
	prefix, err := netip.ParsePrefix(f[3])
	if err != nil || prefix != prefix.Masked() {
		return r, false
	}
	comment := commentForm.FindStringSubmatch(strings.Trim(f[7], `"`))
	if comment == nil {
		return r, false
	}
	made, _ := strconv.ParseInt(comment[2], 10, 64) // the pattern keeps them in range
	until, _ := strconv.ParseInt(comment[3], 10, 64)
	r = ipRule{f[2], prefix, comment[1], time.Duration(made) * time.Second, until}
	return r, slices.Equal(append(f[4:7:7], f[8:]...), []string{"-m", "comment", "--comment", "-j", "DROP"})
}

// ipRuleset is what `iptables -S` says that concerns Riposte.
type ipRuleset struct {
	chain bool            // the chain exists
	first map[string]bool // by INPUT and OUTPUT: the jump is its first rule
	rules []ipRule
}

func parseRuleset(listing string) ipRuleset {
	set := ipRuleset{first: make(map[string]bool)}
	seen := make(map[string]bool)
	for line := range strings.Lines(listing) {
		line = strings.TrimSpace(line)
		f := strings.Fields(line)
		if len(f) >= 2 && f[0] == "-N" && f[1] == iptablesChain {
			set.chain = true
		}
		if len(f) >= 2 && f[0] == "-A" && !seen[f[1]] {
			seen[f[1]] = true
			set.first[f[1]] = slices.Equal(f[2:], []string{"-j", iptablesChain})
		}
		if r, ok := parseRule(line); ok {
			set.rules = append(set.rules, r)
		}
	}
	return set
}

// standing is a block of just these addresses: as long as its shorter direction.
func (s ipRuleset) standing(what netip.Prefix, now time.Time) standing {
	if !s.first["INPUT"] || !s.first["OUTPUT"] {
		return standing{}
	}
	in, out := s.longest("-s", what, now), s.longest("-d", what, now)
	if in.Left < out.Left {
		return in
	}
	return out
}

// longest is the rule of one direction that stands longest.
func (s ipRuleset) longest(match string, what netip.Prefix, now time.Time) (best standing) {
	for _, r := range s.rules {
		if left := time.Unix(r.Until, 0).Sub(now); r.Match == match && r.What == what && left > best.Left {
			best = standing{r.AlertID, r.Made, left}
		}
	}
	return best
}

func (t iptables) list(ctx context.Context, tool string) (ipRuleset, error) {
	out, err := t.run(ctx, tool, "-S")
	return parseRuleset(out), err
}

func (t iptables) standing(ctx context.Context, what netip.Prefix) (standing, error) {
	set, err := t.list(ctx, toolOf(what))
	return set.standing(what, time.Now()), err
}

func (t iptables) block(ctx context.Context, what netip.Prefix, asked []piece) error {
	tool, s := toolOf(what), longest(asked)
	before, err := t.list(ctx, tool)
	if err != nil {
		return err
	}
	if err := t.prepare(ctx, tool, before); err != nil {
		return err
	}
	// A second more, because the end is written in whole ones.
	until := time.Now().Add(s.Left + time.Second - 1).Unix()
	for _, match := range []string{"-s", "-d"} {
		if slices.ContainsFunc(before.rules, func(r ipRule) bool {
			return r.Match == match && r.What == what && r.Until >= until
		}) {
			continue
		}
		if err := t.add(ctx, tool, ipRule{match, what, s.AlertID, s.Made, until}); err != nil {
			return err
		}
	}
	for _, r := range before.rules {
		if r.What == what && r.Until < until {
			if err := t.remove(ctx, tool, r); err != nil {
				return err
			}
		}
	}
	return nil
}

// survey lists the rules of each family once, when it is first asked about.
func (t iptables) survey(context.Context) (survey, error) {
	sets := make(map[string]*ipRuleset)
	return func(ctx context.Context, what netip.Prefix) (standing, error) {
		tool := toolOf(what)
		if sets[tool] == nil {
			set, err := t.list(ctx, tool)
			if err != nil {
				return standing{}, err
			}
			sets[tool] = &set
		}
		return sets[tool].standing(what, time.Now()), nil
	}, nil
}

// longest is what one pair of rules must do, as each network has its own.
func longest(asked []piece) (s standing) {
	for _, p := range asked {
		if p.Left > s.Left {
			s = p.standing
		}
	}
	return s
}

func (t iptables) entries(ctx context.Context, what netip.Prefix) ([]piece, error) {
	set, err := t.list(ctx, toolOf(what))
	s, out := set.longest("-s", what, time.Now()), set.longest("-d", what, time.Now())
	if out.Left >= s.Left {
		s = out
	}
	if s.Left <= 0 {
		return nil, err
	}
	return []piece{asPiece(what, s)}, err
}

// shorten adds the rules that end earlier before it removes the others: the addresses are
// blocked all the while.
func (t iptables) shorten(ctx context.Context, what netip.Prefix, stay []piece) error {
	tool, s := toolOf(what), longest(stay)
	before, err := t.list(ctx, tool)
	if err != nil {
		return err
	}
	var keep []ipRule
	if s.Left > 0 && slices.ContainsFunc(before.rules, func(r ipRule) bool { return r.What == what }) {
		until := time.Now().Add(s.Left + time.Second - 1).Unix()
		for _, match := range []string{"-s", "-d"} {
			rule := ipRule{match, what, s.AlertID, s.Made, until}
			keep = append(keep, rule)
			if slices.Contains(before.rules, rule) {
				continue
			}
			if err := t.add(ctx, tool, rule); err != nil {
				return err
			}
		}
	}
	for _, r := range before.rules {
		if r.What == what && !slices.Contains(keep, r) {
			if err := t.remove(ctx, tool, r); err != nil {
				return err
			}
		}
	}
	return nil
}

func (t iptables) add(ctx context.Context, tool string, r ipRule) error {
	rule := r.argv()
	if !commentForm.MatchString(rule[5]) {
		return fmt.Errorf("alert ID %q does not fit into a comment", clip(r.AlertID, 80))
	}
	_, err := t.run(ctx, tool, append([]string{"-A", iptablesChain}, rule...)...)
	return err
}

// prepare makes the chain, and puts the jumps first.
func (t iptables) prepare(ctx context.Context, tool string, set ipRuleset) error {
	if !set.chain {
		if _, err := t.run(ctx, tool, "-N", iptablesChain); err != nil {
			return err
		}
	}
	jump := []string{"-j", iptablesChain}
	for _, hook := range []string{"INPUT", "OUTPUT"} {
		if set.first[hook] {
			continue
		}
		there, err := t.check(ctx, tool, hook, jump)
		if err != nil {
			return err
		}
		if there { // but not first
			if _, err := t.run(ctx, tool, append([]string{"-D", hook}, jump...)...); err != nil {
				return err
			}
		}
		if _, err := t.run(ctx, tool, append([]string{"-I", hook}, jump...)...); err != nil {
			return err
		}
	}
	return nil
}

// check says whether a chain has a rule.
func (t iptables) check(ctx context.Context, tool, chain string, rule []string) (bool, error) {
	_, err := t.run(ctx, tool, append([]string{"-C", chain}, rule...)...)
	if failed := (*toolError)(nil); errors.As(err, &failed) && failed.exit == 1 {
		return false, nil
	}
	return err == nil, err
}

// remove removes a rule that somebody else may have removed meanwhile.
func (t iptables) remove(ctx context.Context, tool string, r ipRule) error {
	_, err := t.run(ctx, tool, append([]string{"-D", iptablesChain}, r.argv()...)...)
	if err == nil {
		return nil
	}
	if there, again := t.check(ctx, tool, iptablesChain, r.argv()); again == nil && !there {
		return nil
	}
	return err
}

// run runs one command, waiting for the lock that iptables commands take among them.
func (t iptables) run(ctx context.Context, tool string, args ...string) (string, error) {
	return runTool(ctx, t.locks, append([]string{tool, "-w"}, args...))
}

func toolOf(what netip.Prefix) string {
	if what.Addr().Is4() {
		return "iptables"
	}
	return "ip6tables"
}

// SweepExpired removes the rules of the iptables backend whose time is over and says how
// many they were: two a block. It does nothing where iptables is not installed, where nothing
// was ever blocked with it, or where this process may not use it. Several may sweep at once. A responder that uses the backend
// calls it at its start and then every few seconds: a block outlives its time by that.
func SweepExpired(ctx context.Context) (removed int, err error) {
	if missing, err := Missing(iptablesNeeds); err != nil || len(missing) > 0 {
		return 0, err
	}
	var t iptables
	for _, tool := range []string{"iptables", "ip6tables"} {
		set, failed := t.list(ctx, tool)
		if errors.Is(failed, exec.ErrNotFound) {
			continue
		}
		err = errors.Join(err, failed)
		for _, r := range set.rules {
			if time.Now().Unix() < r.Until {
				continue
			}
			if failed := t.remove(ctx, tool, r); failed != nil {
				err = errors.Join(err, failed)
				continue
			}
			removed++
		}
	}
	if err != nil {
		return removed, fmt.Errorf("remove expired blocks: %w", err)
	}
	return removed, nil
}
