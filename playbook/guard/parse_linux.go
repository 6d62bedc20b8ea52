package guard

import (
	"bytes"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

type addrs = []netip.Addr

// parseResolv reads the name servers in a resolv.conf(5). A line that the resolver would
// not understand protects nobody.
func parseResolv(raw []byte) (list addrs) {
	for line := range strings.Lines(string(raw)) {
		f := strings.Fields(line)
		if len(f) < 2 || f[0] != "nameserver" {
			continue
		}
		if addr, err := netip.ParseAddr(f[1]); err == nil {
			list = append(list, addr)
		}
	}
	return list
}

// parseSSH reads the clients from the environment of a process, see ssh(1).
func parseSSH(environ []byte) (list addrs) {
	for entry := range bytes.SplitSeq(environ, []byte{0}) {
		name, value, _ := strings.Cut(string(entry), "=")
		if name != "SSH_CONNECTION" && name != "SSH_CLIENT" {
			continue
		}
		client, _, _ := strings.Cut(value, " ")
		if addr, err := netip.ParseAddr(client); err == nil {
			list = append(list, addr)
		}
	}
	return list
}

// parseUID reads the effective user from /proc/PID/status. The owner of /proc/PID would
// not do: it is root where a process has made itself undumpable.
func parseUID(status []byte) (int, error) {
	for line := range strings.Lines(string(status)) {
		rest, ok := strings.CutPrefix(line, "Uid:")
		if !ok {
			continue
		}
		f := strings.Fields(rest) // real, effective, saved, file system
		if len(f) != 4 {
			return 0, fmt.Errorf("users of a process: %q", line)
		}
		return strconv.Atoi(f[1])
	}
	return 0, fmt.Errorf("no line Uid in the status of a process")
}

// parseMounted says whether a file, by its /proc/PID/fdinfo/FD, is on one of the mounts in
// a /proc/PID/mountinfo, see proc(5), and that one not a FUSE mount of a user's.
func parseMounted(info, mounts []byte) (bool, error) {
	id := ""
	for line := range strings.Lines(string(info)) {
		if rest, ok := strings.CutPrefix(line, "mnt_id:"); ok {
			id = strings.TrimSpace(rest)
		}
	}
	if id == "" {
		return false, fmt.Errorf("no line mnt_id of an open file (needs Linux 3.15)")
	}
	for line := range strings.Lines(string(mounts)) {
		head, tail, ok := strings.Cut(line, " - ") // type, source and options of the file system
		if mount, _, _ := strings.Cut(head, " "); mount != id {
			continue
		}
		f := strings.Fields(tail)
		if !ok || len(f) < 2 {
			return false, fmt.Errorf("mount without a file system: %q", line)
		}
		root := slices.Contains(strings.Split(f[len(f)-1], ","), "user_id=0")
		return !strings.HasPrefix(f[0], "fuse") || root, nil
	}
	return false, nil
}
