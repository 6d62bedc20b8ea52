package action

import "net/netip"

// netshAdd are the commands that block on Windows what match says, one a direction. They are
// built on every system, so that they can be checked on every system.
func netshAdd(alertID, match string) [][]string {
	var argvs [][]string
	for _, dir := range []string{"in", "out"} {
		argvs = append(argvs, []string{"netsh", "advfirewall", "firewall", "add", "rule",
			netshName(alertID), "dir=" + dir, "action=block", match})
	}
	return argvs
}

// netshShow is the command that exits with 1 where the alert has no rule.
func netshShow(alertID string) []string {
	return []string{"netsh", "advfirewall", "firewall", "show", "rule", netshName(alertID)}
}

// netshShowPrograms tells of programs, too.
func netshShowPrograms(alertID string) []string { return append(netshShow(alertID), "verbose") }

// netshDelete is the command that removes an alert's rules of this kind, and exits
// with 1 where there are none.
func netshDelete(alertID, match string) []string {
	return []string{"netsh", "advfirewall", "firewall", "delete", "rule", netshName(alertID), match}
}

func netshName(alertID string) string { return "name=riposte-" + alertID }

// What a rule is about: addresses, or a program whomever it talks to.
func netshAddresses(what netip.Prefix) string { return "remoteip=" + text(what) }
func netshProgram(path string) string         { return "program=" + path }
