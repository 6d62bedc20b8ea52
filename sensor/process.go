package sensor

import (
	"strconv"
	"strings"
	"time"
)

// snapshot is a process as the rules see it, read in the order in which it is needed:
// who it is, which executable, and only where a rule may match the rest.
type snapshot struct {
	pid, ppid int
	start     uint64 // with pid the identity: start ticks on Linux, else Unix milliseconds
	comm      string // the kernel's name for it: cut at 15 bytes, chosen by the process itself
	kernel    bool   // a kernel thread: it has no program

	name string    // comm, or the whole of it where that can be told
	exe  string    // path of the executable, empty where it cannot be read
	keys keys      // under which rules know the process
	seen time.Time // when these were read, or earlier, when they were already the same

	cmdline string // arguments joined by spaces
	uid     int64  // -1 where unknown
	// exited says that something could not be read because the process is gone.
	exited bool
}

// maxCmdline is how much of a command line the rules look at, in bytes.
const maxCmdline = 16 << 10

// keys are the names of a process as rules compare them: in lower case, of the name and
// of the executable, each with and without ".exe". Unused ones are empty.
type keys [4]string

const (
	shortName = iota
	shortExe
	fullName
	fullExe
)

// index fills in keys, once the names have been read.
func (s *snapshot) index() {
	s.seen = time.Now()
	name, exe := strings.ToLower(s.name), strings.ToLower(baseName(s.exe))
	s.keys = keys{
		shortName: strings.TrimSuffix(name, ".exe"), shortExe: strings.TrimSuffix(exe, ".exe"),
		fullName: name, fullExe: exe,
	}
}

// baseName takes either separator: Wine shows Windows paths on Linux.
func baseName(path string) string {
	return path[strings.LastIndexAny(path, `/\`)+1:]
}

// setCmdline takes arguments that end in NUL bytes each.
func (s *snapshot) setCmdline(raw string) {
	raw = strings.TrimRight(raw, "\x00")
	argv0, _, _ := strings.Cut(raw, "\x00")
	// argv[0] is the caller's word, so it only completes what the kernel cut.
	if base := baseName(argv0); len(s.comm) == 15 && strings.HasPrefix(base, s.comm) {
		s.name = base
	}
	s.cmdline = strings.ReplaceAll(raw, "\x00", " ")
}

// user is the owner as a number, empty where unknown.
func (s *snapshot) user() string {
	if s.uid < 0 {
		return ""
	}
	return strconv.FormatInt(s.uid, 10)
}
