//go:build riposte_no_gate

package gate

// This build lets everybody in and shows nobody what was decided. It exists so that the
// chaos test can be seen to fail without the gate; it is not for use.
const fenced = false
