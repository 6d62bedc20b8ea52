//go:build !linux

package proc

import "time"

// InitialPIDNamespace has no meaning outside Linux.
const InitialPIDNamespace = 0

func BootID() (string, error)                      { return "", ErrUnsupported }
func Namespace() (uint64, error)                   { return 0, ErrUnsupported }
func ReadStat(pid int) (Stat, error)               { return Stat{}, ErrUnsupported }
func Read(pid int) (Info, error)                   { return Info{}, ErrUnsupported }
func UID(pid int) (int, error)                     { return 0, ErrUnsupported }
func ReadExe(pid int) (string, error)              { return "", ErrUnsupported }
func (s Stat) StartTime() (t time.Time, err error) { return t, ErrUnsupported }
func Ancestors(pid int) []int                      { return nil }
