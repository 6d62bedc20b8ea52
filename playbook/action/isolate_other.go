//go:build !linux

package action

import "runtime"

func newIsolator() (isolator, error) {
	return nil, Refuse("an isolation needs nftables, and with it Linux; this is %s", runtime.GOOS)
}
