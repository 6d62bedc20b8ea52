//go:build riposte_no_token

package ledger

import "strings"

// weaken has Record take anybody's word: see weaken.go.
func weaken(name, src string) string {
	const fence = "if e ~= epoch or n ~= nonce then"
	if name != "record" {
		return src
	}
	if strings.Count(src, fence) != 1 {
		panic("record.lua has no such line any more: " + fence)
	}
	return strings.Replace(src, fence, "if false then", 1)
}
