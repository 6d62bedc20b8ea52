//go:build !linux

package guard

import "riposte/stream/proc"

// sums is nothing where no process is acted on.
type sums struct{}

type nobody struct{ subject }

// newSubject fails: without /proc nothing is known of a process, and the floor has refused it.
func newSubject(proc.Stat, *sums) (nobody, error) { return nobody{}, proc.ErrUnsupported }

func (nobody) close() {}
