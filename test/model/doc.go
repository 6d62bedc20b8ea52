// Package model has spin search every way in which two replicas, Redis and the world can
// get into each other's way, for one that breaks the promise of ledger/doc.go. The
// protocol is ledger.pml, to be read beside ledger/doc.go and playbook/gate/doc.go;
// renewal.pml is about leases alone, and parking.pml about an alert that waits for a person or a
// switch. The tests search them to the end as they are, and
// then again with each protection taken out, and fail unless that breaks the promise.
//
// # What is checked
//
// An assertion is named after what is broken where it does not hold:
//
//	after_closed     an effect begun after its outcome was closed at the gate,
//	after_recorded   or after a record for it was accepted, in whatever history,
//	older_token      or under an older token than one already begun,
//	overlap          or while somebody is inside it, or inside another one of its target,
//	in_place         or, a verifiable one, while it is in place,
//	second           or, an at-most-once one, a second time
//	recorded_twice   a second record of a step accepted in one history
//	disagreement     an outcome recorded that is not the one closed at the gate
//	acked_unsettled  a delivery acked whose alert is not settled in the same history
//	dropped          an alert of the surviving history that is neither settled nor pending,
//	                 nor about to be published again
//	stuck            nobody can do anything, and an alert is not settled
//	superseded       a holder superseded that lives, runs and is connected (renewal.pml)
//
// and in parking.pml, beside second and dropped:
//
//	unapproved       an effect begun in mode approve that nobody ever approved
//	needless         unknown, though nothing was tried and no reboot met it under way
//	forgotten        a person's answer lost, by something else than a failover
//
// # What may go wrong
//
// A replica may be killed between any two of its steps, with a child of its effect living
// on. It may be frozen between any two of them, for as long as the others like: a frozen
// replica is one that is not moved. In ledger.pml leases run out and deaths are proven at
// any moment, so whoever asks for a held alert gets it. The reply to Begin and to Record may
// be lost any number of times. An alert may be published twice. Once, the master is replaced
// by a copy made at any earlier moment; what it was told since is lost, and it still
// answers whoever asks it: every request goes to either of the two, so replicas change over
// at any time, and back. Server clocks say anything at any time, so after the failover an
// epoch may be granted again, or a lower one. Stream IDs may be given twice, too. An effect
// may fail and be tried again, and what was in place may go. Receipts may be cleaned once
// the alert is settled for good.
//
// # Bounds
//
// Two replicas; one alert with one step, or two alerts on one target, or two steps; three
// grants in all where the configuration does not say otherwise; one kill, after which a new
// replica starts; server clocks of two values; one failover; two entries in a stream. The
// first grant is replica 0's, which loses nothing: until then the two are alike.
//
// # What is left out
//
//   - --unfenced. Reboots and a lost state folder are in parking.pml alone.
//   - Breakers and warm-up: each counts inside one script. Undo: the random machine has that.
//   - The dead, who settle an alert with a script of the same form.
//   - Retention: nothing expires, but receipts are cleaned as if all the rest was long over.
//   - Requests that a client has given up and that are run later still. A server that is
//     slow to run what it was sent is a replica that is slow to send it; only copies of a
//     request that was also sent again are not covered.
//   - How a delivery comes about: any entry may be handed to anybody at any time, also when
//     it was acked. That none is forgotten is for the tests of the sweep.
//   - Torn writes, full disks, and whoever else writes into the same files or keys.
//   - Time, but for renewal.pml: there a lease is three thirds, no third passes before each
//     holder that runs has tried to renew, and no two renewals in a row are lost.
//
// # How much was searched
//
// Every search is exhaustive: one that runs out of depth or memory fails the test. With
// -model.full the larger ones are searched as well. States seen on 2026-11-23, no promise
// broken:
//
//	verifiable                           7,761,989   with two kills  10,634,449
//	idempotent                           5,698,510   with two kills   7,684,525
//	at-most-once                         5,047,966   with two kills   6,953,109
//	two steps, no failover                 148,566   at-most-once, with one     2,579,073
//	two alerts, one target, no failover    228,777   with one, two grants       1,923,762
//	two alerts, failover, no kill          706,538   at-most-once, with a kill  1,240,319
//	renewal                                  6,145
package model
