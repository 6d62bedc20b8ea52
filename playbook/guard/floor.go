package guard

import (
	"net/netip"
	"sync"
	"time"

	"riposte/playbook/action"
)

// Floor implements action.Guard. Its zero value protects everything but the other
// processes of Riposte and the Redis servers, which it cannot know by itself. It may be
// used by several goroutines.
type Floor struct {
	// Members returns the PIDs of the live Riposte processes of this host, as numbered
	// in this PID namespace. It is called for each process that is asked about, so that a
	// replica is safe from its first moment; an error is a refusal. May be nil.
	Members func() ([]int, error)
	// RedisPeers returns the addresses of the Redis servers, as last known. It is called
	// at most once a second and must not wait for the network: every decision would wait
	// with it. May be nil.
	RedisPeers func() []netip.Addr

	kinship kinship

	mu    sync.Mutex
	facts map[netip.Addr]string // what an address is to this host
	read  time.Time
}

var _ action.Guard = (*Floor)(nil)
