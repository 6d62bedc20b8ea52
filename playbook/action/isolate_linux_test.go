package action_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"riposte/playbook/action"
	"riposte/playbook/guard"
	"riposte/test/need"
)

// island is a host whose Redis is at the attacker's address, so that nothing but Redis may
// pass from there, and which a bystander manages.
type island struct {
	wire
	*site
	redis net.Listener
	allow string
	reach func(ctx context.Context) error
}

func newIsland(t *testing.T, own, redis, manager string) *island {
	t.Helper()
	need.Binary(t, "nft")
	command(t, "ip", "link", "set", "lo", "up")
	i := &island{wire: newWire(t, own, redis, manager), site: newSite(t), allow: manager}
	within(t, i.peer, func() { i.redis = listenTCP(t, redis) })
	i.reach = i.dial
	return i
}

func listenTCP(t *testing.T, addr string) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", net.JoinHostPort(addr, "0"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

// dial connects to Redis and has a word with it.
func (i *island) dial(ctx context.Context) error {
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", i.redis.Addr().String())
	if err != nil {
		return err
	}
	return conn.Close()
}

func (i *island) env(env action.Env) action.Env {
	peer := i.redis.Addr().(*net.TCPAddr).AddrPort().Addr()
	env.Guard = &guard.Floor{RedisPeers: func() []netip.Addr { return []netip.Addr{peer} }}
	env.Reach = i.reach
	return env
}

func (i *island) isolate(ttl time.Duration) *action.IsolateHost {
	return &action.IsolateHost{TTL: action.Duration(ttl), Let: action.Let{Allow: []string{i.allow}}}
}

func (i *island) do(e action.Effect, alert string, want action.Outcome) (r action.Receipt) {
	i.wire.t.Helper()
	i.insideStep(e, alert, stepOf(alert)+string(want), func(env action.Env) {
		env = i.env(env)
		i.check(e, env, want)
		r = apply(i.wire.t, e, env) // harmless
	})
	return r
}

// left is how long the kernel keeps the host isolated.
func (i *island) left(want string) {
	i.wire.t.Helper()
	rules := command(i.wire.t, "nft", "list", "ruleset")
	var got []string
	for _, m := range isolationEntry.FindAllStringSubmatch(rules, -1) {
		d, err := time.ParseDuration(m[1])
		if err != nil {
			i.wire.t.Fatal(m, err)
		}
		got = append(got, entry(m[2], d))
	}
	if s := strings.Join(got, ", "); want != "" && s != want+", "+want || want == "" && s != "" {
		i.wire.t.Errorf("%s; want twice %q:\n%s", s, want, rules)
	}
}

