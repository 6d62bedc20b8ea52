package action

import (
	"bytes"
	"errors"
	"io"
	"runtime"
	"strings"
	"testing"
	"testing/iotest"
)

func TestRedact(t *testing.T) {
	for in, want := range map[string]string{
		"":                              "",
		"PATH=/bin\x00LANG=C\x00":       "PATH=/bin\x00LANG=C\x00",
		"PGPASSWORD=hunter2\x00":        "PGPASSWORD=[redacted, 7 bytes]\x00",
		"MYSQL_PWD=hunter2":             "MYSQL_PWD=[redacted, 7 bytes]",
		"PWD=/root\x00OLDPWD=/tmp":      "PWD=/root\x00OLDPWD=/tmp",
		"github_token=a=b\x00X=y":       "github_token=[redacted, 3 bytes]\x00X=y",
		"Api_Key=\x00":                  "Api_Key=[redacted, 0 bytes]\x00",
		"U=https://me:pw@h/x?a=b":       "U=https://[redacted, 5 bytes]@h/x?a=b",
		"U=amqps://me:p/w@x@h":          "U=amqps://[redacted, 8 bytes]@h",
		"U=https://h/x y@z":             "U=https://h/x y@z",
		"A=redis://:a@h redis://b:c@i":  "A=redis://[redacted, 2 bytes]@h redis://[redacted, 3 bytes]@i",
		"no assignment":                 "no assignment",
		"http://u:p@h/ without a name":  "http://[redacted, 3 bytes]@h/ without a name",
		"AUTHORIZATION=Bearer\nabc\x00": "AUTHORIZATION=[redacted, 10 bytes]\x00",
	} {
		if got := redactEnviron([]byte(in)); string(got) != want {
			t.Errorf("%q: got %q, want %q", in, got, want)
		}
	}
}

// TestRedactNothing has an environment that is as large as any that is read, with nothing in it: a
// process decides where in its memory that is.
func TestRedactNothing(t *testing.T) {
	in := make([]byte, 16<<20)
	var out []byte
	used := allocated(func() { out = redactEnviron(in) })
	if used > 32<<20 || !bytes.Equal(in, out) {
		t.Errorf("%d bytes take %d bytes of memory, and become %d", len(in), used, len(out))
	}
}

// allocated is how much memory something takes, given back or not.
func allocated(f func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}

// FuzzRedact puts a secret where secrets are, among anything.
func FuzzRedact(f *testing.F) {
	f.Add([]byte("PATH=/bin\x00"), []byte("\x00LANG=C"))
	f.Add([]byte("A=http://"), []byte("@x"))
	f.Add([]byte("\xff=\x00\x00="), []byte("\x00"))
	f.Fuzz(func(t *testing.T, before, after []byte) {
		const secret = "hunter2hunter2"
		if bytes.Contains(before, []byte(secret)) || bytes.Contains(after, []byte(secret)) {
			return
		}
		after = bytes.ReplaceAll(after, []byte(" "), nil)
		for _, middle := range []string{"\x00DB_PASSWORD=" + secret, "\x00A=redis://" + secret + "@h\x00", "\x00A=redis://u:" + secret + "@h\x00"} {
			in := append(append(bytes.Clone(before), middle...), after...)
			if out := redactEnviron(in); bytes.Contains(out, []byte(secret)) {
				t.Errorf("%q: %q", in, out)
			} else if bytes.Count(in, []byte{0}) < bytes.Count(out, []byte{0}) {
				t.Errorf("%q: a variable more: %q", in, out)
			}
		}
	})
}

func TestSize(t *testing.T) {
	for text, want := range map[string]Size{"64MiB": 64 << 20, "1GiB": 1 << 30, "1536 KiB": 1536 << 10, "7B": 7, "0B": 0, "-1MiB": -1 << 20} {
		var s Size
		if err := s.UnmarshalText([]byte(text)); err != nil || s != want {
			t.Errorf("%q: %d, %v", text, s, err)
		}
		var again Size
		if err := again.UnmarshalText([]byte(s.String())); err != nil || again != s {
			t.Errorf("%s reads back as %d, %v", s, again, err)
		}
	}
	for _, text := range []string{"", "64", "64MB", "64mib", "MiB", "1.5GiB", "99999999999GiB", "1 2MiB", "0x1B"} {
		var s Size
		if err := s.UnmarshalText([]byte(text)); err == nil || s != 0 {
			t.Errorf("%q: %d", text, s)
		}
	}
}

