package guard

import (
	"errors"
	"fmt"
	"net/netip"
	"unsafe"

	"golang.org/x/sys/windows"
)

// addSystem adds the gateways and the resolvers of all network adapters.
func (f facts) addSystem() error {
	const flags = windows.GAA_FLAG_INCLUDE_GATEWAYS | windows.GAA_FLAG_SKIP_ANYCAST | windows.GAA_FLAG_SKIP_MULTICAST
	size := uint32(15 << 10) // what the documentation recommends to begin with
	for range 4 {            // the list may grow between two calls
		buffer := make([]byte, size)
		first := (*windows.IpAdapterAddresses)(unsafe.Pointer(&buffer[0]))
		err := windows.GetAdaptersAddresses(windows.AF_UNSPEC, flags, 0, first, &size)
		if errors.Is(err, windows.ERROR_BUFFER_OVERFLOW) {
			continue
		}
		if err != nil {
			return fmt.Errorf("list network adapters: %w", err)
		}
		for adapter := first; adapter != nil; adapter = adapter.Next {
			for g := adapter.FirstGatewayAddress; g != nil; g = g.Next {
				f.addSocket("a gateway", g.Address)
			}
			for d := adapter.FirstDnsServerAddress; d != nil; d = d.Next {
				f.addSocket(resolver, d.Address)
			}
		}
		return nil
	}
	return errors.New("list network adapters: the list keeps growing")
}

func (f facts) addSocket(what string, s windows.SocketAddress) {
	if addr, ok := netip.AddrFromSlice(s.IP()); ok {
		f.add(what, addr)
	}
}
