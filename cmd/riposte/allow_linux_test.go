package main

import (
	"context"
	"os/exec"
	"strings"
	"testing"
	"time"

	"riposte/playbook"
	"riposte/playbook/action"
	"riposte/playbook/gate"
	"riposte/playbook/guard"
	"riposte/test/namespace"
	"riposte/test/need"
)

// TestMaintainLifts has an address that is blocked allow-listed: the next round lifts it, in each
// mode in which anything may be done.
func TestMaintainLifts(t *testing.T) {
	if !namespace.Enter(t) {
		return
	}
	nft := need.Binary(t, "nft")
	blocked := func() bool {
		t.Helper()
		out, err := exec.Command(nft, "list", "ruleset").CombinedOutput()
		if err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		return strings.Contains(string(out), "198.51.100.7")
	}
	for _, mode := range []playbook.Mode{playbook.Observe, playbook.Approve, playbook.Enforce} {
		dir := t.TempDir()
		g, err := gate.Open(dir+"/run", dir+"/state", "h-1-a", "containment")
		if err != nil {
			t.Fatal(err)
		}
		defer g.Close()
		protected := &guard.Allowing{Floor: &guard.Floor{}}
		e := &action.BlockIP{Address: "198.51.100.7", TTL: action.Duration(time.Hour), Backend: action.NFTables}
		const key = "h/g/a/p/s"
		pass, err := g.Enter(gate.Step{Key: key, Targets: e.Targets(), Within: time.Minute}, gate.Token{Epoch: uint64(time.Now().UnixMicro()), Nonce: "n"})
		if err != nil {
			t.Fatal(err)
		}
		_, err = e.Apply(t.Context(), action.Env{Guard: protected, Key: key, AlertID: "a", Claims: pass.Claims(), Locks: pass.Locks()})
		pass.Leave()
		if err != nil {
			t.Fatal(err)
		}

		var said strings.Builder
		ctx, cancel := context.WithCancel(t.Context())
		atOnce, done := make(chan struct{}), make(chan struct{})
		go func() {
			defer close(done)
			maintain(ctx, newLogger(&said, "info", "text"), g, action.Env{Guard: protected}, mode, atOnce)
		}()
		atOnce <- struct{}{} // is taken when a round is over, and begins one
		if !blocked() {
			t.Errorf("%s: lifted for nothing", mode)
		}
		list, err := guard.Decode("f.yaml", []byte(goodAllow))
		if err != nil {
			t.Fatal(err)
		}
		protected.Set(list)
		for range 2 {
			atOnce <- struct{}{}
		}
		acts := mode != playbook.Observe
		if blocked() == acts {
			t.Errorf("%s: blocked is %t", mode, !acts)
		}
		cancel()
		<-done
		const why = `msg="lifted a block of what is protected by now" address=198.51.100.7 reason="198.51.100.7 is allow-listed: our own (198.51.100.0/24)" alerts=[a]`
		if strings.Contains(said.String(), why) != acts {
			t.Errorf("%s: it says\n%s", mode, said.String())
		}
	}
}