// TestIsolate looks at packets of both families.
func TestIsolate(t *testing.T) {
	if !inside(t) {
		return
	}
	for _, family := range [][3]string{
		{"198.51.100.1", "198.51.100.2", "198.51.100.3"},
		{"2001:db8::1", "2001:db8::2", "2001:db8::3"},
	} {
		t.Run(family[0], func(t *testing.T) {
			command(t, "nft", "flush", "ruleset")
			i := newIsland(t, family[0], family[1], family[2])
			own := listenTCP(t, family[0])
			standing, err := net.Dial("tcp", i.redis.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			defer standing.Close()
			far, err := i.redis.Accept()
			if err != nil {
				t.Fatal(err)
			}
			defer far.Close()
			i.wire.expect(false)

			if r := i.do(i.isolate(time.Hour), "a", action.Isolated); !strings.Contains(r.Reason, "1h more") {
				t.Errorf("got %v", r)
			}
			i.left(entry("a", time.Hour))
			i.wire.expect(true) // Redis' address is let through for Redis alone, and the manager for all
			// The connection that stood still does, in both directions.
			for _, pair := range [][2]net.Conn{{standing, far}, {far, standing}} {
				pair[1].SetReadDeadline(time.Now().Add(5 * time.Second))
				buf := make([]byte, 4)
				if _, err := pair[0].Write([]byte("ping")); err != nil {
					t.Error(err)
				}
				if _, err := pair[1].Read(buf); err != nil || string(buf) != "ping" {
					t.Errorf("%q, %v", buf, err)
				}
			}
			// Redis' host connects to nothing here, the manager to what he likes, the host to itself.
			if err := i.from(family[1], own); err == nil {
				t.Error("a connection came in from Redis' address")
			}
			if err := i.from(family[2], own); err != nil {
				t.Error(err)
			}
			if conn, err := net.Dial("tcp", own.Addr().String()); err != nil {
				t.Error(err)
			} else {
				conn.Close()
			}
			// Neighbours are still found.
			command(t, "ip", "neigh", "flush", "dev", "v0")
			if err := i.dial(t.Context()); err != nil {
				t.Error(err)
			}

			release := &action.ReleaseHost{}
			if r := i.do(release, "r", action.Released); !strings.Contains(r.Reason, "not isolated") {
				t.Errorf("got %v", r)
			}
			i.wire.expect(false)
			if rules := command(t, "nft", "list", "ruleset"); rules != "" {
				t.Errorf("left behind:\n%s", rules)
			}
		})
	}
}

// from connects from an address at the other end of the wire, for as long as a local
// connection may take.
func (i *island) from(address string, to net.Listener) (err error) {
	within(i.wire.t, i.peer, func() {
		d := net.Dialer{Timeout: 300 * time.Millisecond, LocalAddr: &net.TCPAddr{IP: net.ParseIP(address)}}
		var conn net.Conn
		if conn, err = d.Dial("tcp", to.Addr().String()); err == nil {
			conn.Close()
		}
	})
	return err
}

// TestIsolateUndone has two alerts isolate the host, and takes one of them back: each of
// them.
func TestIsolateUndone(t *testing.T) {
	if !inside(t) {
		return
	}
	for _, back := range []string{"short", "long"} {
		t.Run(back, func(t *testing.T) {
			command(t, "nft", "flush", "ruleset")
			i := newIsland(t, "198.51.100.1", "198.51.100.2", "198.51.100.3")
			ttl := map[string]time.Duration{"short": time.Hour, "long": 2 * time.Hour}
			other := map[string]string{"short": "long", "long": "short"}[back]
			i.do(i.isolate(ttl["short"]), "short", action.Isolated)
			without := i.isolate(ttl["long"])
			without.Allow = nil
			i.do(without, "long", action.Isolated)
			i.left(entry("long", ttl["long"]))
			i.wire.expect(true) // short's manager is let through for as long as it has a claim
			undo := func(alert string) {
				t.Helper()
				i.do(undoOf(t, i.isolate(ttl[alert])), alert, action.Released)
			}
			undo(back)
			i.left(entry(other, ttl[other]))
			if got := i.claimed("host/isolation"); got != other {
				t.Errorf("claims of %q", got)
			}
			if out := send(i.own, i.bystander, "hello") == nil; out != (other == "short") {
				t.Errorf("the manager is let through: %t", out)
			}
			undo(other)
			i.left("")
			i.wire.expect(false)
		})
	}
}

// TestIsolateHalfRemoved releases a host of whose isolation somebody has taken away a part: what
// is left of it still drops.
func TestIsolateHalfRemoved(t *testing.T) {
	if !inside(t) {
		return
	}
	for _, lose := range []string{
		"delete element inet riposte_isolation active { ipv6 }",
		"flush chain inet riposte_isolation input",
	} {
		for _, undo := range []bool{false, true} {
			t.Run(fmt.Sprint(lose, undo), func(t *testing.T) {
				command(t, "nft", "flush", "ruleset")
				i := newIsland(t, "198.51.100.1", "198.51.100.2", "198.51.100.3")
				i.do(i.isolate(time.Minute), "a", action.Isolated)
				command(t, "nft", lose)
				if send(i.own, i.attacker, "hello") == nil {
					t.Error("nothing is dropped any more")
				}
				if undo {
					i.do(undoOf(t, i.isolate(time.Minute)), "a", action.Released)
				} else {
					i.do(&action.ReleaseHost{}, "b", action.Released)
				}
				i.left("")
				i.wire.expect(false)
				if got := i.claimed("host/isolation"); got != "" {
					t.Errorf("claims of %q", got)
				}
			})
		}
	}
}

// TestIsolateNarrow has a link on the way to Redis that takes smaller packets than both ends do,
// which a router says when it comes to that.
func TestIsolateNarrow(t *testing.T) {
	if !inside(t) {
		return
	}
	for _, family := range [][6]string{
		{"198.51.100.1", "198.51.100.2", "198.51.100.3", "203.0.113.1", "203.0.113.2", "/24"},
		{"2001:db8::1", "2001:db8::2", "2001:db8::3", "2001:db8:1::1", "2001:db8:1::2", "/64"},
	} {
		t.Run(family[0], func(t *testing.T) {
			command(t, "nft", "flush", "ruleset")
			router, far, redis, bits := family[1], family[3], family[4], family[5]
			i := newIsland(t, family[0], router, family[2])
			behind := newNetwork(t)
			within(t, i.peer, func() {
				command(t, "ip", "link", "add", "r0", "mtu", "1280", "type", "veth", "peer", "name", "r1", "netns", fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), behind))
				command(t, "ip", "addr", "add", far+bits, "dev", "r0")
				command(t, "ip", "link", "set", "r0", "up")
				command(t, "sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward; echo 1 > /proc/sys/net/ipv6/conf/all/forwarding")
			})
			within(t, behind, func() {
				command(t, "ip", "addr", "add", redis+bits, "dev", "r1")
				command(t, "ip", "link", "set", "r1", "up")
				command(t, "ip", "route", "add", "default", "via", far)
				until(t, "the address may be used", func() bool {
					l, err := net.Listen("tcp", net.JoinHostPort(redis, "0"))
					i.redis = l
					return err == nil
				})
			})
			defer i.redis.Close()
			command(t, "ip", "route", "add", redis, "via", router)
			until(t, "Redis is reached", func() bool { return i.dial(t.Context()) == nil })

			i.do(i.isolate(time.Hour), "a", action.Isolated)
			conn, err := net.Dial("tcp", i.redis.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			conn.SetWriteDeadline(time.Now().Add(10 * time.Second)) // it hangs where too little fits
			if _, err := conn.Write(make([]byte, 100_000)); err != nil {
				t.Fatal(err)
			}
			for port := 0; port != conn.LocalAddr().(*net.TCPAddr).Port; {
				server, err := i.redis.Accept() // those before only looked whether it is there
				if err != nil {
					t.Fatal(err)
				}
				defer server.Close()
				if port = server.RemoteAddr().(*net.TCPAddr).Port; port != conn.LocalAddr().(*net.TCPAddr).Port {
					continue
				}
				server.SetReadDeadline(time.Now().Add(10 * time.Second))
				if n, err := io.ReadFull(server, make([]byte, 100_000)); err != nil {
					t.Errorf("%d bytes of 100000 have arrived: %v", n, err)
				}
			}
		})
	}
}

