// Package demo shows the main job on this machine, safely: decoy attack chains named like
// the real thing, a private Redis, a sensor, and responder replicas that are killed and
// frozen in the middle of their work.
//
// Decoys are harmless copies of this very binary that sleep, descendants of the demo, and
// the only thing its rules and its playbook match: both ask for a nonce in the command
// line. Everything lives in one temporary folder and in process groups of its own; the
// kernel ends every process of the demo when the demo itself dies.
package demo
