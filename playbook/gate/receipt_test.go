package gate

import (
	"os"
	"strings"
	"testing"
	"time"
)

func TestArchive(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	if _, err := OpenArchive(h.run, h.state); err == nil {
		t.Error("there is no folder")
	}
	g := h.open("h-1-own")
	for _, s := range []Step{{Key: "closed"}, {Key: "once", Durable: true}} {
		if err := h.enter(g, s, Token{10, "n"}).Close("killed", ""); err != nil {
			t.Fatal(err)
		}
	}
	h.enter(g, Step{Key: "open"}, Token{11, "n"}) // and somebody is inside
	if err := os.WriteFile(h.receipt("bad"), []byte("bad\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(h.receipt("empty"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	a, err := OpenArchive(h.run, h.state)
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	for _, c := range []struct {
		key, outcome string
		epoch        uint64
		ok           bool
	}{
		{"closed", "killed", 10, true}, {"once", "killed", 10, true}, {"open", "", 11, true}, {"empty", "", 0, false}, {"none", "", 0, false},
	} {
		if outcome, epoch, ok, err := a.Receipt(c.key); outcome != c.outcome || epoch != c.epoch || ok != c.ok || err != nil {
			t.Errorf("%s: %q, %d, %v, %v", c.key, outcome, epoch, ok, err)
		}
	}
	if _, _, _, err := a.Receipt("bad"); err == nil {
		t.Error("an unreadable receipt was read")
	}
	if _, err := OpenArchive(h.run, h.state+"-none"); err != nil {
		t.Errorf("without a state folder: %v", err)
	}
}

func TestParseReceipt(t *testing.T) {
	t.Parallel()
	var raw []byte
	for _, l := range []line{
		{Event: "entered", Token: Token{11, "n"}, Holder: Holder{Replica: "a"}}, {Event: "begun", Token: Token{11, "n"}},
		{Event: "left", Token: Token{9, "m"}, Holder: Holder{Replica: "b"}},
	} {
		raw = append(raw, l.encode()...)
	}
	r, size, err := parseReceipt(raw)
	if err != nil || r.newest != (Token{11, "n"}) || r.begun != 1 || r.holder.Replica != "b" || r.closed != nil || size != int64(len(raw)) {
		t.Errorf("%+v, %d, %v", r, size, err)
	}
	long := line{Event: "closed", Reason: strings.Repeat("x", 1<<20)}.encode()
	if len(long) > 8192 {
		t.Errorf("a reason of a megabyte makes a line of %d bytes", len(long))
	}
}

func FuzzParseReceipt(f *testing.F) {
	entered := line{Event: "entered", Token: Token{10, "n"}, Holder: Holder{Replica: "r", PID: 2}, At: time.Unix(1, 0)}.encode()
	closed := line{Event: "closed", Token: Token{11, "m"}, Outcome: "killed", Reason: "\x00\n\xff"}.encode()
	f.Add(entered)
	f.Add(append(entered, closed...))
	f.Add(append(entered, closed[:20]...))
	f.Add([]byte("\n"))
	f.Add([]byte("null\n{}\n"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		r, size, err := parseReceipt(raw)
		if err != nil {
			return
		}
		if size > int64(len(raw)) || size > 0 && raw[size-1] != '\n' {
			t.Fatalf("the next line would go to %d of %q", size, raw)
		}
		// What is appended there counts, whatever a crash left behind it.
		next := append(raw[:size:size], line{Event: "closed", Token: Token{Epoch: r.newest.Epoch + 1}, Outcome: "new"}.encode()...)
		again, _, err := parseReceipt(next)
		if err != nil || again.closed == nil || r.closed != nil && again.closed.Outcome != r.closed.Outcome || r.closed == nil && again.closed.Outcome != "new" {
			t.Fatalf("%+v, then %+v, %v", r, again, err)
		}
		if again.begun != r.begun || r.newest.Epoch+1 != 0 && again.newest.Epoch != r.newest.Epoch+1 {
			t.Fatalf("%+v, then %+v", r, again)
		}
	})
}
