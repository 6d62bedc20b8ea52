package action

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strconv"
	"time"
)

// Names in an entry of the vault, STATE/vault/SHA-256 of the key of the step. The manifest is
// written last: an entry is complete where it has one.
const (
	vaultDir     = "vault"
	contentFile  = "content"       // 0400, a copy without capabilities: nobody runs it
	manifestFile = "manifest.json" // manifest
	restoredFile = "restored.json" // the manifest, once the file is back where it was
)

// manifest says of a file in the vault what it was.
type deposit struct {
	Path    string    `json:"path"`
	SHA256  string    `json:"sha256"`
	Size    int64     `json:"size"`
	UID     uint32    `json:"uid"`
	GID     uint32    `json:"gid"`
	Mode    string    `json:"mode"` // octal, with the setuid, setgid and sticky bits
	ModTime time.Time `json:"mtime"`
	Device  uint64    `json:"device"`
	Inode   uint64    `json:"inode"`
	Born    int64     `json:"born,omitempty"` // see born
	// Attributes are extended ones. The content in the vault has none: it is not to grant anything.
	Attributes map[string][]byte `json:"attributes,omitempty"`
	Left       int               `json:"attributes_left,omitempty"` // how many are not kept, at least
	// From is path, or process: then nothing was at the path any more, and the content is of
	// what the process ran.
	From  string    `json:"from"`
	Alert string    `json:"alert"`
	Key   string    `json:"key"`
	At    time.Time `json:"at"`
}

const (
	fromPath    = "path"
	fromProcess = "process"
	maxManifest = 64 << 10
)

// entry is one folder of the vault.
type entry struct {
	*os.Root
	name  string
	vault *os.Root
}

// entryName is the name of a step's entry, which is no outside string.
func entryName(key string) string {
	sum := sha256.Sum256([]byte(key))
	return hex.EncodeToString(sum[:])
}

// openVault opens the vault. It returns fs.ErrNotExist where there is none yet, unless it is
// to be made.
func openVault(env Env, create bool) (*os.Root, error) {
	if env.State == "" {
		return nil, Refuse("there is no folder to keep files in: set --state-dir")
	}
	state, err := os.OpenRoot(env.State)
	if err != nil {
		return nil, fmt.Errorf("state folder: %w", err)
	}
	defer state.Close()
	if create {
		if err := makeFolder(state, vaultDir); err != nil {
			return nil, err
		}
	}
	return state.OpenRoot(vaultDir)
}

// makeFolder makes a folder, if it is not there, and makes it last.
func makeFolder(in *os.Root, name string) error {
	err := in.Mkdir(name, 0o700)
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	if err == nil {
		err = syncRoot(in)
	}
	if err != nil {
		return fmt.Errorf("vault: %w", err)
	}
	return nil
}

func syncRoot(r *os.Root) error {
	dir, err := r.Open(".")
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

// openEntry opens an entry of the vault. It returns fs.ErrNotExist where there is none, unless
// it is to be made.
func openEntry(env Env, name string, create bool) (*entry, error) {
	vault, err := openVault(env, create)
	if err != nil {
		return nil, err
	}
	if create {
		if err := makeFolder(vault, name); err != nil {
			return nil, errors.Join(err, vault.Close())
		}
	}
	root, err := vault.OpenRoot(name)
	if err != nil {
		return nil, errors.Join(err, vault.Close())
	}
	return &entry{root, name, vault}, nil
}

func (e *entry) close() { _ = errors.Join(e.Root.Close(), e.vault.Close()) }

// read reads a manifest, by one of its two names. It is nil where there is none.
func (e *entry) read(name string) (*deposit, error) {
	f, err := e.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("entry %s of the vault: %w", e.name, err)
	}
	defer f.Close()
	raw, err := io.ReadAll(io.LimitReader(f, maxManifest+1))
	if err != nil {
		return nil, fmt.Errorf("entry %s of the vault: %w", e.name, err)
	}
	m, err := parseManifest(raw)
	if err != nil {
		return nil, fmt.Errorf("%s of entry %s of the vault: %w", name, e.name, err)
	}
	return m, nil
}

