package guard

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"riposte/stream/proc"
)

// addSystem adds the gateways, the resolvers and the SSH clients above this process.
func (f facts) addSystem() error {
	for _, file := range []struct {
		path, what string
		parse      func([]byte) (list addrs, err error)
		optional   bool // absent means none
	}{
		{"/proc/net/route", "a gateway", parseRoutes4, false},
		{"/proc/net/ipv6_route", "a gateway", parseRoutes6, true}, // absent without IPv6
		{"/etc/resolv.conf", "a resolver", parseResolv, true},
		// Those behind the stub of systemd-resolved, which the other file names.
		{"/run/systemd/resolve/resolv.conf", "a resolver", parseResolv, true},
	} {
		raw, err := os.ReadFile(file.path)
		if file.optional && errors.Is(err, fs.ErrNotExist) {
			continue
		}
		var found addrs
		if err == nil {
			found, err = file.parse(raw)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", file.path, err)
		}
		f.add(file.what, found...)
	}
	for _, pid := range append(proc.Ancestors(os.Getpid()), os.Getpid()) {
		// Other users' environments are not ours to read, and their sessions not ours.
		environ, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid))
		if err == nil {
			f.add("the client of the SSH session that Riposte runs in", parseSSH(environ)...)
		}
	}
	return nil
}
