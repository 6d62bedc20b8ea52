package proc

import (
	"fmt"
	"strings"
	"testing"
)

// rest is what follows the name in /proc/PID/stat.
const rest = "S 10 20 30 0 -1 4194304 1 2 3 4 5 6 7 8 20 0 1 0 987654 1000000 200 18446744073709551615 1 1 0 0 0 0 0 0 0 0 0 0 17 0 0 0 0 0 0"

func TestParseStat(t *testing.T) {
	for _, comm := range []string{"bash", "", "a b", ") S 1 2 (", "((", "))", "a) R 99 (b", "x\ny", "tab\t", "名前"} {
		st, err := parseStat([]byte("4711 (" + comm + ") " + rest + "\n"))
		want := Stat{PID: 4711, Comm: comm, State: 'S', PPID: 10, Flags: 4194304, StartTicks: 987654}
		if err != nil || st != want {
			t.Errorf("%q: got %+v, %v; want %+v", comm, st, err, want)
		}
	}
}

func TestParseStatRefuses(t *testing.T) {
	for _, raw := range []string{
		"", "4711", "4711 (bash", "4711 bash) " + rest, "(bash) " + rest, ") 4711 (" + rest,
		"x (bash) " + rest, "4711 (bash) S 10", "4711 (bash) ",
		"4711 (bash) " + strings.Replace(rest, "10", "x", 1),
		"4711 (bash) " + strings.Replace(rest, "987654", "-1", 1),
		"4711 (bash) " + strings.Replace(rest, "4194304", "", 1)[:20],
	} {
		if st, err := parseStat([]byte(raw)); err == nil {
			t.Errorf("%q is read as %+v", raw, st)
		}
	}
}

func TestStates(t *testing.T) {
	for state, zombie := range map[byte]bool{'R': false, 'S': false, 'T': false, 'Z': true, 'X': true} {
		if got := (Stat{State: state}).Zombie(); got != zombie {
			t.Errorf("%c: Zombie() = %v", state, got)
		}
	}
	if (Stat{Flags: 4194304}).KernelThread() || !(Stat{Flags: 0x00200000 | 0x40}).KernelThread() {
		t.Error("PF_KTHREAD is not told from other flags")
	}
	if (Stat{Flags: 4194304}).Exiting() || !(Stat{Flags: 4194304 | 0x4}).Exiting() {
		t.Error("PF_EXITING is not told from other flags")
	}
}

func FuzzParseStat(f *testing.F) {
	f.Add([]byte("1 (systemd) " + rest))
	f.Add([]byte("4711 () S 1) " + rest))
	f.Add([]byte(") ("))
	f.Add([]byte("1 (a)"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		st, err := parseStat(raw)
		if err != nil {
			return
		}
		// What was read is in the line: the name between the outermost parentheses.
		if !strings.Contains(string(raw), "("+st.Comm+")") {
			t.Fatalf("%q has no name %q", raw, st.Comm)
		}
		line := fmt.Sprintf("%d (%s) %s %d 0 0 0 0 %d 0 0 0 0 0 0 0 0 0 0 0 0 %d", st.PID, st.Comm, string([]byte{st.State}), st.PPID, st.Flags, st.StartTicks)
		again, err := parseStat([]byte(line))
		if err != nil || again != st {
			t.Fatalf("%q: %+v, then %+v, %v", raw, st, again, err)
		}
	})
}