// TestIsolateUnreached cannot reach Redis from inside, and leaves things as they were.
func TestIsolateUnreached(t *testing.T) {
	if !inside(t) {
		return
	}
	command(t, "nft", "flush", "ruleset")
	i := newIsland(t, "198.51.100.1", "198.51.100.2", "198.51.100.3")
	unreached := func(alert string) {
		t.Helper()
		i.insideStep(i.isolate(2*time.Hour), alert, stepOf(alert), func(env action.Env) {
			env = i.env(env)
			// Redis is somewhere else than the guard thinks.
			env.Guard = &guard.Floor{}
			r, err := i.isolate(2*time.Hour).Apply(t.Context(), env)
			if err == nil || !strings.Contains(err.Error(), "lifted again: from inside, Redis cannot be reached") || r != (action.Receipt{}) {
				t.Errorf("got %v, %v", r, err)
			}
		})
	}
	unreached("a")
	i.left("")
	i.wire.expect(false)
	if got := i.claimed("host/isolation"); got != "" {
		t.Errorf("claims of %q", got)
	}
	i.do(i.isolate(time.Hour), "b", action.Isolated)
	unreached("a")
	i.left(entry("b", time.Hour))
	i.wire.expect(true)
	if got := i.claimed("host/isolation"); got != "b" {
		t.Errorf("claims of %q", got)
	}
}

