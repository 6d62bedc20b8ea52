// Package gate is the host's fence around effects. All replicas of a host share it, as a
// folder, because only the host can say whether an effect on it is in progress: Redis may
// forget, a lease may run out while its holder is merely frozen.
//
// # Receipts
//
// Each step of each alert has one file, its receipt, named by the SHA-256 of its key.
// Whoever is inside the step holds the file's lock (flock(2)), which the kernel frees at
// death and not before. The file is written in place, by appending lines:
//
//	entered  a token has passed the gate
//	begun    the effect may have begun
//	left     whoever was inside has gone, without an outcome
//	closed   the outcome is decided; the effect is never begun again, under any token
//
// Enter refuses a token older than one that has passed, and one of equal epoch with
// another nonce. A receipt that is closed beats everything, also an effect that is not in
// place any more: a block that timed out or was undone must not come back. A line that a
// crash tore ends without a newline and counts as never written; nothing is done before a
// line is written whole.
//
// # Targets
//
// Two alerts may act on one target. Enter also locks the files of the step's targets, in
// sorted order, without waiting, so that the two take turns.
//
// Each target may have a file of claims beside, see action.Claim: which steps ask something
// of it, and until when. It is read and written only by who has the target's lock, written
// aside and renamed, in the state folder if there is one: what a host has blocked must still
// be known after a reboot. Its reader may be another process than its writer; nothing in it
// lets anybody in or keeps anybody out.
//
// # Waiting
//
// Enter never blocks: a blocking flock cannot be cancelled. It returns a *BusyError that
// names the holder; the caller polls without occupying a worker. A holder that is still
// inside long after its deadline is frozen or hung, and is ended: see End.
// A closed receipt needs no waiting: its outcome is final, and is read whoever has the lock.
//
// # Life files
//
// Every Riposte process holds the lock of its life file under its own never-reused name.
// A free lock proves death; a missing file proves nothing.
//
// # Cleaning
//
// An old receipt may be removed only after the folder-wide floor was raised above every
// token that could still ask for it: see Clean.
package gate
