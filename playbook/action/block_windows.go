package action

import (
	"context"
	"errors"
	"net/netip"
	"strings"
)

func newFirewall(backend string, env Env) (firewall, error) {
	if backend != Netsh {
		return nil, Refuse("backend %s does not exist on Windows: use netsh", backend)
	}
	return netsh{env.AlertID}, nil
}

// netsh blocks by rules of the Windows firewall. They know no time limit.
type netsh struct{ alertID string }

func (n netsh) standing(ctx context.Context, what netip.Prefix) (standing, error) {
	// The output is in the language of the system; the address in it is not.
	out, err := runTool(ctx, nil, netshShow(n.alertID))
	if failed := (*toolError)(nil); errors.As(err, &failed) && failed.exit == 1 {
		return standing{}, nil // no such rule
	}
	shown := text(what) // a single address with /32 or a mask behind it, depending on the version
	if what.IsSingleIP() {
		shown += "/"
	}
	if err != nil || strings.Count(out, shown) < 2 { // one rule a direction
		return standing{}, err
	}
	return standing{AlertID: n.alertID, Made: forever, Left: forever}, nil
}

func (n netsh) block(ctx context.Context, what netip.Prefix, s standing) error {
	for _, argv := range netshAdd(n.alertID, what) {
		if _, err := runTool(ctx, nil, argv); err != nil {
			return err
		}
	}
	return nil
}

// SweepExpired removes nothing on Windows: its rules do not say when they expire.
func SweepExpired(ctx context.Context) (removed int, err error) { return 0, nil }
