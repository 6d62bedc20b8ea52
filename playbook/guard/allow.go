package guard

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"path"
	"regexp"
	"slices"
	"strings"

	"riposte/playbook/action"
	"riposte/stream/strict"
)

// Allow is an allow-list: what an operator calls his own, so that no playbook acts on it. It
// comes from Decode.
type Allow struct {
	Processes []AllowedProcess `yaml:"processes"`
	Networks  []AllowedNetwork `yaml:"networks"`

	// Warnings are about entries that are easily imitated, or keep more than anybody may want.
	// Each begins with the place.
	Warnings []string `yaml:"-"`
}

// AllowedProcess is one entry. All fields that are given must be true of a process.
type AllowedProcess struct {
	// Name is what the kernel calls the process (comm), or the base name of its executable. A
	// process chooses both.
	Name string `yaml:"name"`
	// Exe is the path of the executable, or a link to it. The path counts where root has
	// mounted it: see rooted.
	Exe string `yaml:"exe"`
	// SHA256 is of the content of the executable, in hex. It counts where Exe does, and for
	// files of 512 MiB at most.
	SHA256 string `yaml:"sha256"`
	UID    *int   `yaml:"uid"` // the effective user
	// Cgroup is a control group, as /proc/PID/cgroup shows it: that of version 2, or systemd's.
	// The process is in it or below.
	Cgroup string `yaml:"cgroup"`
	// Cmdline is an RE2 expression, searched for in the first 64 KiB of the arguments joined
	// by spaces. A process chooses those.
	Cmdline string `yaml:"cmdline"`
	Parent  string `yaml:"parent"` // the Name of its parent
	Reason  string `yaml:"reason"` // for people; of whatever is refused because of this entry

	asks []question // the cheapest first
}

// AllowedNetwork is one network or address.
type AllowedNetwork struct {
	Network string `yaml:"network"` // in CIDR form, or an address
	Reason  string `yaml:"reason"`

	prefix netip.Prefix
}

// subject is a process that is asked about. An error says that it cannot be told.
type subject interface {
	called(name string) (bool, error)
	uid() (int, error)
	cgroups() ([]string, error)
	parentCalled(name string) (bool, error)
	runs(exe string) (bool, error)
	cmdline() (string, error)
	sum() (string, error) // of the executable; empty where it has none that counts
}

type question func(s subject) (bool, error)

// Decode reads an allow-list and checks it. Errors name the file, the line and what was
// probably meant.
func Decode(file string, src []byte) (*Allow, error) {
	root, err := strict.Parse(file, src)
	if err != nil {
		return nil, err
	}
	var doc struct {
		Allow *Allow `yaml:"allow"`
	}
	if err := strict.Decode(file, root, &doc); err != nil {
		return nil, err
	}
	if doc.Allow == nil { // perhaps half of a file that is being written
		return nil, strict.At(file, root, "no list; write `allow: {}` for an empty one")
	}
	// What is written, whichever way: a field without a value leaves no trace in a struct.
	var written struct {
		Allow struct {
			Processes []map[string]any `yaml:"processes"`
			Networks  any              `yaml:"networks"`
		} `yaml:"allow"`
	}
	if err := strict.Decode(file, root, &written); err != nil {
		return nil, err
	}
	a := doc.Allow
	for i := range a.Processes {
		p, node := &a.Processes[i], strict.Find(root, "allow", "processes", i)
		if field, err := p.compile(written.Allow.Processes[i]); err != nil {
			return nil, strict.At(file, strict.Find(node, field), "%v", err)
		}
		if p.Exe == "" && p.SHA256 == "" && p.UID == nil && p.Cgroup == "" {
			a.warn(strict.At(file, node, "any process can make itself look like this (%s); add exe, sha256, uid or cgroup", p.fields()))
		}
		if len(p.asks) == 1 && p.UID != nil && *p.UID == 0 {
			a.warn(strict.At(file, node, "this is all that root runs, and whoever has become root: no playbook acts on them; add exe, sha256 or cgroup"))
		}
	}
	for i := range a.Networks {
		n, node := &a.Networks[i], strict.Find(root, "allow", "networks", i)
		if n.prefix, err = parsePrefix(n.Network); err != nil {
			return nil, strict.At(file, strict.Find(node, "network"), "network: %v", err)
		}
		if n.Reason = oneLine(n.Reason); n.prefix.Bits() == 0 {
			a.warn(strict.At(file, node, "%s is every address: none will be blocked", n.prefix))
		}
	}
	return a, nil
}

