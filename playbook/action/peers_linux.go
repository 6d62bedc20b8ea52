package action

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"slices"
)

// peers are the addresses that a process talks to, by TCP or by connected UDP, each once. What
// is read by a number is the process's only if that still lives afterwards. gone says that it
// does not.
func (t Process) peers(ctx context.Context, env Env) (found []netip.Addr, gone bool, err error) {
	target, gone, err := t.look(ctx, env)
	if gone || err != nil {
		return nil, gone, err
	}
	defer target.close()
	dir := processDir(int(t.PID))
	fds, err := listFDs(dir)
	if err != nil {
		return nil, false, fmt.Errorf("what %s has open: %w", t, err)
	}
	wanted := map[uint64]bool{}
	for _, fd := range fds {
		link, err := os.Readlink(fmt.Sprintf("%sfd/%d", dir, fd))
		if err != nil {
			continue // closed since
		}
		if inode, ok := socketInode(link); ok {
			wanted[inode] = true
		}
	}
	sockets, err := readSockets(dir, wanted)
	if err != nil {
		return nil, false, fmt.Errorf("the sockets of %s: %w", t, err)
	}
	for _, all := range sockets {
		for _, s := range all {
			remote, err := netip.ParseAddrPort(s.Remote)
			if err != nil || remote.Addr().IsUnspecified() {
				continue
			}
			if addr := remote.Addr().Unmap(); !slices.Contains(found, addr) {
				found = append(found, addr)
			}
		}
	}
	slices.SortFunc(found, netip.Addr.Compare)
	gone, err = target.exited(0)
	if gone {
		return nil, true, err
	}
	return found, false, err
}
