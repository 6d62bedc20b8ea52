package action

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"riposte/stream/proc"
)

// part is one member of the archive and where it comes from. What a part returns beside an
// error is kept: it is what could be had.
type part struct {
	name string
	read func(pid int) ([]byte, error)
}

const (
	maxTable   = 16 << 20 // bytes of a file in /proc that are read
	maxFDs     = 1 << 14  // descriptors that are listed
	maxParents = 128
	maxArgs1   = 4 << 10 // bytes of a parent's command line
	pieceSize  = 1 << 20
)

// errExited is the fault of a part that was read by number when the process had exited: the
// number may have been another's by then.
var errExited = errors.New("the process had exited before it could be told that this is its")

// collect writes all parts into w, but for the manifest. Each is read by the process's number
// and then proven by the descriptor: it is the process's only if that still lives. The
// executable is opened first, and copied last: once open it stays, whatever the process does,
// and as the largest it takes what the others have left.
func (c *CollectEvidence) collect(ctx context.Context, env Env, target pidfd, w io.Writer) (*archive, error) {
	ctx, cancel := readUntil(ctx)
	defer cancel()
	m := manifest{Format: 1, Key: env.Key, AlertID: env.AlertID, Begun: time.Now().UTC(), PID: c.PID, MaxSize: c.MaxSize}
	m.Hostname, _ = os.Hostname()
	m.BootID, _ = proc.BootID()
	m.PIDNS, _ = proc.Namespace()
	pid := int(c.PID)

	exe, exeErr := within(ctx, patience, func() (opened, error) { return openExe(processDir(pid)) })
	if exe.file != nil {
		defer exe.file.Close()
	}
	if st, err := proc.ReadStat(pid); err == nil {
		m.StartTicks, m.Name = st.StartTicks, printable(st.Comm)
	}
	proven := func() error {
		if gone, err := target.exited(0); gone || err != nil {
			return errors.Join(errExited, err)
		}
		return nil
	}
	if err := proven(); err != nil {
		exe, exeErr = opened{}, err
		m.StartTicks, m.Name = c.StartTicks, ""
	}
	a := newArchive(w, c.MaxSize, m)
	for _, p := range parts() {
		data, err := readProven(ctx, proven, func() ([]byte, error) { return p.read(pid) })
		if err := a.add(p.name, data, len(data) >= maxTable, err); err != nil {
			return nil, err
		}
	}
	if exeErr == nil {
		exeErr = a.stream("exe", exe.size, pieces(ctx, exe.file))
		if exeErr != nil {
			return nil, exeErr
		}
	} else if err := a.add("exe", nil, false, exeErr); err != nil {
		return nil, err
	}
	now, err := within(ctx, patience, func() (unix.Statx_t, error) { return exeNow(processDir(pid)) })
	a.manifest.Alive = proven() == nil
	a.manifest.ExeChanged = a.manifest.Alive && err == nil && exe.file != nil && !sameFile(now, exe.st)
	a.manifest.Ended = time.Now().UTC()
	return a, nil
}

// readProven reads a part and keeps it only where it is proven, afterwards, to be the
// process's. Nothing is read of one that has gone.
func readProven(ctx context.Context, proven func() error, read func() ([]byte, error)) ([]byte, error) {
	if err := proven(); err != nil {
		return nil, err
	}
	data, err := withinKeep(ctx, read)
	if gone := proven(); gone != nil {
		return nil, gone
	}
	return data, err
}

// processDir is the folder in /proc that shows the process. One whose first thread has exited
// looks like a zombie and shows nothing of its own; its other threads still do.
func processDir(pid int) string {
	self := fmt.Sprintf("/proc/%d/", pid)
	if st, err := proc.ReadStat(pid); err != nil || !st.Zombie() {
		return self
	}
	threads, _ := os.ReadDir(self + "task")
	for _, thread := range threads {
		dir := self + "task/" + thread.Name() + "/"
		if _, err := os.Readlink(dir + "exe"); err == nil {
			return dir
		}
	}
	return self
}

