package gate

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"riposte/playbook/action"
)

func claimOf(key string, left time.Duration) action.Claim {
	return action.Claim{Key: key, AlertID: key, Backend: "nftables", Made: action.Duration(24 * time.Hour), Until: time.Now().Add(left).UTC()}
}

func keys(t *testing.T, c action.Claims, target string) string {
	t.Helper()
	list, err := c.List(target)
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, c := range list {
		all = append(all, c.Key)
	}
	return strings.Join(all, " ")
}

func TestClaims(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	g := h.open("h-1-own")
	step := Step{Key: "one", Targets: []string{"ip:a", "ip:b"}, Within: time.Minute}
	pass := h.enter(g, step, Token{10, "n"})
	c := pass.Claims()
	if got := keys(t, c, "ip:a"); got != "" {
		t.Errorf("claims before there are any: %s", got)
	}
	for _, claim := range []action.Claim{claimOf("b", time.Hour), claimOf("a", time.Hour), claimOf("gone", -time.Second), claimOf("b", 2*time.Hour)} {
		if err := c.Put("ip:a", claim); err != nil {
			t.Fatal(err)
		}
	}
	// What is over stays until somebody has told of it.
	if got := keys(t, c, "ip:a"); got != "a b gone" {
		t.Errorf("claims of %s", got)
	}
	if err := c.Drop("ip:a", "gone"); err != nil {
		t.Error(err)
	}
	if got := keys(t, c, "ip:b"); got != "" {
		t.Errorf("claims on another target: %s", got)
	}
	if err := c.Drop("ip:b", "a"); err != nil {
		t.Error(err)
	}
	if err := c.Put("ip:a", action.Claim{}); err == nil {
		t.Error("a claim of nobody was taken")
	}
	// Only under the lock: another target's, and one's own when it is given back.
	if _, err := c.List("ip:c"); err == nil {
		t.Error("claims read without the lock")
	}
	if err := c.Put("ip:c", claimOf("a", time.Hour)); err == nil {
		t.Error("claims written without the lock")
	}
	if held, ok, err := g.TryHold(time.Minute, "ip:b"); ok || err != nil {
		t.Errorf("held twice: %v, %v", held, err)
	}
	pass.Leave()
	if _, err := c.List("ip:a"); err == nil {
		t.Error("claims read after the lock was given back")
	}
	if err := c.Drop("ip:a", "a"); err == nil {
		t.Error("claims dropped after the lock was given back")
	}

	// They outlive a reboot, which empties the runtime folder.
	if err := os.RemoveAll(h.run); err != nil {
		t.Fatal(err)
	}
	g = h.open("h-2-own")
	all, err := g.Claimed()
	if err != nil || len(all) != 1 || len(all["ip:a"]) != 2 || all["ip:a"][1].Left(time.Now()) < time.Hour {
		t.Errorf("after a reboot: %v, %v", all, err)
	}
	held, ok, err := g.TryHold(time.Minute, "ip:b", "ip:a")
	if err != nil || !ok || len(held.Locks()) != 2 {
		t.Fatalf("%v, %v", ok, err)
	}
	h.busy(g, step, Token{later(), "m"})
	if err := held.Drop("ip:a", "b", "no such"); err != nil || keys(t, held, "ip:a") != "a" {
		t.Errorf("after one was dropped: %s, %v", keys(t, held, "ip:a"), err)
	}
	if err := held.Drop("ip:a", "a"); err != nil {
		t.Error(err)
	}
	if all, err := g.Claimed(); err != nil || len(all) != 0 {
		t.Errorf("when all are dropped: %v, %v", all, err)
	}
	held.Release()
	held.Release()
	h.enter(g, step, Token{later(), "m"}).Leave()
	if left, err := filepath.Glob(filepath.Join(h.state, claimDir, "*")); err != nil || left != nil {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

func later() uint64 { return uint64(time.Now().UnixMicro()) }

// TestClaimsFlood has more ask for one target than are kept. What is over goes, then those for the
// addresses that most ask for, from the one that ends first; whoever asks now stays.
func TestClaimsFlood(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	pass := h.enter(h.open("h-1-own"), Step{Key: "one", Targets: []string{"t"}}, Token{10, "n"})
	c := pass.Claims()
	on := func(c action.Claim, net string) action.Claim {
		c.Nets = []netip.Prefix{netip.MustParsePrefix(net)}
		return c
	}
	file := claimFile{Target: "t", Claims: []action.Claim{
		on(claimOf("beside", 10*time.Minute), "198.51.100.8/32"), on(claimOf("around", 20*time.Minute), "198.51.100.0/24"),
		on(claimOf("over", -time.Minute), "198.51.100.9/32"),
	}}
	for i := len(file.Claims); i < maxClaims; i++ {
		file.Claims = append(file.Claims, on(claimOf(fmt.Sprint("k", i), time.Hour+time.Duration(i)*time.Second), "198.51.100.7/32"))
	}
	raw, _ := json.Marshal(file)
	if err := os.WriteFile(filepath.Join(h.state, claimDir, hash("t")), raw, 0o600); err != nil {
		t.Fatal(err)
	}
	all := strings.Fields("beside around over k3 k4 k5 now now2 now3")
	for i, want := range []string{"beside around k3 k4 k5 now", "beside around k3 k4 k5 now2", "beside around k4 k5 now2 now3"} {
		left := time.Minute // it is the one that ends first by now
		if i > 0 {
			left = 24 * time.Hour
		}
		if err := c.Put("t", on(claimOf(all[6+i], left), "198.51.100.7/32")); err != nil {
			t.Fatal(err)
		}
		list, err := c.List("t")
		if err != nil || len(list) != maxClaims {
			t.Errorf("%d claims, %v", len(list), err)
		}
		var got []string
		for _, key := range all {
			if slices.ContainsFunc(list, func(c action.Claim) bool { return c.Key == key }) {
				got = append(got, key)
			}
		}
		if strings.Join(got, " ") != want {
			t.Errorf("there are %v, want %s", got, want)
		}
	}
}

// TestClaimsTorn leaves what crashes and people leave.
func TestClaimsTorn(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	g := h.open("h-1-own")
	c := h.enter(g, Step{Key: "one", Targets: []string{"t", "u"}}, Token{10, "n"}).Claims()
	if err := c.Put("u", claimOf("a", time.Hour)); err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(h.state, claimDir)
	write := func(name, text string) {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(hash("t")+unfinished, `{"target":"t","cl`)
	if got := keys(t, c, "t"); got != "" {
		t.Errorf("claims of %s", got)
	}
	for _, text := range []string{"", "{", `{"target":"u"}`, `{"target":"t","claims":[{}]}`} {
		write(hash("t"), text)
		if err := c.Put("t", claimOf("a", time.Hour)); err == nil || !strings.Contains(err.Error(), "remove it") {
			t.Errorf("%q: %v", text, err)
		}
		// One that cannot be read does not hide the others.
		if all, err := g.Claimed(); err == nil || len(all["u"]) != 1 {
			t.Errorf("%q: %v, %v", text, all, err)
		}
	}
	if err := os.Remove(filepath.Join(dir, hash("t"))); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/etc/passwd", filepath.Join(dir, hash("t"))); err != nil {
		t.Fatal(err)
	}
	if _, err := c.List("t"); err == nil {
		t.Error("a link out of the folder was followed")
	}
}

// FuzzClaims wants claims that are complete and on the target that the file is named after.
func FuzzClaims(f *testing.F) {
	whole, err := json.Marshal(claimFile{"t", []action.Claim{claimOf("a", time.Hour)}})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(whole)
	f.Add(whole[:20])
	f.Add([]byte(`{"target":"u"}`))
	f.Add([]byte(`{"target":"t","claims":[{"key":"a","made":"-1s","until":"2026-01-01T00:00:00Z"}]}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		file, err := parseClaims(hash("t"), raw)
		if err != nil && (file.Target != "" || file.Claims != nil) {
			t.Errorf("%q: half a file with an error", raw)
		}
		for _, c := range file.Claims {
			if file.Target != "t" || c.Key == "" || c.Left(time.Now()) < 0 {
				t.Errorf("%q: %+v", raw, file)
			}
		}
	})
}