func (a *Allow) warn(err error) { a.Warnings = append(a.Warnings, err.Error()) }

func oneLine(s string) string { return strings.Join(strings.Fields(s), " ") }

var hexSum = regexp.MustCompile(`^[0-9a-f]{64}$`)

// compile checks an entry and makes it ready to ask. It returns the field that is wrong.
func (p *AllowedProcess) compile(written map[string]any) (field string, err error) {
	for _, field := range slices.Sorted(maps.Keys(written)) {
		// A condition with nothing behind it reads like a narrow entry and would be a wide one.
		if value := written[field]; value == nil || strings.TrimSpace(fmt.Sprint(value)) == "" {
			return field, fmt.Errorf("%s is empty; leave it out if it does not matter", field)
		}
	}
	for _, f := range [][2]string{{"name", p.Name}, {"exe", p.Exe}, {"cgroup", p.Cgroup}, {"parent", p.Parent}} {
		if strings.Contains(f[1], "*") { // it would cover nobody, unnoticed
			return f[0], fmt.Errorf("%s: * stands for nothing but itself; write an entry for each, or a cgroup, which covers what is below it", f[0])
		}
	}
	p.Reason, p.SHA256 = oneLine(p.Reason), strings.ToLower(p.SHA256)
	if p.Name != "" {
		if strings.Contains(p.Name, "/") {
			return "name", errors.New("name: want a name; a path belongs into exe")
		}
		p.ask(func(s subject) (bool, error) { return s.called(p.Name) })
	}
	if p.UID != nil {
		if *p.UID < 0 || *p.UID >= 1<<32-1 {
			return "uid", errors.New("uid: want the number of a user")
		}
		p.ask(func(s subject) (bool, error) {
			uid, err := s.uid()
			return uid == *p.UID, err
		})
	}
	if p.Cgroup != "" {
		if !absolute(p.Cgroup) || p.Cgroup == "/" {
			return "cgroup", errors.New("cgroup: want a path such as /system.slice/backup.service, which is not that of all, /, and without a slash at the end")
		}
		p.ask(func(s subject) (bool, error) {
			all, err := s.cgroups()
			return slices.ContainsFunc(all, func(g string) bool { return g == p.Cgroup || strings.HasPrefix(g, p.Cgroup+"/") }), err
		})
	}
	if p.Exe != "" {
		if !absolute(p.Exe) {
			return "exe", errors.New("exe: want a path from the root on, without . and .. and a slash at the end")
		}
		p.ask(func(s subject) (bool, error) { return s.runs(p.Exe) })
	}
	if p.Parent != "" {
		if strings.Contains(p.Parent, "/") {
			return "parent", errors.New("parent: want a name, not a path")
		}
		p.ask(func(s subject) (bool, error) { return s.parentCalled(p.Parent) })
	}
	if p.Cmdline != "" {
		re, err := regexp.Compile(p.Cmdline)
		if err != nil {
			return "cmdline", fmt.Errorf("cmdline: %w", err)
		}
		if re.MatchString("") && re.MatchString("any - 0") {
			return "cmdline", errors.New("cmdline: this is found in all that there are; leave it out if it does not matter")
		}
		p.ask(func(s subject) (bool, error) {
			args, err := s.cmdline()
			return re.MatchString(args), err
		})
	}
	if p.SHA256 != "" {
		if !hexSum.MatchString(p.SHA256) {
			return "sha256", errors.New("sha256: want the 64 hex digits that sha256sum prints")
		}
		p.ask(func(s subject) (bool, error) {
			sum, err := s.sum()
			return sum == p.SHA256, err
		})
	}
	if len(p.asks) == 0 {
		return "", errors.New("an entry needs one of name, exe, sha256, uid, cgroup, cmdline, parent")
	}
	return "", nil
}

