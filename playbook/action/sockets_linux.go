package action

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"strconv"
	"strings"
)

// socket is what a table in /proc/PID/net says of one.
type socket struct {
	Protocol string `json:"protocol"` // the table's name: tcp, tcp6, udp, udp6, raw, raw6, unix
	Local    string `json:"local,omitempty"`
	Remote   string `json:"remote,omitempty"`
	State    string `json:"state,omitempty"` // by name for tcp, else as the kernel writes it
	Path     string `json:"path,omitempty"`  // of a unix socket; the kernel writes @ for NUL
}

// internetTables are those of one format, and then there is unix.
var internetTables = []string{"tcp", "tcp6", "udp", "udp6", "raw", "raw6"}

const unixTable = "unix"

// tcpStates are named as ss(8) does, see enum in include/net/tcp_states.h.
var tcpStates = map[string]string{
	"01": "established", "02": "syn-sent", "03": "syn-recv", "04": "fin-wait-1", "05": "fin-wait-2", "06": "time-wait",
	"07": "close", "08": "close-wait", "09": "last-ack", "0A": "listen", "0B": "closing", "0C": "new-syn-recv",
}

// parseSockets finds those sockets of a table that somebody wants, by inode. What cannot be
// understood is left out. Whoever binds a unix socket may have a line feed in its name, and so
// a line of his own making in the table: an inode may come out with two sockets then.
func parseSockets(table string, raw []byte, wanted map[uint64]bool) map[uint64][]socket {
	found := map[uint64][]socket{}
	parse := parseInternet
	if table == unixTable {
		parse = parseUnix
	}
	for line := range bytes.Lines(raw) {
		inode, s, ok := parse(strings.TrimSuffix(string(line), "\n"))
		if ok && wanted[inode] {
			s.Protocol = table
			if strings.HasPrefix(table, "tcp") && tcpStates[s.State] != "" {
				s.State = tcpStates[s.State]
			}
			found[inode] = append(found[inode], s)
		}
	}
	return found
}

// parseInternet reads a line such as
//
//	0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000 0 0 12345 1 ...
func parseInternet(line string) (inode uint64, s socket, ok bool) {
	fields := strings.Fields(line)
	if len(fields) < 10 || !strings.HasSuffix(fields[0], ":") {
		return 0, socket{}, false
	}
	local, ok1 := parseEndpoint(fields[1])
	remote, ok2 := parseEndpoint(fields[2])
	inode, err := strconv.ParseUint(fields[9], 10, 64)
	if !ok1 || !ok2 || err != nil {
		return 0, socket{}, false
	}
	return inode, socket{Local: local.String(), Remote: remote.String(), State: clip(fields[3], 8)}, true
}

// parseEndpoint reads an address, as words of 32 bits in this machine's order of bytes, and
// a port.
func parseEndpoint(text string) (netip.AddrPort, bool) {
	words, portText, ok := strings.Cut(text, ":")
	port, err := strconv.ParseUint(portText, 16, 16)
	if !ok || err != nil || len(words) != 8 && len(words) != 32 {
		return netip.AddrPort{}, false
	}
	var raw []byte
	for ; words != ""; words = words[8:] {
		word, err := strconv.ParseUint(words[:8], 16, 32)
		if err != nil {
			return netip.AddrPort{}, false
		}
		raw = binary.NativeEndian.AppendUint32(raw, uint32(word))
	}
	addr, ok := netip.AddrFromSlice(raw)
	return netip.AddrPortFrom(addr, uint16(port)), ok
}

// parseUnix reads a line such as
//
//	0000000000000000: 00000002 00000000 00010000 0001 01 12345 /run/some name
func parseUnix(line string) (inode uint64, s socket, ok bool) {
	rest := line
	var fields [7]string
	for i := range fields {
		if fields[i], rest, _ = strings.Cut(strings.TrimLeft(rest, " "), " "); fields[i] == "" {
			return 0, socket{}, false
		}
	}
	inode, err := strconv.ParseUint(fields[6], 10, 64)
	if err != nil || !strings.HasSuffix(fields[0], ":") {
		return 0, socket{}, false
	}
	return inode, socket{State: clip(fields[5], 8), Path: clip(rest, 108)}, true // sizeof sun_path, unix(7)
}

// socketInode is the inode in a link such as socket:[12345].
func socketInode(target string) (uint64, bool) {
	digits, ok := strings.CutPrefix(target, "socket:[")
	digits, shut := strings.CutSuffix(digits, "]")
	if !ok || !shut {
		return 0, false
	}
	inode, err := strconv.ParseUint(digits, 10, 64)
	return inode, err == nil
}