// readUntil leaves a part of the time that a step has for writing what was read.
func readUntil(ctx context.Context) (context.Context, context.CancelFunc) {
	deadline, ok := ctx.Deadline()
	if !ok {
		return context.WithCancel(ctx)
	}
	reserve := min(time.Until(deadline)/4, 5*time.Second)
	return context.WithDeadline(ctx, deadline.Add(-reserve))
}

// withinKeep is within, for a read that may have got something in spite of an error.
func withinKeep(ctx context.Context, read func() ([]byte, error)) ([]byte, error) {
	type got struct {
		data  []byte
		fault error
	}
	g, err := within(ctx, patience, func() (got, error) {
		data, fault := read()
		return got{data, fault}, nil
	})
	return g.data, errors.Join(g.fault, err)
}

// parts are all but the executable.
func parts() []part {
	var all []part
	for _, name := range []string{"stat", "status", "limits", "cgroup", "cmdline", "maps"} {
		all = append(all, part{name, func(pid int) ([]byte, error) { return readSome(processDir(pid)+name, maxTable) }})
	}
	return append(all,
		part{"environ", func(pid int) ([]byte, error) {
			raw, err := readSome(processDir(pid)+"environ", maxTable)
			return redactEnviron(raw), err
		}},
		part{"links.json", links},
		part{"fds.ndjson", descriptorLines},
		part{"open_files.ndjson", openFileLines},
		part{"parents.ndjson", parentLines},
	)
}

// readSome reads a file up to a bound.
func readSome(path string, most int64) ([]byte, error) {
	file, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	return io.ReadAll(io.LimitReader(file, most))
}

// opened is the executable of a process, which stays what it is.
type opened struct {
	file *os.File
	size int64
	st   unix.Statx_t
}

func openExe(dir string) (opened, error) {
	file, err := os.OpenFile(dir+"exe", os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return opened{}, err
	}
	o := opened{file: file}
	err = unix.Statx(int(file.Fd()), "", unix.AT_EMPTY_PATH, unix.STATX_BASIC_STATS, &o.st)
	if o.size = int64(o.st.Size); err != nil || o.size < 0 || o.st.Mode&unix.S_IFMT != unix.S_IFREG {
		return opened{}, errors.Join(fmt.Errorf("%sexe is not a regular file that can be looked at: %v", dir, err), file.Close())
	}
	return o, nil
}

func exeNow(dir string) (st unix.Statx_t, err error) {
	err = unix.Statx(unix.AT_FDCWD, dir+"exe", unix.AT_STATX_DONT_SYNC, unix.STATX_INO, &st)
	return st, err
}

func sameFile(a, b unix.Statx_t) bool {
	return a.Ino == b.Ino && a.Dev_major == b.Dev_major && a.Dev_minor == b.Dev_minor
}

// pieces reads a file piece by piece, each within the patience for one.
func pieces(ctx context.Context, file *os.File) func() ([]byte, error) {
	at := int64(0)
	return func() ([]byte, error) {
		if err := ctx.Err(); err != nil {
			return nil, errors.New("no time was left")
		}
		begin := at
		piece, err := withinKeep(ctx, func() ([]byte, error) {
			buf := make([]byte, pieceSize)
			n, err := file.ReadAt(buf, begin)
			if n > 0 && err == io.EOF {
				err = nil
			}
			return buf[:n], err
		})
		at += int64(len(piece))
		return piece, err
	}
}

// links are where the links of a process point to.
func links(pid int) ([]byte, error) {
	dir := processDir(pid)
	names := []string{"exe", "cwd", "root"}
	spaces, err := os.ReadDir(dir + "ns")
	errs := []error{err}
	for _, ns := range spaces {
		names = append(names, "ns/"+ns.Name())
	}
	all := map[string]string{}
	for _, name := range names {
		if all[name], err = os.Readlink(dir + name); err != nil {
			delete(all, name)
			errs = append(errs, err)
		}
	}
	if len(all) == 0 {
		return nil, errors.Join(errs...)
	}
	raw, err := json.MarshalIndent(all, "", "  ")
	return append(raw, '\n'), errors.Join(append(errs, err)...)
}

