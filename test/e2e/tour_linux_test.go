package e2e_test

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"riposte/test/need"
)

// writeTour has the README filled in with what the tour prints: RIPOSTE_WRITE_TOUR=1.
var writeTour = os.Getenv("RIPOSTE_WRITE_TOUR") != ""

const readme = "../../README.md"

var tourBlock = regexp.MustCompile("(?ms)^```console\n(.*?)^```$")

// stop is a command of the tour, and what it is to print.
type stop struct{ command, output string }

// tour reads the blocks of the README that show commands with their output.
func tour(t *testing.T) (stops []stop) {
	t.Helper()
	raw, err := os.ReadFile(readme)
	if err != nil {
		t.Fatal(err)
	}
	for _, block := range tourBlock.FindAllStringSubmatch(string(raw), -1) {
		for line := range strings.Lines(block[1]) {
			switch command, isCommand := strings.CutPrefix(line, "$ "); {
			case isCommand:
				stops = append(stops, stop{command: strings.TrimSpace(command)})
			case len(stops) == 0:
				t.Fatalf("output without a command: %s", line)
			default:
				stops[len(stops)-1].output += line
			}
		}
	}
	return stops
}

var (
	varying = regexp.MustCompile(`[0-9a-f]{8,}|[0-9]+(\.[0-9]+)?(ms|µs|s|m|h)?`)
	spaces  = regexp.MustCompile(`[ \t]+`)
)

// gist is an output without what is different each time: times, numbers, the widths of columns.
func gist(output string) string {
	var lines []string
	for line := range strings.Lines(output) {
		line = strings.TrimSpace(spaces.ReplaceAllString(varying.ReplaceAllString(line, "N"), " "))
		if line != "" {
			lines = append(lines, regexp.MustCompile(`N([-:.TZ]*N)+Z?`).ReplaceAllString(line, "N"))
		}
	}
	return strings.Join(lines, "\n")
}

// shell is one that commands are given to, one after the other.
type shell struct {
	in  io.WriteCloser
	out *bufio.Scanner
}

// do runs a command and returns what it printed.
func (s *shell) do(t *testing.T, command string) string {
	t.Helper()
	const end = "-- that was all --"
	if _, err := fmt.Fprintf(s.in, "%s\necho; echo '%s'\n", command, end); err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	for s.out.Scan() {
		if s.out.Text() == end {
			return out.String()
		}
		out.WriteString(s.out.Text() + "\n")
	}
	t.Fatalf("%s: the shell has ended: %v\n%s", command, s.out.Err(), out.String())
	return ""
}

// TestTour takes the tour of the README: its commands print what stands there, but for numbers
// and times. Commands that only look are repeated until they do: what they show is being done.
func TestTour(t *testing.T) {
	need.Binary(t, "nft")
	if !enter(t) {
		return
	}
	stops := tour(t)
	if len(stops) < 15 {
		t.Fatalf("the README has a tour of %d commands", len(stops))
	}
	addNetwork(t)
	s := newSite(t)
	for _, folder := range []string{"bin", "work"} {
		if err := os.Mkdir(filepath.Join(s.dir, folder), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink(s.binary, filepath.Join(s.dir, "bin", "riposte")); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("bash")
	cmd.Dir = filepath.Join(s.dir, "work")
	cmd.Env = append(environment(), "PATH="+filepath.Join(s.dir, "bin")+":"+os.Getenv("PATH"), "RIPOSTE_REDIS="+s.redis.URL,
		"RIPOSTE_RUNTIME_DIR="+filepath.Join(s.dir, "run"), "RIPOSTE_STATE_DIR="+filepath.Join(s.dir, "state"), "USER=alice", "TZ=UTC")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stdout, cmd.Stderr = w, w
	spawn(t, cmd)
	w.Close()
	sh := &shell{in: in, out: bufio.NewScanner(r)}
	t.Cleanup(func() { in.Close(); r.Close() })
	looks := regexp.MustCompile(`^(riposte (ledger|status)|nft list|grep|ps) `)
	hostname, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	printed := map[string][]string{}
	for _, stop := range stops {
		want := gist(stop.output)
		do := func() string {
			// What stands in the README is of a host called web-1 with the usual folders.
			out := strings.ReplaceAll(sh.do(t, stop.command), filepath.Join(s.dir, "state"), "/var/lib/riposte")
			return strings.ReplaceAll(out, "@"+hostname, "@web-1")
		}
		got := do()
		if writeTour {
			if looks.MatchString(stop.command + " ") { // what it shows is being done, and nobody knows what that is
				time.Sleep(3 * time.Second)
				got = do()
			}
			printed[stop.command] = append(printed[stop.command], strings.TrimRight(got, "\n"))
			continue
		}
		for deadline := time.Now().Add(patience); gist(got) != want && looks.MatchString(stop.command+" ") && time.Now().Before(deadline); {
			got = do()
		}
		if gist(got) != want {
			log, _ := os.ReadFile(filepath.Join(cmd.Dir, "responder.log"))
			t.Fatalf("$ %s\n%s\nthe README has\n%s\n%s", stop.command, got, stop.output, log)
		}
	}
	if writeTour {
		rewrite(t, printed)
	}
}

// rewrite puts what the commands have printed into the README.
func rewrite(t *testing.T, printed map[string][]string) {
	t.Helper()
	raw, err := os.ReadFile(readme)
	if err != nil {
		t.Fatal(err)
	}
	text := tourBlock.ReplaceAllStringFunc(string(raw), func(block string) string {
		var out strings.Builder
		for line := range strings.Lines(block) {
			command, isCommand := strings.CutPrefix(line, "$ ")
			if !isCommand && !strings.HasPrefix(line, "```") {
				continue
			}
			out.WriteString(line)
			if command = strings.TrimSpace(command); isCommand {
				if first := printed[command][0]; first != "" {
					out.WriteString(first + "\n")
				}
				printed[command] = printed[command][1:]
			}
		}
		return out.String()
	})
	if err := os.WriteFile(readme, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}
