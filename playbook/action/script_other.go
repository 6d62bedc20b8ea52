//go:build !linux

package action

import (
	"context"
	"os"
	"runtime"
)

// Probe implements Effect. It refuses: only Linux ends a script together with the process
// that started it.
func (s *RunScript) Probe(ctx context.Context, env Env) (Receipt, bool, error) {
	return Receipt{}, false, Refuse("run_script needs Linux; this is %s", runtime.GOOS)
}

func (s *RunScript) run(ctx context.Context, input []byte, environ []string, locks []*os.File) (Receipt, error) {
	_, _, err := s.Probe(ctx, Env{})
	return Receipt{}, err
}
