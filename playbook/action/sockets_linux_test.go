package action

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
)

// The addresses are as a little-endian machine writes them, like those of all that Riposte
// is built for but s390x.
const (
	tcpTable = `  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:18EB 00000000:0000 0A 00000000:00000000 00:00000000 00000000   105        0 11 1 0000000000000000 100 0 0 10 0
   1: 0A0200C0:A1B2 026433C6:01BB 01 00000000:00000000 02:000A7E23 00000000  1000        0 12 2 0000000000000000 20 4 30 10 -1
`
	tcp6Table = `  sl  local_address                         remote_address                        st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: B80D0120000000000000000001000000:0016 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 13 1 0000000000000000 100 0 0 10 0
`
	unixTable1 = `Num       RefCount Protocol Flags    Type St Inode Path
0000000000000000: 00000002 00000000 00010000 0001 01    14 /run/a socket  of mine
0000000000000000: 00000003 00000000 00000000 0001 03    15
0000000000000000: 00000002 00000000 00010000 0001 01    16 @abstract
`
)

func TestParseSockets(t *testing.T) {
	wanted := map[uint64]bool{}
	for inode := uint64(11); inode < 20; inode++ {
		wanted[inode] = true
	}
	var got []string
	for _, c := range [][2]string{{"tcp", tcpTable}, {"tcp6", tcp6Table}, {"unix", unixTable1}} {
		found := parseSockets(c[0], []byte(c[1]), wanted)
		for inode := uint64(0); inode < 20; inode++ {
			for _, s := range found[inode] {
				got = append(got, fmt.Sprintf("%d %s %s %s %s %q", inode, s.Protocol, s.Local, s.Remote, s.State, s.Path))
			}
		}
	}
	want := []string{
		`11 tcp 127.0.0.1:6379 0.0.0.0:0 listen ""`,
		`12 tcp 192.0.2.10:41394 198.51.100.2:443 established ""`,
		`13 tcp6 [2001:db8::1]:22 [::]:0 listen ""`,
		`14 unix   01 "/run/a socket  of mine"`,
		`15 unix   03 ""`,
		`16 unix   01 "@abstract"`,
	}
	if g, w := strings.Join(got, "\n"), strings.Join(want, "\n"); g != w {
		t.Errorf("got\n%s\nwant\n%s", g, w)
	}
	if found := parseSockets("tcp", []byte(tcpTable), map[uint64]bool{1: true}); len(found) != 0 {
		t.Errorf("nobody wants %v", found)
	}
	// A name with a line feed: both are shown, and a person sees that one is forged.
	forged := unixTable1 + "0000000000000000: 00000002 00000000 00010000 0001 01    17 /tmp/x\n0000000000000000: 00000002 00000000 00010000 0001 01    14 /run/forged\n"
	if found := parseSockets("unix", []byte(forged), wanted); len(found[14]) != 2 {
		t.Errorf("got %v", found[14])
	}
}

func FuzzParseSockets(f *testing.F) {
	for _, table := range []string{tcpTable, tcp6Table, unixTable1, "0:", "0: 1:1 1:1 0A 0 0 0 0 0 12", ": : : : : : 14"} {
		f.Add([]byte(table))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		wanted := map[uint64]bool{0: true, 12: true, 13: true, 14: true}
		for _, table := range append([]string{unixTable}, internetTables...) {
			for inode, all := range parseSockets(table, raw, wanted) {
				if !wanted[inode] {
					t.Errorf("%s: nobody wants %d", table, inode)
				}
				for _, s := range all {
					if s.Protocol != table || len(s.Path) > 111 || len(s.State) > 12 {
						t.Errorf("%s: %+v", table, s)
					}
					if table == unixTable {
						continue
					}
					for _, addr := range []string{s.Local, s.Remote} {
						if _, err := netip.ParseAddrPort(addr); err != nil {
							t.Errorf("%s: %+v: %v", table, s, err)
						}
					}
				}
			}
		}
		if inode, ok := socketInode(string(raw)); ok && !strings.HasPrefix(string(raw), "socket:[") {
			t.Errorf("%q is socket %d", raw, inode)
		}
		if pos, flags := parseFDInfo(raw); len(pos)+len(flags) > 70 {
			t.Errorf("%q, %q", pos, flags)
		}
	})
}
