package action

import (
	"context"
	"math"
	"net/netip"
	"time"
)

// firewall is one backend of block_ip.
type firewall interface {
	// standing is the block of all these addresses that is in force in both directions, see
	// least.
	standing(ctx context.Context, what netip.Prefix) (standing, error)
	// block makes blocks of pieces of these addresses, in the names of their alerts. It makes
	// none shorter that is there.
	block(ctx context.Context, what netip.Prefix, asked []piece) error
	// entries are the blocks that there are of these addresses, in force or not, in the
	// direction that stands longer.
	entries(ctx context.Context, what netip.Prefix) ([]piece, error)
	// shorten leaves of the blocks of these addresses just these. It does nothing where there
	// is none.
	shorten(ctx context.Context, what netip.Prefix, stay []piece) error
	// survey is standing, for one who asks about many addresses at about the same time.
	survey(ctx context.Context) (survey, error)
}

// standing is a block in force. Its zero value is none.
type standing struct {
	AlertID string        // whose it is
	Made    time.Duration // how long it was made for
	Left    time.Duration // how long it still stands; 0 is none
}

// forever is the time left of a block that knows no end.
const forever time.Duration = math.MaxInt64

// leeway is what a block may end before its claim does: they are written one after the
// other, and some firewalls count in whole seconds.
const leeway = 2 * time.Second

// covers says that the block stands for what is left of a claim.
func (s standing) covers(c Claim, now time.Time) bool {
	return s.Left > 0 && s.Left >= c.Left(now)-leeway
}

// standing is the block that a claim asks for.
func (c Claim) standing(now time.Time) standing {
	return standing{c.AlertID, time.Duration(c.Made), c.Left(now)}
}
