// Package redisfaults breaks Redis under load, in every way Redis breaks: killed, cut from
// power, emptied, full, slow, unreachable, failed over to a copy that lacks what its master
// had acknowledged. Three replicas, each a process of its own, go on meanwhile with alerts
// of all three action classes, one class a playbook: decoys to be terminated (verifiable),
// lines to be logged (idempotent), and a script that appends a line (at-most-once).
//
// The publisher does what the sensor's does: it keeps what Redis has acknowledged, and
// publishes it again when that may be lost.
//
// # What must hold
//
// In each scenario every alert that was published ends settled, in the history of Redis that
// survived, and nothing is doubled: by the judge's rules over the trace of the replicas, and
// by what was left outside of everything on trial: decoys that died, lines in the log, and
// in the script's file never two lines of one key. The ledger's own audit must be clean,
// also where Redis lost acknowledged writes: what survives is an earlier state of the same
// history, or none, and what is recorded again is recorded into that one once.
//
// What a loss costs instead stands in the table: alerts published again, outcomes recorded
// again from the host's receipts, and scripts that were stopped in the middle and are
// unknown.
//
// # Faults that bite
//
// A fault that changed nothing proves nothing. So each scenario counts what its fault did:
// alerts that were acknowledged and vanished, errors that the replicas saw, scripts that had
// to be loaded again; and fails where there is none of it.
//
// # Teeth
//
// The scenarios in which Redis forgets are run once more with a binary that has no gate
// (build tag riposte_no_gate), and must then be found guilty of doubled effects.
package redisfaults
