package action

import (
	"fmt"

	"golang.org/x/sys/unix"
)

var capabilityBits = map[Capability]uintptr{
	CapDACReadSearch: unix.CAP_DAC_READ_SEARCH,
	CapKill:          unix.CAP_KILL,
	CapNetAdmin:      unix.CAP_NET_ADMIN,
	CapNetRaw:        unix.CAP_NET_RAW,
	CapSysPtrace:     unix.CAP_SYS_PTRACE,
	CapChown:         unix.CAP_CHOWN,
	CapDACOverride:   unix.CAP_DAC_OVERRIDE,
	CapFowner:        unix.CAP_FOWNER,
	CapFsetid:        unix.CAP_FSETID,
}

// Missing are those of the needed capabilities that this process does not have in its
// effective set, in the order given.
func Missing(needed []Capability) ([]Capability, error) {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData // version 3 has 64 bits in two halves
	if err := unix.Capget(&header, &data[0]); err != nil {
		return nil, fmt.Errorf("read own capabilities: %w", err)
	}
	effective := uint64(data[1].Effective)<<32 | uint64(data[0].Effective)
	var missing []Capability
	for _, c := range needed {
		bit, ok := capabilityBits[c]
		if !ok {
			return nil, fmt.Errorf("capability %q is not one that an action needs", c)
		}
		if effective&(1<<bit) == 0 {
			missing = append(missing, c)
		}
	}
	return missing, nil
}
