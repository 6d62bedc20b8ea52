package action_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"riposte/playbook/action"
	"riposte/playbook/gate"
	"riposte/playbook/guard"
	"riposte/test/need"
)

// site is a host's gate, which outlives whoever is inside it.
type site struct {
	t     *testing.T
	gate  *gate.Gate
	epoch uint64
}

func newSite(t *testing.T) *site {
	t.Helper()
	dir := t.TempDir()
	return openSite(t, dir)
}

func openSite(t *testing.T, dir string) *site {
	t.Helper()
	g, err := gate.Open(filepath.Join(dir, "run"), filepath.Join(dir, "state"), fmt.Sprintf("h-%d-a", os.Getpid()), "containment")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { g.Close() })
	return &site{t: t, gate: g, epoch: uint64(time.Now().UnixMicro())}
}

func stepOf(alert string) string { return "h/g/" + alert + "/p/s" }

// inside runs f where an alert's step, named s, may touch the effect's targets.
func (s *site) inside(e action.Effect, alert string, f func(env action.Env)) {
	s.t.Helper()
	s.insideStep(e, alert, stepOf(alert), f)
}

func (s *site) insideStep(e action.Effect, alert, key string, f func(env action.Env)) {
	s.t.Helper()
	s.epoch++
	pass, err := s.gate.Enter(gate.Step{Key: key, Targets: e.Targets(), Within: time.Minute}, gate.Token{Epoch: s.epoch, Nonce: "n"})
	if err != nil {
		s.t.Fatal(err)
	}
	defer pass.Leave()
	f(action.Env{Guard: &guard.Floor{}, Key: key, AlertID: alert, Claims: pass.Claims(), Locks: pass.Locks()})
}

// apply carries an effect out and wants it to be in place afterwards, with this outcome.
func (s *site) apply(e action.Effect, alert string, want action.Outcome) {
	s.t.Helper()
	s.inside(e, alert, func(env action.Env) { s.check(e, env, want) })
}

func (s *site) check(e action.Effect, env action.Env, want action.Outcome) {
	s.t.Helper()
	if r := apply(s.t, e, env); r.Outcome != want {
		s.t.Errorf("%s for %s: got %v, want %s", e.Describe(), env.AlertID, r, want)
	}
	if r, inPlace, err := e.Probe(s.t.Context(), env); err != nil || !inPlace || r.Outcome != want {
		s.t.Errorf("probe of %s for %s: got %v, %t, %v, want %s", e.Describe(), env.AlertID, r, inPlace, err, want)
	}
}

func (s *site) inPlace(e action.Effect, alert string) (r action.Receipt, ok bool) {
	s.t.Helper()
	s.inside(e, alert, func(env action.Env) {
		var err error
		if r, ok, err = e.Probe(s.t.Context(), env); err != nil {
			s.t.Fatal(err)
		}
	})
	return r, ok
}

// claimed lists the alerts that claim a target, those that do not count yet with a question
// mark.
func (s *site) claimed(target string) string {
	s.t.Helper()
	all, err := s.gate.Claimed()
	if err != nil {
		s.t.Fatal(err)
	}
	var list []string
	for _, c := range all[target] {
		name := c.AlertID
		if c.Begun {
			name += "?"
		}
		list = append(list, name)
	}
	return strings.Join(list, " ")
}

var backends = []string{action.NFTables, action.IPTables}

func needFirewalls(t *testing.T) {
	t.Helper()
	need.Binary(t, "nft")
	need.Binary(t, "iptables")
	command(t, "nft", "flush", "ruleset")
}

// TestBlockClaims has several alerts ask for one address.
func TestBlockClaims(t *testing.T) {
	if !inside(t) {
		return
	}
	for _, backend := range backends {
		t.Run(backend, func(t *testing.T) {
			needFirewalls(t)
			s := newSite(t)
			const address, target = "198.51.100.2", "address/198.51.100.0/24"
			if _, ok := s.inPlace(block(backend, address, time.Hour), "a"); ok {
				t.Error("in place before")
			}
			s.apply(block(backend, address, time.Hour), "a", action.Blocked)
			// It stands for as long as b asks, but b has not asked yet.
			if r, ok := s.inPlace(block(backend, address, time.Minute), "b"); ok {
				t.Errorf("in place without a claim: %v", r)
			}
			s.apply(block(backend, address, time.Minute), "b", action.AlreadyBlocked)
			s.apply(block(backend, address, 2*time.Hour), "c", action.Blocked)
			s.apply(block(backend, address, time.Hour), "a", action.AlreadyBlocked)
			if got := s.claimed(target); got != "a b c" {
				t.Errorf("claims of %q", got)
			}
			// One that is asked for longer is not in place, though it was for less.
			if r, ok := s.inPlace(block(backend, address, 2*time.Hour), "a"); ok {
				t.Errorf("in place for less: %v", r)
			}
			// The firewall is emptied: whoever comes next makes it stand for the longest of them.
			command(t, "nft", "flush", "ruleset")
			if r, ok := s.inPlace(block(backend, address, time.Hour), "a"); ok {
				t.Errorf("in place in an empty firewall: %v", r)
			}
			s.apply(block(backend, address, time.Minute), "b", action.AlreadyBlocked)
			stands(t, backend, "198.51.100.2", "c", 2*time.Hour)
		})
	}
}

// TestBlockTwice has one alert ask for one address in two steps. Each of them has a claim.
func TestBlockTwice(t *testing.T) {
	if !inside(t) {
		return
	}
	needFirewalls(t)
	s := newSite(t)
	b := block(action.NFTables, "198.51.100.2", time.Hour)
	for _, step := range []string{"one", "two"} {
		s.insideStep(b, "a", "h/g/a/p/"+step, func(env action.Env) { s.check(b, env, action.Blocked) })
	}
	if got := s.claimed("address/198.51.100.0/24"); got != "a a" {
		t.Errorf("claims of %q", got)
	}
}

