package sensor

import (
	"regexp"
	"strings"
)

// matcher is a rule made ready. It matches in two steps, so that the arguments and the
// user of a process are read only where its names leave a rule in question.
type matcher struct {
	Rule
	parent, child names
	exe, cmdline  []*regexp.Regexp
}

// onParentAlone says that but for who started it the child is like any other. Programs for
// Windows are not: what starts one does not go on to become another program.
func (m *matcher) onParentAlone(child *snapshot) bool {
	return len(m.Parent) > 0 && len(m.cmdline) == 0 &&
		!strings.HasSuffix(child.keys[fullName], ".exe") && !strings.HasSuffix(child.keys[fullExe], ".exe")
}

// byName says whether the rule can match as far as names go. parent is nil where it is
// not known.
func (m *matcher) byName(child, parent *snapshot) bool {
	if len(m.Child) > 0 && !m.child.match(child) {
		return false
	}
	if len(m.Parent) > 0 && (parent == nil || !m.parent.matchParent(parent)) {
		return false
	}
	if len(m.Parent) > 0 && len(m.exe) > 0 && child.exe == parent.exe {
		return false // a server's own fork is no program that it ran
	}
	return len(m.exe) == 0 || anyMatch(m.exe, strings.ReplaceAll(child.exe, `\`, "/"))
}

// byRest says whether the other conditions hold too.
func (m *matcher) byRest(child *snapshot) bool {
	return (len(m.cmdline) == 0 || anyMatch(m.cmdline, child.cmdline)) &&
		(len(m.User) == 0 || m.byUser(child))
}

func (m *matcher) byUser(child *snapshot) bool {
	number, name := child.user(), child.userName()
	_, short, _ := strings.Cut(name, `\`) // DOMAIN\user
	for _, want := range m.User {
		if want == number || name != "" && strings.EqualFold(want, name) || short != "" && strings.EqualFold(want, short) {
			return true
		}
	}
	return false
}

// names is a list of names of programs.
type names struct {
	literal map[string]bool
	globs   []*regexp.Regexp
}

func (n *names) add(pattern string) {
	if strings.ContainsAny(pattern, "*?") {
		n.globs = append(n.globs, glob(pattern))
		return
	}
	if n.literal == nil {
		n.literal = map[string]bool{}
	}
	n.literal[strings.TrimSuffix(strings.ToLower(pattern), ".exe")] = true
}

func (n *names) match(s *snapshot) bool { return n.matchAny(s.keys[:]) }

// matchParent leaves out what a shell is called: its script chose that name.
func (n *names) matchParent(s *snapshot) bool {
	if scripted[s.keys[shortExe]] {
		return n.matchAny(s.keys[shortExe : shortExe+1])
	}
	return n.match(s)
}

// scripted are the executables that run scripts under the script's name.
var scripted = map[string]bool{
	"sh": true, "bash": true, "dash": true, "ash": true, "ksh": true, "ksh93": true, "mksh": true,
	"zsh": true, "csh": true, "tcsh": true, "fish": true, "busybox": true,
}

func (n *names) matchAny(keys []string) bool {
	for _, key := range keys {
		if key != "" && (n.literal[key] || anyMatch(n.globs, key)) {
			return true
		}
	}
	return false
}

func anyMatch(expressions []*regexp.Regexp, s string) bool {
	for _, re := range expressions {
		if re.MatchString(s) {
			return true
		}
	}
	return false
}

// glob is the expression of a pattern with *, ** and ?.
func glob(pattern string) *regexp.Regexp {
	expression := regexp.QuoteMeta(pattern)
	expression = strings.ReplaceAll(expression, `\*\*`, `.*`)
	expression = strings.ReplaceAll(expression, `\*`, `[^/]*`)
	expression = strings.ReplaceAll(expression, `\?`, `[^/]`)
	return regexp.MustCompile(`(?is)^` + expression + `$`)
}
