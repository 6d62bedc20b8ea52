package action

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"strings"
	"time"
)

// manifestName is the last member of an archive of evidence: where it can be read, the
// archive is complete.
const manifestName = "manifest.json"

// manifest says what an archive holds, and of whom.
type manifest struct {
	Format   int       `json:"format"` // 1
	Key      string    `json:"key"`    // of the step
	AlertID  string    `json:"alert_id"`
	Begun    time.Time `json:"begun"` // by this host's clock
	Ended    time.Time `json:"ended"`
	Hostname string    `json:"hostname"`

	PID        int64  `json:"pid"`
	StartTicks uint64 `json:"start_ticks"`
	BootID     string `json:"boot_id"`
	PIDNS      uint64 `json:"pid_ns"`
	Name       string `json:"name"` // comm

	// Alive says that the process lived on after the last part of it was read; without that a
	// part is missing. ExeChanged says that it ran another file by then than the one that was
	// copied: parts may be of before and of after.
	Alive      bool `json:"alive_at_end"`
	ExeChanged bool `json:"exe_changed"`

	MaxSize Size     `json:"max_size"`
	Members []member `json:"members"`
}

// member is one file of an archive, or one that could not be had: then it has no sum.
type member struct {
	Name      string `json:"name"`
	Size      int64  `json:"size"`
	SHA256    string `json:"sha256,omitempty"` // of what is in the archive
	Truncated bool   `json:"truncated,omitempty"`
	Error     string `json:"error,omitempty"`
	// Of the whole of an executable that was cut: as far as there was time to read it.
	WholeSize   int64  `json:"whole_size,omitempty"`
	WholeSHA256 string `json:"whole_sha256,omitempty"`
}

const (
	manifestRoom = 64 << 10 // bytes that the manifest may take
	maxFault     = 300      // bytes of an error's text in it
)

// archive writes evidence as a tar.gz.
type archive struct {
	gz       *gzip.Writer
	tar      *tar.Writer
	sum      hash.Hash // of all that was written
	size     int64
	left     int64 // bytes that still fit, before compression
	share    int64 // what a part other than the executable may take of them
	manifest manifest
}

// newArchive begins an archive of at most limit bytes before compression.
func newArchive(w io.Writer, limit Size, m manifest) *archive {
	a := &archive{sum: sha256.New(), left: int64(limit) - manifestRoom, manifest: m}
	a.share = a.left / 16 // there are eleven such parts
	a.gz, _ = gzip.NewWriterLevel(io.MultiWriter(w, a.sum, (*counter)(&a.size)), gzip.BestSpeed)
	a.tar = tar.NewWriter(a.gz)
	return a
}

type counter int64

func (c *counter) Write(p []byte) (int, error) { *c += counter(len(p)); return len(p), nil }

// add writes a part. fault says what is wrong with it, if anything; without any data there is
// no member then, only a line in the manifest.
func (a *archive) add(name string, data []byte, truncated bool, fault error) error {
	m := member{Name: name, Truncated: truncated}
	if fault != nil {
		m.Error = printable(clip(fault.Error(), maxFault))
	}
	if fault != nil && len(data) == 0 {
		a.manifest.Members = append(a.manifest.Members, m)
		return nil
	}
	if room := min(a.left, a.share); int64(len(data)) > room {
		data, m.Truncated = data[:room], true
		if strings.HasSuffix(name, ".ndjson") { // whole lines only
			data = data[:bytes.LastIndexByte(data, '\n')+1]
		}
	}
	sum := sha256.Sum256(data)
	m.Size, m.SHA256 = int64(len(data)), hex.EncodeToString(sum[:])
	a.left -= m.Size
	a.manifest.Members = append(a.manifest.Members, m)
	if err := a.header(name, m.Size); err != nil {
		return err
	}
	_, err := a.tar.Write(data)
	return err
}

func (a *archive) header(name string, size int64) error {
	return a.tar.WriteHeader(&tar.Header{Name: name, Size: size, Mode: 0o400, ModTime: a.manifest.Begun, Format: tar.FormatPAX})
}

