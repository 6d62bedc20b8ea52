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
	routers, err := gateways()
	if err != nil {
		return fmt.Errorf("the routes of this host: %w", err)
	}
	f.add("a gateway", routers...)
	// The second are those behind the stub of systemd-resolved, which the first names.
	for _, path := range []string{"/etc/resolv.conf", "/run/systemd/resolve/resolv.conf"} {
		raw, err := os.ReadFile(path)
		if err != nil && !errors.Is(err, fs.ErrNotExist) { // absent means none
			return err
		}
		f.add(resolver, parseResolv(raw)...)
	}
	self := os.Getpid()
	if _, err := proc.ReadStat(self); err != nil {
		return fmt.Errorf("the processes above this one: %w", err)
	}
	for _, pid := range append(proc.Ancestors(self), self) {
		// Other users' environments are not ours to read, and their sessions not ours.
		environ, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid))
		if err == nil {
			f.add(sshClient, parseSSH(environ)...)
		}
	}
	return nil
}
