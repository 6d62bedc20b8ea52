// Package playbook is what to do about an alert: which playbooks match, what each step
// means for this alert, and the replica that carries it out.
//
// A Responder is one replica. Data runs one way:
//
//	Consumer -> Planner -> Ledger.Begin -> per step: gate -> apply -> close -> record
//
// The order is the guarantee. Begin gives the right to act; the gate lets one replica of
// the host in, and shows what was decided before; the outcome is closed in the gate's
// receipt before it is recorded in the ledger; and the last record acks the alert in the
// same script. A replica may die between any two of these and its successor does what is
// left, and only that. See packages ledger and gate for the rules, and Responder.step for
// the pipeline itself.
//
// The plan (resolved parameters, mode, hash of the playbook) is frozen in the ledger entry
// by the first Begin. A successor runs that plan, not a file that was edited meanwhile. Where a
// step depends on the outcome of an earlier one, by its condition, a template or on_error, the
// plan keeps the words and the alert, and makeOut decides by what the entry says and by nothing
// else: so every successor decides the same.
//
// Modes are observe, approve and enforce; the weaker of a playbook's and its replica's counts.
// In mode approve an alert is parked before its first effect, until a person has answered
// (riposte approve, riposte deny) or the time for that is over, which is a no.
//
// Errors end nothing by themselves: the other steps are run all the same, unless the step says
// on_error: stop, or undo, which also takes back what the playbook has done so far, the last
// first. A person does that by riposte undo. Either way an undo is a step like any other, with
// a key, a receipt and a record of its own, so it happens once, too.
package playbook
