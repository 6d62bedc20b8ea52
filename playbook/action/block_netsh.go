package action

import "net/netip"

// netshAdd are the commands that block addresses on Windows, one a direction. They are
// built on every system, so that they can be checked on every system.
func netshAdd(alertID string, what netip.Prefix) [][]string {
	var argvs [][]string
	for _, dir := range []string{"in", "out"} {
		argvs = append(argvs, []string{"netsh", "advfirewall", "firewall", "add", "rule",
			netshName(alertID), "dir=" + dir, "action=block", "remoteip=" + text(what)})
	}
	return argvs
}

// netshShow is the command that exits with 1 where the alert has no rule.
func netshShow(alertID string) []string {
	return []string{"netsh", "advfirewall", "firewall", "show", "rule", netshName(alertID)}
}

// netshDelete is the command that removes an alert's rules about some addresses, and exits
// with 1 where there are none.
func netshDelete(alertID string, what netip.Prefix) []string {
	return []string{"netsh", "advfirewall", "firewall", "delete", "rule", netshName(alertID), "remoteip=" + text(what)}
}

func netshName(alertID string) string { return "name=riposte-" + alertID }
