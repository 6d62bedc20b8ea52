package action

// Capability is a Linux capability by its name in capabilities(7).
type Capability string

// The capabilities that actions need. Other systems know none of them.
const (
	CapDACReadSearch Capability = "CAP_DAC_READ_SEARCH" // read other users' files
	CapKill          Capability = "CAP_KILL"            // signal other users' processes
	CapNetAdmin      Capability = "CAP_NET_ADMIN"       // change the firewall
	CapNetRaw        Capability = "CAP_NET_RAW"         // change it by iptables, which opens a raw socket
	CapSysPtrace     Capability = "CAP_SYS_PTRACE"      // read the executable of other users' processes
	CapChown         Capability = "CAP_CHOWN"           // give a file back to its owner
	CapDACOverride   Capability = "CAP_DAC_OVERRIDE"    // read and unlink other users' files
	CapFowner        Capability = "CAP_FOWNER"          // unlink them in sticky folders, such as /tmp
	CapFsetid        Capability = "CAP_FSETID"          // give a file its setgid bit back
)