// TestIsolateKilled kills the process that isolates before it has seen that Redis can be
// reached: the kernel ends the isolation, though nobody else is there to do it.
func TestIsolateKilled(t *testing.T) {
	if os.Getenv(helperEnv) != "" {
		s := openSite(t, os.Getenv("RIPOSTE_TEST_SITE"))
		e := &action.IsolateHost{TTL: action.Duration(time.Hour)}
		s.inside(e, "a", func(env action.Env) {
			env.Reach = func(context.Context) error { die(); return nil }
			e.Apply(t.Context(), env)
		})
		t.Fatal("it has survived")
	}
	if !inside(t) {
		return
	}
	command(t, "nft", "flush", "ruleset")
	i := newIsland(t, "198.51.100.1", "198.51.100.2", "198.51.100.3")
	dir := t.TempDir()
	killed(t, "TestIsolateKilled", "isolate", "RIPOSTE_TEST_SITE="+dir)
	i.site = openSite(t, dir)
	if send(i.own, i.bystander, "hello") == nil {
		t.Error("it was killed before it isolated")
	}
	i.insideStep(i.isolate(time.Hour), "a", stepOf("a"), func(env action.Env) {
		if r, inPlace, err := i.isolate(time.Hour).Probe(t.Context(), i.env(env)); inPlace || err != nil {
			t.Errorf("in place before its time: %v, %v", r, err)
		}
	})
	until(t, "the kernel ends it", func() bool { return send(i.own, i.bystander, "hello") == nil })
	i.receive(i.bystander)
	i.wire.expect(false)
	i.do(i.isolate(time.Hour), "a", action.Isolated) // by a successor
	i.left(entry("a", time.Hour))
	i.wire.expect(true)

	// Somebody lets something through before all the others: not in place.
	command(t, "nft", "insert", "rule", "inet", "riposte_isolation", "output", "accept")
	i.insideStep(i.isolate(time.Hour), "a", stepOf("a")+string(action.Isolated), func(env action.Env) {
		env = i.env(env)
		if r, inPlace, err := i.isolate(time.Hour).Probe(t.Context(), env); inPlace || err != nil {
			t.Errorf("in place with a hole: %v, %v", r, err)
		}
		i.check(i.isolate(time.Hour), env, action.Isolated)
	})
	i.wire.expect(true)
}