func absolute(s string) bool { return path.IsAbs(s) && path.Clean(s) == s }

func (p *AllowedProcess) ask(q question) { p.asks = append(p.asks, q) }

// covers says that all of an entry is true of a process. One thing that is not settles it,
// whatever of the rest cannot be told.
func (p *AllowedProcess) covers(s subject) (bool, error) {
	var unread error
	for _, ask := range p.asks {
		yes, err := ask(s)
		if err == nil && !yes {
			return false, nil
		}
		if unread == nil {
			unread = err
		}
	}
	return unread == nil, unread
}

// fields are those that are given, in words.
func (p *AllowedProcess) fields() string {
	var all []string
	for _, f := range [][2]string{{"name", p.Name}, {"exe", p.Exe}, {"sha256", p.SHA256}, {"cgroup", p.Cgroup}, {"cmdline", p.Cmdline}, {"parent", p.Parent}} {
		if f[1] != "" {
			all = append(all, f[0]+" "+f[1])
		}
	}
	if p.UID != nil {
		all = append(all, fmt.Sprint("uid ", *p.UID))
	}
	return strings.Join(all, ", ")
}

func (p *AllowedProcess) what() string {
	if p.Reason == "" {
		return p.fields()
	}
	return p.Reason
}

// process refuses a process that an entry covers, or may cover for all that can be told.
func (a *Allow) process(pid int, s subject) error {
	var unread error
	for i := range a.Processes {
		p := &a.Processes[i]
		covers, err := p.covers(s)
		if covers {
			return action.Refuse("PID %d is allow-listed: %s", pid, p.what())
		}
		if err != nil && unread == nil {
			unread = action.RefuseUnread("whether PID %d is allow-listed (%s) cannot be told: %v", pid, p.what(), err)
		}
	}
	return unread
}

// address refuses an address of the list, and one that stands for it.
func (a *Allow) address(addr netip.Addr) error {
	addr = addr.WithZone("").Unmap()
	for _, meaning := range append([]netip.Addr{addr}, embedded(addr)...) {
		for _, n := range a.Networks {
			if n.prefix.Contains(meaning) {
				return protected(addr, meaning, "allow-listed: "+n.what())
			}
		}
	}
	return nil
}

// network refuses a network that has an address of the list in it.
func (a *Allow) network(what netip.Prefix) error {
	for _, p := range append([]netip.Prefix{what}, embeddedNetwork(what)...) {
		for _, n := range a.Networks {
			if n.prefix.Overlaps(p) {
				return action.Refuse("%s has addresses in it that are allow-listed: %s", what, n.what())
			}
		}
	}
	return nil
}

func (n AllowedNetwork) what() string {
	if n.Reason == "" {
		return n.Network
	}
	return fmt.Sprintf("%s (%s)", n.Reason, n.Network)
}

func parsePrefix(s string) (netip.Prefix, error) {
	p, err := netip.ParsePrefix(s)
	if err != nil {
		addr, err := netip.ParseAddr(s)
		if err != nil || addr.Zone() != "" {
			return p, fmt.Errorf("%q: want a network such as 10.0.0.0/8, or an address", s)
		}
		addr = addr.Unmap()
		return netip.PrefixFrom(addr, addr.BitLen()), nil
	}
	if p.Addr().Is4In6() {
		return p, fmt.Errorf("%s is a network of IPv4 written as IPv6; write it as IPv4", s)
	}
	if p != p.Masked() {
		return p, fmt.Errorf("%s is an address in the network %s; write one or the other", s, p.Masked())
	}
	return p, nil
}
