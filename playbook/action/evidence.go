package action

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"

	"riposte/stream"
)

// EvidenceSpec is the `with` block of collect_evidence.
type EvidenceSpec struct {
	// MaxSize is how many bytes may be collected, before compression: 1MiB to 1GiB, default
	// 64MiB. What does not fit is cut or left out, and the manifest says so.
	MaxSize Size `yaml:"max_size"`
}

const (
	minEvidence = Size(1 << 20)
	maxEvidence = Size(1 << 30)
)

func newEvidenceSpec() *EvidenceSpec { return &EvidenceSpec{MaxSize: 64 << 20} }

// Validate implements Spec.
func (s *EvidenceSpec) Validate() error {
	if s.MaxSize < minEvidence || s.MaxSize > maxEvidence {
		return fmt.Errorf("max_size: %s is not within %s to %s", s.MaxSize, minEvidence, maxEvidence)
	}
	return nil
}

// Resolve implements Spec. It returns nil where the alert names no process.
func (s *EvidenceSpec) Resolve(a *stream.Alert, seen Seen) Effect {
	p, ok := processOf(a, seen)
	if !ok {
		return nil
	}
	return &CollectEvidence{Process: p, MaxSize: s.MaxSize}
}

// Capabilities implements Spec. Reading the descriptors, the environment and the executable
// of another user's process takes both.
func (s *EvidenceSpec) Capabilities(ownUID bool) []Capability {
	if ownUID {
		return nil
	}
	return []Capability{CapSysPtrace, CapDACReadSearch}
}

// CollectEvidence writes down what the kernel knows of one process, and its executable.
type CollectEvidence struct {
	Process
	MaxSize Size `json:"max_size"`
}

// Describe implements Effect.
func (c *CollectEvidence) Describe() string { return "collect evidence of " + c.Process.String() }

// check refuses what can be refused without looking at the host.
func (c *CollectEvidence) check() error {
	if err := (&EvidenceSpec{c.MaxSize}).Validate(); err != nil {
		return Refuse("%v", err)
	}
	return c.contradiction()
}

// evidenceDir is the folder below Env.State.
const evidenceDir = "evidence"

// evidenceName is the name of the file that holds a step's evidence, never an outside string.
func evidenceName(key string) string { return evidenceStem(key) + ".tar.gz" }

func evidenceStem(key string) string {
	sum := sha256.Sum256([]byte(key))
	return hex.EncodeToString(sum[:16])
}
