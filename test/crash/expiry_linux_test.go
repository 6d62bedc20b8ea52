package crash

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"riposte/playbook/action"
	"riposte/playbook/gate"
	"riposte/stream"
)

// TestExpiries kills a replica when time is short: that of the block which it makes, or that
// of the alert. Its successor comes when the time is over.
func TestExpiries(t *testing.T) {
	t.Parallel()
	w := enterWorld(t)
	if w == nil {
		return
	}
	const tooOld, over = "alert too old, by ", "block over"
	var found docket
	var cases []func()
	add := func(row, boundary string, play func(t *testing.T, host string) (sentence, string)) {
		host := fmt.Sprintf("e%d", len(cases))
		cases = append(cases, func() {
			t.Run(row+"/"+boundary, func(t *testing.T) {
				out, cell := play(t, host)
				found.enter(row, boundary, cell, out)
			})
		})
	}
	for _, boundary := range moments[:len(moments)-1] { // what is recorded does not get too old
		for _, by := range []string{"max-age", "expires"} {
			add(tooOld+by, boundary, func(t *testing.T, host string) (sentence, string) { return w.tooOld(t, host, boundary, by) })
		}
	}
	for _, boundary := range []string{"applied", "closed", "before-record", recorded} {
		add(over, boundary, func(t *testing.T, host string) (sentence, string) { return w.over(t, host, boundary) })
	}
	together(cases)
	found.report(t, len(cases), []string{tooOld + "max-age", tooOld + "expires", over}, moments)
}

// tooOld has the alert come of age while nobody is there. Nothing is begun any more, and what
// stands is not called expired.
func (w *world) tooOld(t *testing.T, host, boundary, by string) (sentence, string) {
	const age = 5 * time.Second
	s := w.scene(t, host, classes[1], longLease, unhurried)
	var more []string
	head := ""
	if by == "expires" {
		head = fmt.Sprintf("expires: %v\n", age)
	} else {
		more = []string{"--max-age", age.String()}
	}
	address := w.address("198.51.100")
	s.playbook(bookName, head, "true", fmt.Sprintf("{name: act, action: block_ip, with: {address: %s, ttl: 1h}, timeout: 2s}", address))
	victim := s.start(boundary+":stop", more...)
	s.publish()
	victim.awaitFrozen(t)
	victim.kill(t)
	e, found := s.entry()
	if !found {
		t.Fatal("no entry of the alert")
	}
	until := e.Body.Expires
	if at := e.Body.Steps[0].Expires; !at.IsZero() {
		until = at
	}
	if left := time.Until(until); left > age {
		t.Fatalf("it is too old in %v", left)
	}
	<-time.After(time.Until(until))
	s.start("", more...)
	s.rest(alertID)

	want, begun, standing := action.Expired, 0, 0
	switch p := places[boundary]; {
	case p.applied, boundary == "closed", boundary == "before-record":
		want, begun, standing = action.Blocked, 1, 1
	case p.begun:
		begun = 1
	}
	if all := blocks(t, address); len(all) != standing {
		t.Errorf("blocks %+v, want %d", all, standing)
	}
	out := s.sentence(alertID)
	out.expect(t, s.key("act"), string(want), begun)
	return out, out.outcomes[s.key("act")]
}

// over has a block come to its end while nobody is there, and another one removed by hand. The
// other one is put back, which shows that somebody has looked; what is over stays so. Only
// where nobody had decided yet what came of it, it is made anew, for its time.
func (w *world) over(t *testing.T, host, boundary string) (sentence, string) {
	const other, ttl = stream.AlertID("other"), 3 * time.Second
	s := w.scene(t, host, classes[1], longLease, unhurried)
	address, stays := w.address("198.51.100"), w.address("203.0.113") // claims are looked at in this order
	book := func(name, id any, address string, ttl time.Duration) {
		s.playbook(fmt.Sprint(name), "", fmt.Sprintf("alert.id == %q", id),
			fmt.Sprintf("{name: act, action: block_ip, with: {address: %s, ttl: %v}, timeout: %v}", address, ttl, s.timeout))
	}
	book(bookName, alertID, address, ttl)
	book("other", other, stays, time.Hour)
	first := s.start("")
	s.publishAbout(other, nil)
	s.rest(other)
	first.stop(t)

	victim := s.start(boundary + ":stop")
	s.publish()
	victim.awaitFrozen(t)
	victim.kill(t)
	await(t, "the block to end", func() bool { return len(blocks(t, address)) == 0 })
	if len(blocks(t, stays)) != 1 {
		t.Fatal("the other address is not blocked")
	}
	firewall(t, "delete", "element", "inet", "riposte", "blocked4", "{ "+stays+" }")
	s.start("")
	s.rest(alertID, other)
	await(t, "the other block to be put back", func() bool { return len(blocks(t, stays)) == 1 })
	begun := 1
	if places[boundary].applied {
		begun = 2
		await(t, "the block to end again", func() bool { return len(blocks(t, address)) == 0 })
	}
	if all := blocks(t, address); len(all) > 0 {
		t.Errorf("it is back: %+v", all)
	}
	out := s.sentence(alertID, other)
	out.expect(t, s.key("act"), string(action.Blocked), begun)
	return out, fmt.Sprintf("%s, begun %d", out.outcomes[s.key("act")], out.begun[s.key("act")])
}

