package stream_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"riposte/stream"
)

// split lists documents as LINE:TEXT, unfit ones as LINE!
func split(r io.Reader) []string {
	var all []string
	for d := range stream.Documents(r) {
		if d.Err != nil {
			all = append(all, fmt.Sprintf("%d!", d.Line))
		} else {
			all = append(all, fmt.Sprintf("%d:%s", d.Line, d.Raw))
		}
	}
	return all
}

func TestDocuments(t *testing.T) {
	for _, c := range []struct{ name, text, want string }{
		{"nothing", "", ""},
		{"white space", " \n\r\n\t", ""},
		{"one", `{"a":1}`, `1:{"a":1}`},
		{"lines", "{\"a\":1}\n\n{\"a\":2}\r\n", `1:{"a":1} 3:{"a":2}`},
		{"on a line", `{"a":1}{"a":2} {"a":3}`, `1:{"a":1} 1:{"a":2} 1:{"a":3}`},
		{"over lines", "{\n \"a\": {\n \"b\": 1}\n}\n{\"c\":1}", "1:{\n \"a\": {\n \"b\": 1}\n} 5:{\"c\":1}"},
		{"array", `[{"a":1}, {"a":[{}]}]`, `1:{"a":1} 1:{"a":[{}]}`},
		{"array over lines", "[\n{\"a\":1},\n{\"a\":2}\n]\n{\"a\":3}", `2:{"a":1} 3:{"a":2} 5:{"a":3}`},
		{"array in array", `[[{"a":1}]]`, `1:[{"a":1}]`},
		{"empty array", "[]", ""},
		{"braces in text", `{"a":"}{\"]\\"}{"b":1}`, `1:{"a":"}{\"]\\"} 1:{"b":1}`},
		{"garbage line", "{\"a\":1}\nwhat?\n{\"a\":2}", `1:{"a":1} 2:what? 3:{"a":2}`},
		{"truncated line", "{\"a\":1\n{\"a\":2}", `1! 2:{"a":2}`},
		{"truncated in text", "{\"a\":\"x\n{\"a\":2}", `1! 2:{"a":2}`},
		{"truncated in text before an indent", "{\"a\":\"x\n {\"a\":2}", `1! 2:{"a":2}`},
		{"truncated in array", "[{\"a\":1\n{\"a\":2}]", `1! 2:{"a":2}`},
		{"truncated at the end", `{"a":1`, `1!`},
		{"array not closed", "[{\"a\":1},\n", `1:{"a":1} 2!`},
		{"garbage in array", `[1,x,{"a":1}]`, `1:1 1:x 1:{"a":1}`},
		{"trailing comma", "{\"a\":1},\n{\"a\":2}", `1:{"a":1} 1:, 2:{"a":2}`},
		{"byte order mark", "\uFEFF{\"a\":1}", `1:{"a":1}`},
		{"wrong brackets", "{]\n{\"a\":1}", `1:{] 2:{"a":1}`},
	} {
		if got := strings.Join(split(strings.NewReader(c.text)), " "); got != c.want {
			t.Errorf("%s: got %q, want %q", c.name, got, c.want)
		}
		if got := strings.Join(split(iotest.OneByteReader(strings.NewReader(c.text))), " "); got != c.want {
			t.Errorf("%s, byte by byte: got %q, want %q", c.name, got, c.want)
		}
	}
}

func TestLargeDocuments(t *testing.T) {
	huge := `{"title":"` + strings.Repeat("x", 10<<20) + `"}`
	fits := `{"title":"` + strings.Repeat("x", stream.MaxAlertBytes-12) + `"}`
	n := 0
	for d := range stream.Documents(strings.NewReader(huge + "\n" + fits + "\n{}")) {
		n++
		switch d.Line {
		case 1:
			if !errors.Is(d.Err, stream.ErrMalformed) || !strings.Contains(d.Err.Error(), "10485772 bytes") || len(d.Raw) > stream.MaxAlertBytes {
				t.Errorf("got %d bytes and %v", len(d.Raw), d.Err)
			}
		case 2:
			if d.Err != nil || string(d.Raw) != fits {
				t.Errorf("the largest that fits: %d bytes, %v", len(d.Raw), d.Err)
			}
		case 3:
			if d.Err != nil || string(d.Raw) != "{}" {
				t.Errorf("after the large ones: %q, %v", d.Raw, d.Err)
			}
		}
	}
	if n != 3 {
		t.Errorf("%d documents, want 3", n)
	}
}

func TestDocumentsReadError(t *testing.T) {
	broken := errors.New("disk on fire")
	for _, text := range []string{"", "{}\n", `{"a":`} {
		var errs []error
		for d := range stream.Documents(io.MultiReader(strings.NewReader(text), iotest.ErrReader(broken))) {
			if d.Err != nil {
				errs = append(errs, d.Err)
			}
		}
		if len(errs) != 1 || !errors.Is(errs[0], broken) {
			t.Errorf("after %q: got %v, want the read error once", text, errs)
		}
	}
}

// A detector that writes a line and waits must not wait for its alert to be seen.
func TestDocumentsDoNotWaitForMore(t *testing.T) {
	r, w := io.Pipe()
	defer w.Close()
	seen := make(chan stream.Document)
	go func() {
		defer close(seen)
		for d := range stream.Documents(r) {
			seen <- d
		}
	}()
	for range 3 {
		if _, err := io.WriteString(w, `{"a":1}`+"\n"); err != nil {
			t.Fatal(err)
		}
		if d := <-seen; string(d.Raw) != `{"a":1}` {
			t.Errorf("got %q, %v", d.Raw, d.Err)
		}
	}
	w.Close()
	if _, more := <-seen; more {
		t.Error("more documents than were written")
	}
}

func FuzzDocuments(f *testing.F) {
	f.Add("{\"a\":1}\n[{\"b\":\"}\"}\n{]x,\n")
	f.Add("[[[{}\n\"\\")
	f.Fuzz(func(t *testing.T, text string) {
		line := 1
		for d := range stream.Documents(strings.NewReader(text)) {
			if d.Line < line || d.Line > strings.Count(text, "\n")+1 {
				t.Fatalf("line %d after line %d", d.Line, line)
			}
			line = d.Line
			if d.Err == nil && !strings.Contains(text, string(d.Raw)) {
				t.Fatalf("%q is not in the text", d.Raw)
			}
		}
		// What one JSON object holds is one document.
		if s := strings.TrimSpace(text); strings.HasPrefix(s, "{") && json.Valid([]byte(s)) && !strings.Contains(s, "\n{") {
			if got := split(strings.NewReader(s)); len(got) != 1 || got[0] != "1:"+s {
				t.Fatalf("%q is split into %q", s, got)
			}
		}
	})
}
