// Package stream is what travels between a sensor and its responders, and how.
//
// An alert is JSON in a Redis Stream, one stream a host, at least once: being handed an
// entry gives no right to act on it. That right is the ledger's to give. The stream only
// promises that an entry stays in the group's pending list until the ledger has settled
// it and acked it in the same script, so no code in this package acks anything.
//
// Package proc, below this one, reads the identity of a process the same way at both ends.
package stream