// playbook writes one of several.
func (s *scene) playbook(name, head, match string, steps ...string) {
	s.t.Helper()
	text := fmt.Sprintf("name: %s\n%smatch: '%s'\nsteps:\n", name, head, match)
	for _, step := range steps {
		text += "  - " + step + "\n"
	}
	dir := filepath.Join(s.dir, "playbooks")
	err := os.MkdirAll(dir, 0o700)
	if err = errors.Join(err, os.WriteFile(filepath.Join(dir, name+".yaml"), []byte(text), 0o600)); err != nil {
		s.t.Fatal(err)
	}
}

// TestOneOfTwoBlocks has two alerts block one address for different times, and takes one of
// them back, in both orders, with a replica killed when that is done and not closed. What is
// left is the other one, with its time; and nothing, when that is taken back as well.
func TestOneOfTwoBlocks(t *testing.T) {
	t.Parallel()
	w := enterWorld(t)
	if w == nil {
		return
	}
	var found docket
	var cases []func()
	orders := []string{"short, long", "long, short"}
	undone := []string{"short", "long"}
	for _, order := range orders {
		for _, undo := range undone {
			host := fmt.Sprintf("t%d", len(cases))
			cases = append(cases, func() {
				t.Run(order+"/"+undo+" undone", func(t *testing.T) {
					out, cell := w.oneOfTwo(t, host, strings.Split(order, ", "), undo)
					found.enter(order, undo, cell, out)
				})
			})
		}
	}
	together(cases)
	found.report(t, len(cases), orders, undone)
}

func (w *world) oneOfTwo(t *testing.T, host string, order []string, undo string) (sentence, string) {
	ttls := map[string]time.Duration{"short": 10 * time.Minute, "long": 20 * time.Minute}
	s := w.scene(t, host, classes[1], longLease, unhurried)
	address := w.address("198.51.100")
	for name, ttl := range ttls {
		s.playbook(name, "", fmt.Sprintf("alert.id == %q", name),
			fmt.Sprintf("{name: act, action: block_ip, with: {address: %s, ttl: %v}, timeout: %v}", address, ttl, s.timeout))
	}
	first := s.start("")
	for _, name := range order {
		s.publishAbout(stream.AlertID(name), nil)
		s.rest(stream.AlertID(name))
	}
	first.stop(t)
	if all := blocks(t, address); len(all) != 1 || all[0].Comment != "long" {
		t.Fatalf("the longer one is to stand: %+v", all)
	}

	id, other := stream.AlertID(undo), stream.AlertID("short")
	if undo == "short" {
		other = "long"
	}
	victim := s.start("applied:stop")
	s.revert(id)
	s.succeeded(victim)
	s.rest(id, other)
	ttl := ttls[string(other)]
	left := s.claims(address)
	if len(left) != 1 || left[0].AlertID != string(other) || left[0].Begun || time.Duration(left[0].Made) != ttl {
		t.Fatalf("claims %+v, want that of %q", left, other)
	}
	before := time.Now()
	all := blocks(t, address)
	after := time.Now()
	if len(all) != 1 || all[0].Comment != string(other) {
		t.Fatalf("blocks %+v, want that of %q", all, other)
	}
	// Seconds are whole here, and a block may end a little before its claim.
	const leeway = 2 * time.Second
	rest := time.Duration(all[0].Expires) * time.Second
	if from, until := before.Add(rest), after.Add(rest+time.Second+leeway); left[0].Until.Before(from.Add(-leeway)) || left[0].Until.After(until) {
		t.Errorf("%+v, but %+v", all[0], left[0])
	}
	cell := fmt.Sprintf("%s, %d s of %v", all[0].Comment, all[0].Expires, ttl)

	s.revert(other)
	s.rest(id, other)
	if all, left := blocks(t, address), s.claims(address); len(all)+len(left) > 0 {
		t.Errorf("blocks %+v, claims %+v", all, left)
	}
	out := s.sentence(id, other)
	for _, name := range order {
		want := action.Blocked
		if name == "short" && order[0] == "long" {
			want = action.AlreadyBlocked
		}
		key := func(step string) string {
			return stream.StepKey(s.host, stream.DefaultGroup, stream.AlertID(name), name, step)
		}
		out.expect(t, key("act"), string(want), 1)
		out.expect(t, key("act~undo"), string(action.Unblocked), 1)
	}
	return out, cell
}

// claims are those on an address, as the gate has them.
func (s *scene) claims(address string) []action.Claim {
	s.t.Helper()
	g, err := gate.Open(s.runtimeDir(), s.stateDir(), "test", "")
	if err != nil {
		s.t.Fatal(err)
	}
	defer g.Close()
	all, err := g.Claimed()
	if err != nil {
		s.t.Fatal(err)
	}
	target := (&action.BlockIP{Address: address}).Targets()[0]
	return slices.DeleteFunc(all[target], func(c action.Claim) bool {
		return !slices.ContainsFunc(c.Nets, func(what netip.Prefix) bool { return what.IsSingleIP() && what.Addr().String() == address })
	})
}