// descriptor is an open file of a process, as far as it can be told without asking whoever
// serves it.
type descriptor struct {
	FD      int      `json:"fd"`
	Target  string   `json:"target,omitempty"`
	Flags   string   `json:"flags,omitempty"` // octal, see open(2)
	Pos     string   `json:"pos,omitempty"`
	Sockets []socket `json:"sockets,omitempty"` // one; more where somebody has forged a line in the table
	Error   string   `json:"error,omitempty"`
}

// descriptorLines are all descriptors, with the addresses of sockets.
func descriptorLines(pid int) ([]byte, error) {
	dir := processDir(pid)
	fds, err := listFDs(dir)
	if err != nil && len(fds) == 0 {
		return nil, err
	}
	errs := []error{err}
	wanted := map[uint64]bool{}
	list := make([]descriptor, len(fds))
	for i, fd := range fds {
		list[i] = readDescriptor(dir, fd)
		if inode, ok := socketInode(list[i].Target); ok {
			wanted[inode] = true
		}
	}
	if len(wanted) > 0 {
		sockets, err := readSockets(dir, wanted)
		errs = append(errs, err)
		for i := range list {
			if inode, ok := socketInode(list[i].Target); ok {
				list[i].Sockets = sockets[inode]
			}
		}
	}
	raw, err := jsonLines(list)
	return raw, errors.Join(append(errs, err)...)
}

// listFDs are the numbers of a process's descriptors, up to a bound, in order.
func listFDs(dir string) ([]int, error) {
	folder, err := os.Open(dir + "fd")
	if err != nil {
		return nil, err
	}
	defer folder.Close()
	names, err := folder.Readdirnames(maxFDs + 1)
	if err == io.EOF { // none
		err = nil
	}
	if len(names) > maxFDs {
		names, err = names[:maxFDs], fmt.Errorf("more than %d descriptors; the others are left out", maxFDs)
	}
	var fds []int
	for _, name := range names {
		if fd, err := strconv.Atoi(name); err == nil {
			fds = append(fds, fd)
		}
	}
	slices.Sort(fds)
	return fds, err
}

func readDescriptor(dir string, fd int) descriptor {
	d := descriptor{FD: fd}
	var err error
	if d.Target, err = os.Readlink(dir + "fd/" + strconv.Itoa(fd)); err != nil {
		d.Error = err.Error()
		return d
	}
	info, err := readSome(dir+"fdinfo/"+strconv.Itoa(fd), 1<<10)
	if err != nil {
		d.Error = err.Error()
	}
	d.Pos, d.Flags = parseFDInfo(info)
	return d
}

// parseFDInfo finds the position and the flags, as the kernel writes them.
func parseFDInfo(info []byte) (pos, flags string) {
	for line := range strings.Lines(string(info)) {
		name, value, _ := strings.Cut(line, ":")
		switch value = clip(strings.TrimSpace(value), 32); {
		case name == "pos" && pos == "":
			pos = value
		case name == "flags" && flags == "":
			flags = value
		}
	}
	return pos, flags
}

// readSockets looks the sockets up in the tables of the process's network namespace.
func readSockets(dir string, wanted map[uint64]bool) (map[uint64][]socket, error) {
	all := map[uint64][]socket{}
	var errs []error
	for _, table := range append(slices.Clone(internetTables), unixTable) {
		raw, err := readSome(dir+"net/"+table, maxTable)
		if errors.Is(err, os.ErrNotExist) { // a kernel without IPv6, say
			continue
		}
		if len(raw) == maxTable {
			err = fmt.Errorf("net/%s has more than %d bytes; the rest was not looked at", table, maxTable)
		}
		errs = append(errs, err)
		for inode, found := range parseSockets(table, raw, wanted) {
			all[inode] = append(all[inode], found...)
		}
	}
	return all, errors.Join(errs...)
}

