//go:build !riposte_no_gate

package gate

// fenced is false only in builds made to show that the tests notice a missing gate.
const fenced = true