// What of an executable can be read no more is zeros, and the manifest says how far it goes.
func TestEvidenceCutShort(t *testing.T) {
	for name, c := range map[string]struct {
		limit           Size
		size            int64
		r               io.Reader
		kept            string
		truncated       bool
		fault, hasWhole bool
	}{
		"whole":           {manifestRoom + 100, 6, strings.NewReader("abcdef"), "abcdef", false, false, false},
		"longer by now":   {manifestRoom + 100, 6, strings.NewReader("abcdefgh"), "abcdef", false, false, false},
		"shorter by now":  {manifestRoom + 100, 6, strings.NewReader("abc"), "abc\x00\x00\x00", false, true, false},
		"unreadable":      {manifestRoom + 100, 6, iotest.TimeoutReader(iotest.OneByteReader(strings.NewReader("abcdef"))), "a\x00\x00\x00\x00\x00", false, true, false},
		"does not fit":    {manifestRoom + 4, 6, iotest.OneByteReader(strings.NewReader("abcdef")), "abcd", true, false, true},
		"nothing fits":    {manifestRoom, 6, strings.NewReader("abcdef"), "", true, false, true},
		"cut and shorter": {manifestRoom + 4, 6, strings.NewReader("abcde"), "abcd", true, true, false},
		"empty":           {manifestRoom + 4, 0, strings.NewReader(""), "", false, false, false},
	} {
		var file bytes.Buffer
		a := newArchive(&file, c.limit, manifest{Format: 1, Key: "k"})
		buf := make([]byte, 4)
		err := a.stream("exe", c.size, func() ([]byte, error) { n, err := c.r.Read(buf); return buf[:n], err })
		if err != nil {
			t.Fatal(name, err)
		}
		if err := a.add("gone", nil, false, errors.New("no\x1b such")); err != nil {
			t.Fatal(name, err)
		}
		sum, size, err := a.close()
		if err != nil {
			t.Fatal(name, err)
		}
		m, readSum, readSize, err := readArchive(bytes.NewReader(file.Bytes()))
		if err != nil || sum != readSum || size != readSize || size != int64(file.Len()) || m.Key != "k" {
			t.Errorf("%s: %v, %s %s, %d %d", name, err, sum, readSum, size, readSize)
			continue
		}
		exe := m.Members[0]
		if exe.Size != int64(len(c.kept)) || exe.Truncated != c.truncated || (exe.Error != "") != c.fault || (exe.WholeSHA256 != "") != c.hasWhole {
			t.Errorf("%s: %+v", name, exe)
		}
		if gone := m.Members[1]; gone.SHA256 != "" || gone.Error != `no\u001b such` {
			t.Errorf("%s: %+v", name, gone)
		}
	}
}

// An archive is complete where every member is there, with its sum.
func TestEvidenceSums(t *testing.T) {
	for name, spoil := range map[string]func(*archive){
		"":        func(*archive) {},
		"sum":     func(a *archive) { a.manifest.Members[1].SHA256 = a.manifest.Members[0].SHA256 },
		"no sum":  func(a *archive) { a.manifest.Members[1].SHA256 = "" },
		"missing": func(a *archive) { a.manifest.Members[1].Name = "other" },
	} {
		var file bytes.Buffer
		a := newArchive(&file, minEvidence, manifest{})
		for _, part := range []string{"one", "two"} {
			if err := a.add(part, []byte(part), false, nil); err != nil {
				t.Fatal(err)
			}
		}
		spoil(a)
		if _, _, err := a.close(); err != nil {
			t.Fatal(err)
		}
		if _, _, _, err := readArchive(&file); (err == nil) != (name == "") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// A list that does not fit ends with a whole line.
func TestEvidenceLines(t *testing.T) {
	a := newArchive(io.Discard, manifestRoom+16*20, manifest{}) // 20 bytes a part
	for _, name := range []string{"list.ndjson", "text"} {
		if err := a.add(name, []byte("0123456789\nabcdefghijkl\n"), false, nil); err != nil {
			t.Fatal(err)
		}
	}
	if list, text := a.manifest.Members[0], a.manifest.Members[1]; list.Size != 11 || !list.Truncated || text.Size != 20 || !text.Truncated {
		t.Errorf("%+v, %+v", list, text)
	}
}
