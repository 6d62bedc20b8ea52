package faultproxy

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
)

var frames = []string{
	"+OK\r\n", "-ERR no\r\n", ":-1\r\n", "$0\r\n\r\n", "$4\r\na\r\nb\r\n", "$-1\r\n", "*-1\r\n", "*0\r\n",
	"*2\r\n$1\r\na\r\n*1\r\n:1\r\n", "_\r\n", "#t\r\n", ",1.5\r\n", "(123\r\n", "!5\r\nERR x\r\n", "=5\r\ntxt:x\r\n",
	"%1\r\n+a\r\n:1\r\n", "~1\r\n+a\r\n", ">2\r\n+message\r\n$1\r\nx\r\n", "|1\r\n+ttl\r\n:1\r\n:5\r\n",
}

func TestFrame(t *testing.T) {
	r := bufio.NewReader(strings.NewReader(strings.Join(frames, "")))
	for _, want := range frames {
		if got, err := frame(r); err != nil || string(got) != want {
			t.Errorf("got %q, %v; want %q", got, err, want)
		}
	}
	if _, err := frame(r); err != io.EOF {
		t.Errorf("at the end: %v", err)
	}
	for _, f := range frames {
		for n := 1; n < len(f); n++ {
			if got, err := frame(bufio.NewReader(strings.NewReader(f[:n]))); err == nil || err == io.EOF {
				t.Errorf("the beginning %q of %q was read as %q, %v", f[:n], f, got, err)
			}
		}
	}
	for _, bad := range []string{"\r\n", "+OK\n", "$x\r\n", "$-2\r\n", "$1\r\nabc", "*99999999\r\n", "?1\r\n", strings.Repeat("*1\r\n", 100)} {
		if got, err := frame(bufio.NewReader(strings.NewReader(bad))); !errors.Is(err, errFraming) {
			t.Errorf("%q was read as %q, %v", bad, got, err)
		}
	}
}

// FuzzFrame holds framing to this: a frame is a piece of the input, it is one frame
// whatever follows it, and none without its last byte.
func FuzzFrame(f *testing.F) {
	for _, s := range frames {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, input []byte) {
		raw, err := frame(bufio.NewReader(bytes.NewReader(input)))
		if !bytes.HasPrefix(input, raw) {
			t.Fatalf("%q is not how %q begins", raw, input)
		}
		if err != nil {
			return
		}
		again, err := frame(bufio.NewReader(io.MultiReader(bytes.NewReader(raw), strings.NewReader("+more\r\n"))))
		if err != nil || !bytes.Equal(raw, again) {
			t.Fatalf("%q is read as %q, %v once more follows", raw, again, err)
		}
		if short, err := frame(bufio.NewReader(bytes.NewReader(raw[:len(raw)-1]))); err == nil {
			t.Fatalf("%q is read as %q", raw[:len(raw)-1], short)
		}
		_, _, _ = request(bufio.NewReader(bytes.NewReader(raw)))
	})
}

// FuzzRequest holds it to understanding what a client writes.
func FuzzRequest(f *testing.F) {
	f.Add("SET", "k", "v\r\n$1\r\n")
	f.Add("", "", "\x00")
	f.Fuzz(func(t *testing.T, a, b, c string) {
		want := []string{a, b, c}
		raw := encode(want...)
		got, words, err := request(bufio.NewReader(strings.NewReader(raw + encode("PING"))))
		if err != nil || string(got) != raw || !slices.Equal(words, want) {
			t.Fatalf("%q is read as %q, %q, %v", raw, got, words, err)
		}
	})
}

func encode(words ...string) string {
	out := fmt.Sprintf("*%d\r\n", len(words))
	for _, w := range words {
		out += fmt.Sprintf("$%d\r\n%s\r\n", len(w), w)
	}
	return out
}
