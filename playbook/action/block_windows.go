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
	if noSuchRule(err) {
		return standing{}, nil
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

func (n netsh) block(ctx context.Context, what netip.Prefix, asked []piece) error {
	return n.add(ctx, netshAddresses(what))
}

func (n netsh) add(ctx context.Context, match string) error {
	for _, argv := range netshAdd(n.alertID, match) {
		if _, err := runTool(ctx, nil, argv); err != nil {
			return err
		}
	}
	return nil
}

func (n netsh) remove(ctx context.Context, match string) error {
	if _, err := runTool(ctx, nil, netshDelete(n.alertID, match)); !noSuchRule(err) {
		return err
	}
	return nil
}

// programStands implements programFirewall, as do the two that follow.
func (n netsh) programStands(ctx context.Context, path string) (bool, error) {
	out, err := runTool(ctx, nil, netshShowPrograms(n.alertID))
	if noSuchRule(err) {
		return false, nil
	}
	// One rule a direction; Windows does not tell upper from lower case.
	return err == nil && strings.Count(strings.ToLower(out), strings.ToLower(path)) >= 2, err
}

func (n netsh) blockProgram(ctx context.Context, path string) error {
	return n.add(ctx, netshProgram(path))
}

func (n netsh) unblockProgram(ctx context.Context, path string) error {
	return n.remove(ctx, netshProgram(path))
}

// entries are this alert's own rules only, as for standing: those of others are theirs.
func (n netsh) entries(ctx context.Context, what netip.Prefix) ([]piece, error) {
	s, err := n.standing(ctx, what)
	if s.Left <= 0 {
		return nil, err
	}
	return []piece{asPiece(what, s)}, err
}

// shorten removes this alert's own rules. What others ask stands by rules of their own, and
// none of them ends by itself.
func (n netsh) shorten(ctx context.Context, what netip.Prefix, stay []piece) error {
	return n.remove(ctx, netshAddresses(what))
}

func (n netsh) survey(context.Context) (survey, error) { return n.standing, nil }

func noSuchRule(err error) bool {
	failed := (*toolError)(nil)
	return errors.As(err, &failed) && failed.exit == 1
}

// SweepExpired removes nothing on Windows: its rules do not say when they expire.
func SweepExpired(ctx context.Context) (removed int, err error) { return 0, nil }
