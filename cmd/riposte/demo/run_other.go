//go:build !linux

package demo

import (
	"context"
	"fmt"
	"io"
	"runtime"
)

// Run says what is missing on this system.
func Run(context.Context, io.Writer, string) (*Report, error) {
	return nil, fmt.Errorf("the demo needs Linux: it stops processes through pidfds (pidfd_open(2)), and %s has none; "+
		"run it in a Linux machine or container", runtime.GOOS)
}
