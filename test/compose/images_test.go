package compose_test

import (
	"archive/tar"
	"fmt"
	"io"
	"os"
	"os/exec"
	"regexp"
	"testing"

	"riposte/test/build"
	"riposte/test/need"
)

// Both images are made of what this machine has, without a registry.

// riposteImage is what the Dockerfile makes: the static binary and /tmp.
func riposteImage(t *testing.T, name string) {
	t.Helper()
	binary := build.Riposte(t)
	load(t, name, `ENTRYPOINT ["/riposte"]`, func(w *tar.Writer) error {
		if err := w.WriteHeader(&tar.Header{Name: "tmp/", Typeflag: tar.TypeDir, Mode: 0o1777}); err != nil {
			return err
		}
		return pack(w, binary, "riposte")
	})
}

var library = regexp.MustCompile(`/\S+`) // in the output of ldd

// redisImage holds the redis-server and redis-cli of this machine, and their libraries.
func redisImage(t *testing.T, name string) {
	t.Helper()
	files := map[string]bool{}
	for _, program := range []string{"redis-server", "redis-cli"} {
		path := need.Binary(t, program)
		files[path] = true
		out, err := exec.Command(need.Binary(t, "ldd"), path).Output()
		if err != nil {
			t.Fatalf("ldd %s: %v", path, err)
		}
		for _, lib := range library.FindAllString(string(out), -1) {
			files[lib] = true
		}
	}
	load(t, name, `CMD ["redis-server"]`, func(w *tar.Writer) error {
		for path := range files {
			if err := pack(w, path, path[1:]); err != nil {
				return err
			}
		}
		return nil
	})
}

// load makes an image of what fill writes. It is removed when the test ends.
func load(t *testing.T, name, change string, fill func(*tar.Writer) error) {
	t.Helper()
	read, write := io.Pipe()
	go func() {
		w := tar.NewWriter(write)
		err := fill(w)
		if err == nil {
			err = w.Close()
		}
		write.CloseWithError(err)
	}()
	cmd := exec.Command("docker", "import", "--change", change, "-", name)
	cmd.Stdin = read
	out, err := cmd.CombinedOutput()
	read.Close()
	if err != nil {
		t.Fatalf("docker import %s: %v\n%s", name, err, out)
	}
	t.Cleanup(func() {
		if out, err := exec.Command("docker", "image", "rm", name).CombinedOutput(); err != nil {
			t.Errorf("image %s stays: %v\n%s", name, err, out)
		}
	})
}

// pack adds a file, or the file a link leads to.
func pack(w *tar.Writer, from, to string) error {
	f, err := os.Open(from)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if err := w.WriteHeader(&tar.Header{Name: to, Mode: 0o755, Size: info.Size()}); err != nil {
		return err
	}
	if _, err := io.Copy(w, f); err != nil {
		return fmt.Errorf("pack %s: %w", from, err)
	}
	return nil
}
