// Package random tests the ledger's scripts by chance: a random sequence of everything that
// replicas, publishers and people may do to one host's ledger, in any order, carried out on
// a real redis-server and, beside it, on a plain model in memory. After every action the
// answer and everything that stands in Redis must be what the model says, and the promise
// must hold of what is seen in Redis, whatever the model says. At the end the ledger's own
// audit must find nothing.
//
// The model was written from the documentation of the packages ledger and stream, not from
// the scripts. It is short enough to be read beside it.
//
// # Two groups
//
// The group containment does all that a group can do. The other one reads the same alerts
// and acks them as it likes, without its ledger, so the audit does not look at it. What it
// leaves lying when its replicas are silent, or have left, is buried in its own ledger and
// dead letters by undertakers, who may die at any point of it. Replicas of both groups
// register their gates in the control hash of the host, which holds other things as well.
//
// # More than can happen
//
// What the scripts can tell apart happens here more often and in worse company than in
// life. A replica that was proven dead goes on acting; grants that were lost are used again;
// a delivery that was acked long ago is begun again; a token has twins of the same epoch
// with another nonce, as a failover would leave them, and of the same nonce with another
// epoch. Replies are lost after the server has done what was asked, and requests are sent
// again at once or much later. Scripts are flushed. What no replica may do does not happen:
// one that has not learned what became of its write sends that same write again, or gives
// up, and nobody records a step that has its outcome.
//
// # Time
//
// Leases last an hour and nobody waits for one. The scripts know time in a few ways only:
// a lease or a registration that is over is less than TIME, a parked alert that is due is at
// most TIME, an alert to be trimmed or left by an abandoned group has an ID below TIME less
// an age, and a replica is silent that has been seen no later than that. So instead of
// moving the clock on, the test moves one of these back: LEASE_US in the header, UNTIL_US in
// the control hash, the score among the waiting, or a negative age. To a comparison the two
// are the same. Alerts are added two hours ago, now and two hours ahead, so that one age
// tells some of them from the others. The other uses of TIME are in what is written, a new
// epoch, a new lease, a new registration, and in how long a group has been silent, and there
// the model allows what the clock said between just before the request and just after it,
// and nothing else.
//
// # Replay
//
// The seed is in the log of the test. Rapid's own flags say how long it goes on, and a
// failure is shrunk to the shortest sequence that rapid can find:
//
//	go test -v ./test/random -rapid.seed=42
//	go test -v ./test/random -rapid.checks=20000 -rapid.steps=200 -timeout=2h
package random
