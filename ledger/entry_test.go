package ledger_test

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"riposte/ledger"
)

const someHeader = "held 1767225600000000 1767225605000000 h1-1-ab nonce 2 3 4 d1ge57 1767225600000-0 gate"

func TestParseHeader(t *testing.T) {
	t.Parallel()
	h, err := ledger.ParseHeader(someHeader)
	want := ledger.Header{
		State: ledger.Held, Token: ledger.Token{Epoch: 1767225600000000, Nonce: "nonce"}, Lease: time.UnixMicro(1767225605000000),
		Owner: "h1-1-ab", Seq: 2, Duplicates: 3, Deaths: 4, Digest: "d1ge57", StreamID: "1767225600000-0", Gate: "gate",
	}
	if err != nil || h != want {
		t.Errorf("%+v, %v; want %+v", h, err, want)
	}
	for _, line := range []string{
		"", "held", someHeader + " more", strings.Replace(someHeader, "held", "kept", 1), strings.Replace(someHeader, " 2 ", " -2 ", 1),
		strings.Replace(someHeader, "1767225600000000", "x", 1), strings.Replace(someHeader, "1767225600000000", "99999999999999999999", 1),
	} {
		if h, err := ledger.ParseHeader(line); err == nil {
			t.Errorf("%q: %+v", line, h)
		}
	}
}

func FuzzParseHeader(f *testing.F) {
	for _, line := range []string{someHeader, "", "done 1 0 - - 0 0 0 - 1-1 -", strings.Repeat(" 1", 11), "held 9223372036854775807 0 a b 0 0 0 c d e"} {
		f.Add(line)
	}
	f.Fuzz(func(t *testing.T, line string) {
		h, err := ledger.ParseHeader(line)
		if err != nil {
			return
		}
		switch h.State {
		case ledger.Held, ledger.Done, ledger.Dead, ledger.Waiting:
		default:
			t.Errorf("state %q", h.State)
		}
		if h.Seq < 0 || h.Duplicates < 0 || h.Deaths < 0 || h.Owner == "" || h.Token.Nonce == "" {
			t.Errorf("%q: %+v", line, h)
		}
	})
}

func FuzzParseEntry(f *testing.F) {
	for _, raw := range []string{
		someHeader + "\n" + `{"seen":"2026-01-02T03:04:05Z","expires":"2026-01-02T03:04:05Z","steps":[{"playbook":"p","step":"s","with":{"a":1}}]}`,
		someHeader + "\nnull", someHeader, "\n{}", someHeader + "\n{",
	} {
		f.Add([]byte(raw))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		h, _, err := ledger.ParseEntry(raw)
		if err != nil {
			return
		}
		line, _, _ := bytes.Cut(raw, []byte("\n"))
		if again, err := ledger.ParseHeader(string(line)); err != nil || again != h {
			t.Errorf("entry %+v, its first line %+v, %v", h, again, err)
		}
	})
}