// TestBlockKilled kills a process at the worst moments: when the claim is written and the
// firewall not yet changed, and when it is changed and the claim does not count yet.
func TestBlockKilled(t *testing.T) {
	dir := os.Getenv("RIPOSTE_TEST_SITE")
	if at := os.Getenv(helperEnv); at != "" {
		s := openSite(t, dir)
		b := block(action.NFTables, "198.51.100.2", time.Hour)
		s.inside(b, "a", func(env action.Env) {
			puts := map[string]int{"claimed": 1, "blocked": 2}[at]
			env.Claims = &mortalClaims{Claims: env.Claims, puts: puts, after: at == "claimed"}
			b.Apply(t.Context(), env)
		})
		t.Fatal("it has survived")
	}
	if !inside(t) {
		return
	}
	for at, stands := range map[string]bool{"claimed": false, "blocked": true} {
		t.Run(at, func(t *testing.T) {
			needFirewalls(t)
			dir := t.TempDir()
			killed(t, "TestBlockKilled", at, "RIPOSTE_TEST_SITE="+dir)
			s := openSite(t, dir)
			if got := s.claimed("address/198.51.100.0/24"); got != "a?" {
				t.Errorf("left behind: claims of %q", got)
			}
			if rules := dump(t, action.NFTables); strings.Contains(rules, "expires") != stands {
				t.Errorf("left behind:\n%s", rules)
			}
			b := block(action.NFTables, "198.51.100.2", time.Hour)
			if r, ok := s.inPlace(b, "a"); ok {
				t.Errorf("in place with a claim that does not count: %v", r)
			}
			s.apply(b, "a", action.Blocked)
			if got := s.claimed("address/198.51.100.0/24"); got != "a" {
				t.Errorf("completed: claims of %q", got)
			}
			if rules := dump(t, action.NFTables); strings.Count(rules, "expires") != 1 {
				t.Errorf("completed:\n%s", rules)
			}
		})
	}
}

// stands wants exactly one block of an address in the firewall, in the name of an alert and
// with about so much time left; or none, where the alert is empty.
func stands(t *testing.T, backend, address, alert string, left time.Duration) {
	t.Helper()
	rules := dump(t, backend)
	var got []string
	if backend == action.NFTables {
		for _, m := range nftEntry.FindAllStringSubmatch(rules, -1) {
			if m[1] != address {
				continue
			}
			expires, err := time.ParseDuration(m[2])
			if err != nil {
				t.Fatal(m, err)
			}
			got = append(got, entry(m[3], expires))
		}
	} else {
		for _, m := range ruleEntry.FindAllStringSubmatch(rules, -1) {
			if m[2] != address {
				continue
			}
			end, err := strconv.ParseInt(m[4], 10, 64)
			if err != nil {
				t.Fatal(m, err)
			}
			if m[1] == "s" { // the other is its twin on the way out
				got = append(got, entry(m[3], time.Until(time.Unix(end, 0))))
			}
		}
	}
	want := ""
	if alert != "" {
		want = entry(alert, left)
	}
	if strings.Join(got, ", ") != want {
		t.Errorf("%s: %q stand in the firewall, want %q:\n%s", address, got, want, rules)
	}
}

var (
	nftEntry       = regexp.MustCompile(`([0-9a-f.:/-]+) timeout \S+ expires ([0-9hms]+) comment "([^"]*)"`)
	isolationEntry = regexp.MustCompile(`ipv[46] timeout \S+ expires ([0-9hms]+) comment "([^"]*)"`)
	ruleEntry      = regexp.MustCompile(`-([sd]) (\S+?)(?:/32|/128)? -m comment --comment "?riposte/([^/]+)/[0-9]+s/([0-9]+)`)
)

// entry names an alert and the time left, to ten seconds.
func entry(alert string, left time.Duration) string {
	return fmt.Sprintf("%s for %s", alert, left.Round(10*time.Second))
}

// killed runs a test of this binary again in a process that is to kill itself.
func killed(t *testing.T, test, role string, environ ...string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "/proc/self/exe", "-test.run=^"+test+"$", "-test.v")
	cmd.Env = append(append(os.Environ(), helperEnv+"="+role), environ...)
	out, err := cmd.CombinedOutput()
	if exit := (*exec.ExitError)(nil); !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
		t.Fatalf("it was not killed: %v\n%s", err, out)
	}
}

func die() {
	syscall.Kill(os.Getpid(), syscall.SIGKILL)
	select {}
}

// mortalClaims are claims whose writer dies before or after he has put so many down.
type mortalClaims struct {
	action.Claims
	puts  int
	after bool
}

func (m *mortalClaims) Put(target string, c action.Claim) error {
	m.puts--
	if m.puts == 0 && !m.after {
		die()
	}
	err := m.Claims.Put(target, c)
	if m.puts == 0 {
		die()
	}
	return err
}

// targetOf is what blocks of an address take turns at.
func targetOf(address string) string {
	return (&action.BlockIP{Addresses: []string{address}}).Targets()[0]
}

// claimedOn lists the alerts that claim an address or network itself.
func (s *site) claimedOn(address string) string {
	s.t.Helper()
	all, err := s.gate.Claimed()
	if err != nil {
		s.t.Fatal(err)
	}
	var list []string
	for _, c := range all[targetOf(address)] {
		for _, what := range c.Nets {
			if what.String() == address || what.IsSingleIP() && what.Addr().String() == address {
				list = append(list, c.AlertID)
			}
		}
	}
	return strings.Join(list, " ")
}
