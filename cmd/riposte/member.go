package main

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"

	"github.com/spf13/cobra"

	"riposte/playbook/gate"
	"riposte/stream"
	"riposte/stream/proc"
)

// folders are where the Riposte processes of a host meet.
type folders struct{ runtime, state string }

func (f *folders) flags(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.runtime, "runtime-dir", "", "`folder` shared by all Riposte processes of the host, 0700 (default: /run/riposte, or under $XDG_RUNTIME_DIR)")
	cmd.Flags().StringVar(&f.state, "state-dir", "", "`folder` for what must outlive a reboot, 0700 (default: /var/lib/riposte, or under $XDG_STATE_HOME)")
}

func (f *folders) defaults() {
	if f.runtime == "" {
		f.runtime = defaultRuntimeDir()
	}
	if f.state == "" {
		f.state = defaultStateDir()
	}
}

func defaultRuntimeDir() string {
	switch {
	case runtime.GOOS == "windows":
		return filepath.Join(os.Getenv("ProgramData"), "riposte", "run")
	case os.Geteuid() == 0:
		return "/run/riposte"
	case os.Getenv("XDG_RUNTIME_DIR") != "":
		return filepath.Join(os.Getenv("XDG_RUNTIME_DIR"), "riposte")
	}
	return fmt.Sprintf("/tmp/riposte-%d", os.Geteuid())
}

func defaultStateDir() string {
	switch {
	case runtime.GOOS == "windows":
		return filepath.Join(os.Getenv("ProgramData"), "riposte", "state")
	case os.Geteuid() == 0:
		return "/var/lib/riposte"
	case os.Getenv("XDG_STATE_HOME") != "":
		return filepath.Join(os.Getenv("XDG_STATE_HOME"), "riposte")
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return fmt.Sprintf("/tmp/riposte-%d-state", os.Geteuid())
	}
	return filepath.Join(home, ".local", "state", "riposte")
}

// member is this process among the Riposte processes of the host.
type member struct {
	name string // HOST-PID-RANDOM, never reused; the consumer's name, too
	gate *gate.Gate
	life *gate.Life
}

// join opens the host's gate and locks a life file in it, by which others tell that this
// process lives, and keep their hands off it. role is the consumer group of a responder.
func (f *folders) join(host stream.Host, role string) (*member, error) {
	f.defaults()
	var random [4]byte
	rand.Read(random[:])
	m := &member{name: fmt.Sprintf("%s-%d-%s", host, os.Getpid(), hex.EncodeToString(random[:]))}
	var err error
	if m.gate, err = gate.Open(f.runtime, f.state, m.name, role); err != nil {
		return nil, fmt.Errorf("runtime folder: %w", err)
	}
	if m.life, err = m.gate.Join(); err != nil {
		return nil, errors.Join(fmt.Errorf("runtime folder: %w", err), m.gate.Close())
	}
	return m, nil
}

// leave is for a process that holds nothing of the stream's.
func (m *member) leave() error { return errors.Join(m.life.Leave(), m.gate.Close()) }

// living are the PIDs of the Riposte processes of this host, for the guardrail floor.
func (m *member) living() ([]int, error) {
	members, err := m.gate.Members()
	if err != nil {
		return nil, err
	}
	here, err := proc.Namespace()
	if err != nil && !errors.Is(err, proc.ErrUnsupported) {
		return nil, err
	}
	var pids []int
	for _, other := range members {
		if other.Alive && other.PIDNS == here { // elsewhere the same PID is somebody else
			pids = append(pids, other.PID)
		}
	}
	return pids, nil
}