// openFile is a regular file that a process has open.
type openFile struct {
	Path   string `json:"path"` // with " (deleted)" where it has none any more
	FDs    []int  `json:"fds"`
	Device string `json:"device"`
	Inode  uint64 `json:"inode"`
	Size   uint64 `json:"size"`
	Mode   string `json:"mode"` // octal
	UID    uint32 `json:"uid"`
}

// openFileLines are the regular files among the descriptors, each once. Whoever serves a file
// is not asked: sizes may be of a moment ago.
func openFileLines(pid int) ([]byte, error) {
	dir := processDir(pid)
	fds, err := listFDs(dir)
	if err != nil && len(fds) == 0 {
		return nil, err
	}
	errs := []error{err}
	var files []*openFile
	at := map[string]*openFile{}
	for _, fd := range fds {
		name := dir + "fd/" + strconv.Itoa(fd)
		var st unix.Statx_t
		if err := unix.Statx(unix.AT_FDCWD, name, unix.AT_STATX_DONT_SYNC, unix.STATX_BASIC_STATS, &st); err != nil {
			if err != unix.ENOENT { // closed since
				errs = append(errs, &os.PathError{Op: "statx", Path: name, Err: err})
			}
			continue
		}
		if st.Mode&unix.S_IFMT != unix.S_IFREG {
			continue
		}
		path, err := os.Readlink(name)
		errs = append(errs, err)
		f := &openFile{Path: path, Device: fmt.Sprintf("%d:%d", st.Dev_major, st.Dev_minor), Inode: st.Ino, Size: st.Size,
			Mode: fmt.Sprintf("%o", st.Mode&0o7777), UID: st.Uid}
		id := fmt.Sprint(f.Device, " ", f.Inode, " ", f.Path)
		if at[id] == nil {
			at[id] = f
			files = append(files, f)
		}
		at[id].FDs = append(at[id].FDs, fd)
	}
	raw, err := jsonLines(files)
	return raw, errors.Join(append(errs, err)...)
}

// ancestor is a process above the one that evidence is collected of.
type ancestor struct {
	PID        int      `json:"pid"`
	PPID       int      `json:"ppid"`
	StartTicks uint64   `json:"start_ticks"`
	Name       string   `json:"name"`
	Exe        string   `json:"exe,omitempty"`
	Argv       []string `json:"argv,omitempty"`
	Error      string   `json:"error,omitempty"`
}

// parentLines are the process's parent, grandparent and so on, up to PID 1. A parent that
// started after its child is another process that got its number: there the chain ends.
func parentLines(pid int) ([]byte, error) {
	child, err := proc.ReadStat(pid)
	if err != nil {
		return nil, err
	}
	chain := []ancestor{}
	for child.PPID != 0 && len(chain) < maxParents {
		st, err := proc.ReadStat(child.PPID)
		if err == nil && st.StartTicks > child.StartTicks {
			err = fmt.Errorf("PID %d started after its child and is another process", child.PPID)
		}
		if err != nil {
			raw, err2 := jsonLines(chain)
			return raw, errors.Join(fmt.Errorf("the chain ends early: %w", err), err2)
		}
		a := ancestor{PID: st.PID, PPID: st.PPID, StartTicks: st.StartTicks, Name: st.Comm}
		var err1, err2 error
		a.Exe, err1 = proc.ReadExe(st.PID)
		cmdline, err2 := readSome(fmt.Sprintf("/proc/%d/cmdline", st.PID), maxArgs1)
		if len(cmdline) > 0 {
			a.Argv = strings.Split(strings.TrimSuffix(string(cmdline), "\x00"), "\x00")
		}
		if err := errors.Join(err1, err2); err != nil {
			a.Error = clip(err.Error(), maxFault)
		}
		chain = append(chain, a)
		child = st
	}
	return jsonLines(chain)
}

// jsonLines writes each element as one line.
func jsonLines[T any](list []T) ([]byte, error) {
	var out bytes.Buffer
	enc := json.NewEncoder(&out)
	enc.SetEscapeHTML(false)
	for _, one := range list {
		if err := enc.Encode(one); err != nil {
			return out.Bytes(), err
		}
	}
	return out.Bytes(), nil
}
