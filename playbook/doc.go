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
// by the first Begin. A successor runs that plan, not a file that was edited meanwhile.
package playbook
