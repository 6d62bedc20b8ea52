package action

import (
	"bytes"
	"encoding/json"
	"io"
	"maps"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestPackaged(t *testing.T) {
	for _, c := range []struct {
		path string
		uid  uint32
		mode uint32
		want bool
	}{
		{"/usr/bin/sudo", 0, 0o4755, true},
		{"/bin/sh", 0, 0o755, true},
		{"/sbin/init", 0, 0o755, true},
		{"/lib64/ld.so", 0, 0o755, true},
		{"/etc/passwd", 0, 0o644, true},
		{"/boot/kernel", 0, 0o600, true},
		{"/usr/bin/theirs", 1000, 0o755, false},
		{"/usr/bin/anybodys", 0, 0o757, false},
		{"/usr/local/bin/groups", 0, 0o775, false},
		{"/tmp/usr/bin/sh", 0, 0o755, false},
		{"/user/sh", 0, 0o755, false},
		{"/root/sh", 0, 0o755, false},
	} {
		if got := packaged(c.path, unix.Stat_t{Uid: c.uid, Mode: unix.S_IFREG | c.mode}); got != c.want {
			t.Errorf("%s of user %d, mode %o: %t", c.path, c.uid, c.mode, got)
		}
	}
}

func TestParseMounts(t *testing.T) {
	got, err := parseMounts(strings.NewReader(`22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
30 22 0:26 / /mnt/a\040-\040b rw - fuse.sshfs host:/ - x rw,user_id=1000
31 22 0:27 / /no/separator rw fuse x
32 22 0:28 / /` + strings.Repeat("too/long/", 1<<14) + ` rw - fuse.sshfs x rw
33 22 0:28 / /` + strings.Repeat("/", 1<<16-len("33 22 0:28 / /")) + `34 22 0:29 / / rw - ext4 forged by the end of a line
35 22 0:30 / /last rw - xfs x`))
	if want := (mounts{"22": "ext4", "30": "fuse.sshfs", "35": "xfs"}); err != nil || !maps.Equal(got, want) {
		t.Errorf("got %v, %v, want %v", got, err, want)
	}
	if got := parseMountID([]byte("pos:\t0\nflags:\t012\nmnt_id:\t30\nino:\t2\n")); got != "30" {
		t.Errorf("mount %q", got)
	}
}

// TestParseManyMounts reads as many mounts as a user may make, with names of 4096 bytes.
func TestParseManyMounts(t *testing.T) {
	line := "22 1 0:26 / /" + strings.Repeat(`\040`, 4095) + " rw - tmpfs none rw\n"
	var lines []io.Reader
	for range 10_000 {
		lines = append(lines, strings.NewReader(line))
	}
	var got mounts
	used := allocated(func() { got, _ = parseMounts(io.MultiReader(lines...)) })
	if want := (mounts{"22": "tmpfs"}); used > 1<<20 || !maps.Equal(got, want) {
		t.Errorf("got %v, for %d bytes of memory", got, used)
	}
}

func FuzzParseMounts(f *testing.F) {
	f.Add([]byte("22 1 254:0 / / rw - ext4 /dev/vda rw\n"))
	f.Add([]byte("30 22 0:26 / /a\\040-\\040b rw - fuse.sshfs x - y\n"))
	f.Add([]byte("mnt_id:\t30\n - \n"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		all, err := parseMounts(bytes.NewReader(raw))
		if err != nil {
			t.Fatal(err)
		}
		for id, kind := range all {
			if !strings.Contains(string(raw), id) || !strings.Contains(string(raw), kind) {
				t.Fatalf("%q has no mount %q of type %q", raw, id, kind)
			}
		}
		if id := parseMountID(raw); !strings.Contains(string(raw), id) {
			t.Fatalf("%q has no mount %q", raw, id)
		}
	})
}

const aManifest = `{"path":"/tmp/x","sha256":"e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855","size":0,"mode":"4755","from":"path"}`

func TestParseManifest(t *testing.T) {
	m, err := parseManifest([]byte(aManifest))
	if err != nil {
		t.Fatal(err)
	}
	if mode, err := m.mode(); err != nil || mode != 0o4755 {
		t.Errorf("mode %o, %v", mode, err)
	}
	for _, change := range [][2]string{
		{"/tmp/x", "../x"}, {"/tmp/x", "/tmp/../x"}, {"e3b0", "E3b"}, {"e3b0", "xxxx"}, {`"size":0`, `"size":-1`}, {`"size":0`, `"size":1073741825`},
		{"4755", "10000"}, {"4755", "9"}, {`"4755"`, "4755"}, {aManifest, ""}, {aManifest, "null"}, {aManifest, strings.Repeat(" ", maxManifest) + aManifest},
	} {
		if m, err := parseManifest([]byte(strings.Replace(aManifest, change[0], change[1], 1))); err == nil {
			t.Errorf("with %q for %q: %+v", clip(change[1], 40), change[0], m)
		}
	}
}

func FuzzParseManifest(f *testing.F) {
	f.Add([]byte(aManifest))
	f.Add([]byte(`{"path":"/"}`))
	f.Add([]byte(`null`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		m, err := parseManifest(raw)
		if err != nil {
			return
		}
		if _, err := m.mode(); err != nil || validPath(m.Path) != nil || m.Size < 0 || m.Size > maxFile {
			t.Fatalf("%q is read as %+v", raw, m)
		}
		again, err := json.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		if back, err := parseManifest(again); err != nil || back.Path != m.Path || back.SHA256 != m.SHA256 || back.Mode != m.Mode {
			t.Fatalf("%+v, then %+v, %v", m, back, err)
		}
	})
}
