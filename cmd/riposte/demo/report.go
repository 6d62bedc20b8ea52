package demo

import (
	"errors"
	"fmt"
	"io"
	"time"
)

// grace is what the demo's playbook gives a decoy after SIGTERM.
const grace = 500 * time.Millisecond

// Report is what came of a demo. Its JSON is the last line of `riposte demo --json`.
type Report struct {
	Alerts           int     `json:"alerts"`            // accepted: in the ledger
	Contained        int     `json:"contained"`         // decoys whose death by a signal the demo saw
	Lost             int     `json:"lost"`              // attacks that nobody ended
	DuplicateEffects int     `json:"duplicate_effects"` // doubled, judged from the trace
	ReplicasKilled   int     `json:"replicas_killed"`   // in the middle of work
	ReplicasFrozen   int     `json:"replicas_frozen"`   // in the middle of work, and thawed
	TakeoverMax      float64 `json:"takeover_ms_max"`   // death of a replica until another holds its alert
	DetectP50        float64 `json:"detect_to_dead_ms_p50"`
	DetectP99        float64 `json:"detect_to_dead_ms_p99"`
	Backend          string  `json:"backend"`
	Source           string  `json:"source"`

	attacks  int
	findings []string // of the audit
}

// Verdict returns an error that says what did not go as promised.
func (r *Report) Verdict() error {
	var errs []error
	want := func(ok bool, format string, args ...any) {
		if !ok {
			errs = append(errs, fmt.Errorf(format, args...))
		}
	}
	want(r.Alerts == r.attacks && r.Contained == r.attacks, "%d attacks, %d alerts, %d contained", r.attacks, r.Alerts, r.Contained)
	want(r.Lost == 0, "%d attacks lost", r.Lost)
	want(r.DuplicateEffects == 0, "%d doubled effects", r.DuplicateEffects)
	want(r.ReplicasKilled == 1, "no replica was killed in the middle of its work; run the demo again")
	want(r.ReplicasFrozen == 1, "no replica was frozen in the middle of its work; run the demo again")
	for _, f := range r.findings {
		errs = append(errs, fmt.Errorf("audit: %s", f))
	}
	return errors.Join(errs...)
}

// Print writes the report for a person.
func (r *Report) Print(w io.Writer) {
	fmt.Fprintf(w, `
accepted    %3d alerts from %d attacks
contained   %3d
lost        %3d
doubled     %3d effects
replicas    %3d killed, %d frozen and thawed, each in the middle of its work
takeover    %.1f ms from death to the next holder, at most
detect to dead  %.1f ms p50, %.1f ms p99 (a third of the decoys learn to ignore SIGTERM, and get a grace of %v)
backend     %s
source      %s
audit       %s
`, r.Alerts, r.attacks, r.Contained, r.Lost, r.DuplicateEffects, r.ReplicasKilled, r.ReplicasFrozen, r.TakeoverMax,
		r.DetectP50, r.DetectP99, grace, r.Backend, r.Source, r.audit())
}

func (r *Report) audit() string {
	if len(r.findings) == 0 {
		return "clean"
	}
	return fmt.Sprintf("%d findings", len(r.findings))
}