func parseManifest(raw []byte) (*deposit, error) {
	if len(raw) > maxManifest {
		return nil, fmt.Errorf("more than %d bytes", maxManifest)
	}
	m := new(deposit)
	if err := json.Unmarshal(raw, m); err != nil {
		return nil, err
	}
	if err := validPath(m.Path); err != nil {
		return nil, fmt.Errorf("path: %w", err)
	}
	if err := validDigest("sha256", m.SHA256); err != nil || m.SHA256 == "" {
		return nil, fmt.Errorf("sha256 %q", m.SHA256)
	}
	if _, err := m.mode(); err != nil {
		return nil, err
	}
	if m.Size < 0 || m.Size > maxFile {
		return nil, fmt.Errorf("size %d is not within 0 to %d", m.Size, maxFile)
	}
	return m, nil
}

// mode is the mode as chmod(2) takes it.
func (m *deposit) mode() (uint32, error) {
	mode, err := strconv.ParseUint(m.Mode, 8, 12)
	if err != nil {
		return 0, fmt.Errorf("mode: %w", err)
	}
	return uint32(mode), nil
}

// keep copies content into the entry and writes its manifest, which is completed here. What an
// earlier attempt left is written anew.
func (e *entry) keep(ctx context.Context, content io.Reader, m *deposit, want string) error {
	if err := e.forget(); err != nil {
		return err
	}
	f, err := e.OpenFile(contentFile, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return fmt.Errorf("vault: %w", err)
	}
	m.SHA256, m.Size, err = copyHashed(ctx, f, content)
	if err == nil && want != "" && want != m.SHA256 {
		err = Refuse("the SHA-256 of %s is %s, not %s", quoted(m.Path), m.SHA256, want)
	}
	if err == nil {
		err = errors.Join(f.Chmod(0o400), f.Sync())
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("copy into the vault: %w", errors.Join(err, e.forget()))
	}
	m.At = time.Now().UTC()
	raw, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return fmt.Errorf("manifest: %w", err)
	}
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("copied into the vault, and no further: %w", err)
	}
	return e.write(manifestFile, append(raw, '\n'))
}

// forget removes what is in the entry: the manifest first, without which the rest counts for
// nothing.
func (e *entry) forget() error {
	if err := e.remove(manifestFile, restoredFile); err != nil {
		return err
	}
	return e.remove(contentFile)
}

// remove removes files of the entry for good.
func (e *entry) remove(names ...string) error {
	removed := false
	for _, name := range names {
		err := e.Remove(name)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("vault: %w", err)
		}
		removed = removed || err == nil
	}
	if removed {
		if err := syncRoot(e.Root); err != nil {
			return fmt.Errorf("vault: %w", err)
		}
	}
	return nil
}

// drop removes the entry.
func (e *entry) drop() error {
	if err := errors.Join(e.forget(), e.vault.RemoveAll(e.name)); err != nil {
		return fmt.Errorf("vault: %w", err)
	}
	return nil
}

// write writes a small file that is there whole or not at all, for good.
func (e *entry) write(name string, raw []byte) error {
	part := name + ".part"
	f, err := e.OpenFile(part, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return fmt.Errorf("vault: %w", err)
	}
	_, err = f.Write(raw)
	if err = errors.Join(err, f.Sync(), f.Close()); err == nil {
		err = e.Rename(part, name)
	}
	if err = errors.Join(err, syncRoot(e.Root)); err != nil {
		return fmt.Errorf("vault: %w", err)
	}
	return nil
}

// copyHashed copies at most maxFile bytes and says what they are.
func copyHashed(ctx context.Context, to io.Writer, from io.Reader) (digest string, size int64, err error) {
	hash, chunk := sha256.New(), make([]byte, 1<<20)
	for {
		if err := ctx.Err(); err != nil {
			return "", 0, err
		}
		n, err := from.Read(chunk)
		if size += int64(n); size > maxFile {
			return "", 0, Refuse("it has more than %d bytes", maxFile)
		}
		hash.Write(chunk[:n])
		if _, err := to.Write(chunk[:n]); err != nil {
			return "", 0, err
		}
		if errors.Is(err, io.EOF) {
			return hex.EncodeToString(hash.Sum(nil)), size, nil
		}
		if err != nil {
			return "", 0, err
		}
	}
}
