package gate

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"time"
)

// Life is this process's life file: locked for as long as the process lives.
type Life struct {
	file *os.File
	root *os.Root
	name string
}

// Member is a Riposte process as its life file shows it.
type Member struct {
	Holder
	Alive bool      // its lock is held; false is a proof of death
	Died  time.Time // when somebody first saw it dead; zero while it lives
	Left  bool      // it stopped in good order
}

// Join locks a life file for this process. The file is locked under another name first
// and then linked to its own, so that nobody ever finds it unlocked while we live.
func (g *Gate) Join() (*Life, error) {
	temporary, name := lifeDir+"/."+g.replica, lifeDir+"/"+g.replica
	f, err := g.run.OpenFile(temporary, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, fmt.Errorf("life file: %w", err)
	}
	raw, err := json.Marshal(g.self)
	if err == nil {
		_, err = f.Write(raw)
	}
	if err == nil {
		var ok bool
		if ok, err = tryLock(f); err == nil && !ok {
			err = errors.New("locked by another process")
		}
	}
	if err == nil { // the file's time is when its owner was first seen dead: see member
		err = g.run.Chtimes(temporary, time.Unix(0, 0), time.Unix(0, 0))
	}
	if err == nil {
		err = g.run.Rename(temporary, name)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("life file: %w", err), f.Close(), g.run.Remove(temporary))
	}
	return &Life{f, g.run.Root, name}, nil
}

// Leave removes the life file of a process that stops in good order: it holds nothing, so
// nobody needs a proof of its death.
func (l *Life) Leave() error { return errors.Join(l.root.Remove(l.name), l.file.Close()) }

// Retire says that the process is about to stop in good order, and leaves the file: once it
// is unlocked, peers take over at once what was delivered to this process and not begun,
// and hold nothing against it.
func (l *Life) Retire() error {
	_, err := l.file.WriteString(retired) // at its end: whoever reads meanwhile sees all or nothing of it
	return err
}

const retired = "\nleft\n"

// Members lists the Riposte processes of this host by their life files, the dead too.
func (g *Gate) Members() ([]Member, error) {
	dir, err := g.run.Open(lifeDir)
	if err != nil {
		return nil, fmt.Errorf("life files: %w", err)
	}
	defer dir.Close()
	entries, err := dir.ReadDir(-1)
	if err != nil {
		return nil, fmt.Errorf("life files: %w", err)
	}
	var members []Member
	for _, e := range entries {
		if e.Name()[0] == '.' || !e.Type().IsRegular() {
			continue
		}
		m, err := g.member(e.Name())
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("life file %s: %w", e.Name(), err)
		}
		members = append(members, m)
	}
	return members, nil
}

func (g *Gate) member(name string) (Member, error) {
	if name == g.replica { // our own lock would look held or free depending on the system
		return Member{Holder: g.self, Alive: true}, nil
	}
	f, err := g.run.OpenFile(lifeDir+"/"+name, os.O_RDONLY, 0)
	if err != nil {
		return Member{}, err
	}
	defer f.Close()
	raw, err := io.ReadAll(io.LimitReader(f, 4096))
	if err != nil {
		return Member{}, err
	}
	m, unreadable := parseLife(name, raw)
	free, err := tryShared(f) // all peers look at once when one dies, and must not see each other
	m.Alive = !free
	switch {
	case err != nil:
		return Member{}, err
	case m.Alive: // and then it matters who it is
		return m, unreadable
	}
	// Kept with the file, because whoever sees a death may not live long either.
	info, err := f.Stat()
	if err != nil {
		return Member{}, err
	}
	if m.Died = info.ModTime(); m.Died.Unix() == 0 {
		m.Died = time.Now()
		err = g.run.Chtimes(lifeDir+"/"+name, m.Died, m.Died)
	}
	return m, err
}

// parseLife reads a life file. One that a power cut has left unreadable still tells by its
// name whose it was; none tells of anybody else.
func parseLife(name string, raw []byte) (Member, error) {
	first, last, _ := bytes.Cut(raw, []byte("\n"))
	m := Member{Left: string(last) == retired[1:]}
	err := json.Unmarshal(first, &m.Holder)
	if err == nil && m.Replica != name {
		err = fmt.Errorf("it names %q", m.Replica)
	}
	if err != nil {
		m.Holder = Holder{Replica: name}
	}
	return m, err
}

// Forget removes the life file of a dead member, once nothing is pending under its name.
func (g *Gate) Forget(replica string) error {
	m, err := g.member(replica)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return fmt.Errorf("life file %s: %w", replica, err)
	case m.Alive:
		return fmt.Errorf("life file %s: still locked", replica)
	}
	if err := g.run.Remove(lifeDir + "/" + replica); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil // a peer was faster
}
