//go:build !linux

package action

// Missing is empty: capabilities are a matter of Linux.
func Missing(needed []Capability) ([]Capability, error) { return nil, nil }
