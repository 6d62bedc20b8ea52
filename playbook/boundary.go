package playbook

// boundary is a place between two steps of the pipeline. Whatever happens to a replica
// there (it is killed, it is frozen and thaws too late), nothing is lost and nothing done
// twice: the crash matrix in test/crash stops real replicas at each of them.
type boundary string

const (
	atRead     boundary = "read"           // alerts were delivered, nobody has asked for them
	atClaim    boundary = "claim"          // one of them is about to be decoded
	atGranted  boundary = "granted"        // Begin has granted them, no work has started
	atGate     boundary = "before-gate"    // a worker is about to enter
	atInside   boundary = "inside-gate"    // the lock is held, the receipt says entered
	atProbed   boundary = "probed"         // the effect was seen not to be in place
	atBegun    boundary = "begun"          // the receipt says begun, the effect has not
	atApplied  boundary = "applied"        // the effect is in place, the receipt does not say so
	atClosed   boundary = "closed"         // the receipt holds the outcome, and nobody has been told
	atRecord   boundary = "before-record"  // the gate is free again, the ledger knows nothing
	atRecorded boundary = "recorded"       // the ledger has the outcome
	atAttempt  boundary = "attempt-failed" // the ledger has counted a failed attempt
)