// stream writes a part of a known size, piece by piece. More than fits is read only for its
// sum. What cannot be read of it any more is zeros in the archive, for the size stands
// before the bytes.
func (a *archive) stream(name string, size int64, next func() ([]byte, error)) error {
	m := member{Name: name, Size: max(0, min(size, a.left))}
	m.Truncated = m.Size < size
	a.left -= m.Size
	if err := a.header(name, m.Size); err != nil {
		return err
	}
	kept, whole := sha256.New(), sha256.New()
	var read int64
	var fault error
	for read < size && fault == nil {
		var piece []byte
		piece, fault = next()
		piece = piece[:min(int64(len(piece)), size-read)]
		whole.Write(piece)
		if inside := piece[:max(0, min(int64(len(piece)), m.Size-read))]; len(inside) > 0 {
			kept.Write(inside)
			if _, err := a.tar.Write(inside); err != nil {
				return err
			}
		}
		read += int64(len(piece))
	}
	if read < size && fault != nil {
		m.Error = printable(clip(fmt.Sprintf("%d of %d bytes read: %v", read, size, fault), maxFault))
	}
	if err := a.pad(kept, m.Size-read); err != nil {
		return err
	}
	m.SHA256 = hex.EncodeToString(kept.Sum(nil))
	if m.Truncated {
		m.WholeSize = size
		if read == size {
			m.WholeSHA256 = hex.EncodeToString(whole.Sum(nil))
		}
	}
	a.manifest.Members = append(a.manifest.Members, m)
	return nil
}

func (a *archive) pad(kept io.Writer, missing int64) error {
	zeros := make([]byte, 64<<10)
	for ; missing > 0; missing -= int64(len(zeros)) {
		zeros = zeros[:min(int64(len(zeros)), missing)]
		kept.Write(zeros)
		if _, err := a.tar.Write(zeros); err != nil {
			return err
		}
	}
	return nil
}

// empty says that nothing at all was collected, and why.
func (a *archive) empty() error {
	var errs []error
	for _, m := range a.manifest.Members {
		if m.SHA256 != "" {
			return nil
		}
		errs = append(errs, fmt.Errorf("%s: %s", m.Name, m.Error))
	}
	return errors.Join(errs...)
}

// close writes the manifest and ends the archive. It returns its SHA-256 and size.
func (a *archive) close() (sum string, size int64, err error) {
	raw, err := json.MarshalIndent(a.manifest, "", "  ")
	if err != nil {
		return "", 0, err
	}
	if len(raw) > manifestRoom {
		return "", 0, fmt.Errorf("a manifest of %d bytes, more than %d", len(raw), manifestRoom)
	}
	if err := a.header(manifestName, int64(len(raw))); err != nil {
		return "", 0, err
	}
	_, err = a.tar.Write(raw)
	if err = errors.Join(err, a.tar.Close(), a.gz.Close()); err != nil {
		return "", 0, err
	}
	return hex.EncodeToString(a.sum.Sum(nil)), a.size, nil
}

// readArchive reads an archive to its end and returns its manifest, SHA-256 and size. The
// error says why it is not a complete one: every member must be there, with its sum.
func readArchive(r io.Reader) (m manifest, sum string, size int64, err error) {
	whole, length := sha256.New(), new(counter)
	r = io.TeeReader(r, io.MultiWriter(whole, length))
	gz, err := gzip.NewReader(r)
	if err != nil {
		return manifest{}, "", 0, err
	}
	sums := map[string]string{}
	files := tar.NewReader(gz)
	for {
		h, err := files.Next()
		if err != nil {
			return manifest{}, "", 0, fmt.Errorf("no %s: %w", manifestName, err)
		}
		if h.Name == manifestName {
			break
		}
		member := sha256.New()
		if _, err := io.Copy(member, files); err != nil {
			return manifest{}, "", 0, fmt.Errorf("%s: %w", h.Name, err)
		}
		sums[h.Name] = hex.EncodeToString(member.Sum(nil))
	}
	raw, err := io.ReadAll(io.LimitReader(files, manifestRoom+1))
	if err == nil {
		err = json.Unmarshal(raw, &m)
	}
	if err != nil {
		return manifest{}, "", 0, fmt.Errorf("%s: %w", manifestName, err)
	}
	for _, part := range m.Members {
		if part.SHA256 != sums[part.Name] {
			return manifest{}, "", 0, fmt.Errorf("%s does not have the sum in the manifest", part.Name)
		}
	}
	// To its very end, which has the sum of the compressed bytes.
	_, err = files.Next()
	if err != io.EOF {
		return manifest{}, "", 0, fmt.Errorf("something follows %s: %v", manifestName, err)
	}
	if _, err = io.Copy(io.Discard, gz); err == nil {
		_, err = io.Copy(io.Discard, r)
	}
	if err != nil {
		return manifest{}, "", 0, err
	}
	return m, hex.EncodeToString(whole.Sum(nil)), int64(*length), nil
}