// TestIsolateAgain loses the firewall, and moves Redis.
func TestIsolateAgain(t *testing.T) {
	if !inside(t) {
		return
	}
	command(t, "nft", "flush", "ruleset")
	i := newIsland(t, "198.51.100.1", "198.51.100.2", "198.51.100.3")
	again := func(want int) error {
		t.Helper()
		n, err := action.Reassert(t.Context(), i.gate, i.env(action.Env{}))
		if n != want {
			t.Errorf("put back %d, %v; want %d", n, err, want)
		}
		return err
	}
	i.do(i.isolate(time.Hour), "short", action.Isolated)
	i.do(i.isolate(2*time.Hour), "long", action.Isolated)
	for _, lose := range []string{"flush ruleset", "insert rule inet riposte_isolation input accept", "flush chain inet riposte_isolation output"} {
		command(t, "nft", lose)
		if err := again(1); err != nil {
			t.Errorf("%s: %v", lose, err)
		}
		i.left(entry("long", 2*time.Hour))
		i.wire.expect(true)
		if err := again(0); err != nil {
			t.Error(err)
		}
	}
	// Redis moves to the manager's address, and is reached there.
	within(t, i.peer, func() { i.redis = listenTCP(t, "198.51.100.3") })
	if err := again(1); err != nil {
		t.Error(err)
	}
	// It moves to where nobody is: what cannot be reached from inside is not put back.
	i.reach = func(context.Context) error { return os.ErrDeadlineExceeded }
	command(t, "nft", "flush", "ruleset")
	if err := again(0); err == nil || !strings.Contains(err.Error(), "not put back") {
		t.Errorf("got %v", err)
	}
	i.wire.expect(false)
	i.reach = i.dial
	if err := again(1); err != nil {
		t.Error(err)
	}
	// Undone, it does not come back; and once its time is over its rules are cleared away.
	i.do(undoOf(t, i.isolate(2*time.Hour)), "long", action.Released)
	i.left(entry("short", time.Hour))
	i.insideStep(i.isolate(time.Hour), "over", "over", func(env action.Env) {
		c := action.Claim{Key: stepOf("short") + string(action.Isolated), AlertID: "short", Backend: action.NFTables, Made: action.Duration(time.Second), Until: time.Now().Add(time.Second)}
		if err := env.Claims.Put("host/isolation", c); err != nil {
			t.Fatal(err)
		}
	})
	command(t, "nft", "flush set inet riposte_isolation active")
	until(t, "its time is over", func() bool {
		if _, err := action.Reassert(t.Context(), i.gate, i.env(action.Env{})); err != nil {
			t.Log(err) // the claim has no word on whom it lets through
		}
		return i.claimed("host/isolation") == ""
	})
	if rules := command(t, "nft", "list", "ruleset"); rules != "" {
		t.Errorf("left behind:\n%s", rules)
	}
}

func TestIsolateRefused(t *testing.T) {
	if !inside(t) {
		return
	}
	need.Binary(t, "nft")
	s := newSite(t)
	reach := func(context.Context) error { return nil }
	for why, c := range map[string]struct {
		e      *action.IsolateHost
		change func(env *action.Env)
	}{
		"within 1m to 24h":                 {&action.IsolateHost{TTL: action.Duration(time.Second)}, nil},
		"is everybody":                     {&action.IsolateHost{TTL: action.Duration(time.Hour), Let: action.Let{Allow: []string{"0.0.0.0/0"}}}, nil},
		"is not an IP address":             {&action.IsolateHost{TTL: action.Duration(time.Hour), Let: action.Let{Allow: []string{"; reboot"}}}, nil},
		"whether Redis is still reached":   {&action.IsolateHost{TTL: action.Duration(time.Hour)}, func(env *action.Env) { env.Reach = nil }},
		"nobody could tell whose":          {&action.IsolateHost{TTL: action.Duration(time.Hour)}, func(env *action.Env) { env.Claims = nil }},
		"is an address in the network 10.": {&action.IsolateHost{TTL: action.Duration(time.Hour), Let: action.Let{Allow: []string{"10.0.0.1/8"}}}, nil},
	} {
		s.inside(c.e, "a", func(env action.Env) {
			env.Reach = reach
			if c.change != nil {
				c.change(&env)
			}
			refused(t, c.e, env, why)
		})
	}
	if rules := command(t, "nft", "list", "ruleset"); rules != "" {
		t.Errorf("changed by what was refused:\n%s", rules)
	}
	if r := fmt.Sprint(s.claimed("host/isolation")); r != "" {
		t.Errorf("claims of %s", r)
	}
}
