package action

import (
	"context"
	"fmt"
	"slices"
	"strings"
)

// nothing says that all it was to block are the addresses of a process that has none.
func (b *BlockIP) nothing() bool { return b.Looked != "" && b.noAddress() && b.Program == nil }

func (b *BlockIP) noAddress() bool { return b.Address == "" && len(b.Addresses) == 0 }

// Look implements Looker: it finds out whom the process talks to. Protected addresses among
// them are left out: the resolver is somebody whom malware talks to, too.
func (b *BlockIP) Look(ctx context.Context, env Env) (Effect, error) {
	if b.Of == nil || b.Looked != "" {
		return b, nil
	}
	peers, gone, err := b.Of.peers(ctx, env)
	if err != nil {
		return nil, err
	}
	whole := *b
	whole.Addresses = slices.Clone(b.Addresses)
	found, left := 0, []string{}
	for _, addr := range peers {
		err := env.Guard.Address(addr)
		reason, refused := Reason(err)
		switch {
		case refused:
			left = append(left, reason)
		case err != nil:
			return nil, err
		case len(whole.Addresses) == mostAddresses:
			left = append(left, fmt.Sprintf("%s is one too many", addr))
		default:
			whole.Addresses = append(whole.Addresses, addr.String())
			found++
		}
	}
	whole.Looked = fmt.Sprintf("%s talks to %d addresses that may be blocked", b.Of, found)
	if gone {
		whole.Looked = b.Of.String() + " had exited before; whom it talked to cannot be told"
	}
	if len(left) > 0 {
		whole.Looked += "; left out: " + clip(strings.Join(left, "; "), maxField)
	}
	return &whole, nil
}
