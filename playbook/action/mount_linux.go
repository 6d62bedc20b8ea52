package action

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// mounts knows the file system types of mounts by their IDs.
type mounts map[string]string

// readMounts reads those that a process has, by its folder in /proc.
func readMounts(self string) (mounts, error) {
	file, err := os.Open(self + "/mountinfo")
	if err != nil {
		return nil, err
	}
	defer file.Close()
	return parseMounts(file)
}

// kernelFiles are file systems whose files are no files.
var kernelFiles = []string{
	"proc", "sysfs", "cgroup", "cgroup2", "debugfs", "tracefs", "securityfs", "configfs", "bpf", "binfmt_misc",
	"devpts", "efivarfs", "mqueue", "nsfs", "pstore", "selinuxfs", "smackfs", "fusectl", "autofs", "rpc_pipefs",
}

// check refuses a descriptor of what is on a file system that a program of some user's may be,
// which answers what it likes, or never; and of the kernel's own. It asks nothing of the file
// system itself.
func (m mounts) check(fd int) error {
	info, err := os.ReadFile("/proc/self/fdinfo/" + strconv.Itoa(fd))
	if err != nil {
		return err
	}
	switch kind := m[parseMountID(info)]; {
	case kind == "":
		return errUnlisted
	case strings.HasPrefix(kind, "fuse") && kind != "fusectl":
		return Refuse("it is on a FUSE file system, which is a program and may answer anything, or never")
	case slices.Contains(kernelFiles, kind):
		return Refuse("it is on a file system of the kernel's (%s)", clip(kind, 40))
	}
	return nil
}

// errUnlisted says that a mount was made just now, or is in another mount namespace.
var errUnlisted = errors.New("its mount is not in /proc/self/mountinfo")

// checkExe is check for the executable of a process, which may be in a mount namespace of its
// own, or in no folder at all, as memfd_create(2) makes it.
func checkExe(fd, pid int) error {
	var err error
	for _, self := range []string{"/proc/self", fmt.Sprintf("/proc/%d", pid)} {
		all, err2 := readMounts(self)
		if err2 != nil {
			return Refuse("the mounts of PID %d cannot be read: %v", pid, err2)
		}
		if err = all.check(fd); !errors.Is(err, errUnlisted) {
			return err
		}
	}
	if inMemory(fd) {
		return nil
	}
	return Refuse("the file system of what PID %d runs cannot be told: %v", pid, err)
}

// inMemory says that a file is where memfd_create(2) makes its own.
func inMemory(fd int) bool {
	mine, err := unix.MemfdCreate("riposte", unix.MFD_CLOEXEC)
	if err != nil {
		return false
	}
	defer unix.Close(mine)
	var a, b unix.Statx_t
	const flags = unix.AT_EMPTY_PATH | unix.AT_STATX_DONT_SYNC
	if unix.Statx(mine, "", flags, unix.STATX_INO, &a) != nil || unix.Statx(fd, "", flags, unix.STATX_INO, &b) != nil {
		return false
	}
	return a.Dev_major == b.Dev_major && a.Dev_minor == b.Dev_minor
}

// parseMountID reads the mount of an open file from its /proc/PID/fdinfo/FD.
func parseMountID(info []byte) string {
	for line := range strings.Lines(string(info)) {
		if rest, ok := strings.CutPrefix(line, "mnt_id:"); ok {
			return strings.TrimSpace(rest)
		}
	}
	return ""
}

// parseMounts reads the file system types in a /proc/PID/mountinfo by mount ID, see proc(5). In
// namespaces of his own anybody may make a hundred thousand mounts, with names of any length: so
// nothing else is kept, and lines that are too long are left out.
func parseMounts(r io.Reader) (mounts, error) {
	types := mounts{}
	lines := bufio.NewReaderSize(r, 64<<10)
	for tooLong := false; ; {
		line, more, err := lines.ReadLine()
		if errors.Is(err, io.EOF) {
			return types, nil
		}
		if err != nil {
			return nil, err
		}
		head, tail, ok := bytes.Cut(line, []byte(" - ")) // spaces in names are written as \040
		id, _, _ := bytes.Cut(head, []byte(" "))
		kind, _, _ := bytes.Cut(tail, []byte(" "))
		if ok && len(id) > 0 && !tooLong && !more {
			types[string(id)] = string(kind)
		}
		tooLong = more
	}
}
