package demo

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"syscall"
	"time"
)

// Chain is a parent and the child it has no business starting.
type Chain struct{ Parent, Child string }

// Chains are attack chains that the built-in rules know as HIGH or above.
var Chains = []Chain{
	{"winword.exe", "powershell.exe"},
	{"excel.exe", "cmd.exe"},
	{"outlook.exe", "wscript.exe"},
	{"memcached", "bash"},
	{"mshta.exe", "powershell.exe"},
	{"acrord32.exe", "cmd.exe"},
}

// DecoyLife is how long a decoy sleeps if nobody stops it.
const DecoyLife = time.Minute

// Decoys makes decoy processes. Their executables are links to one copy of this binary.
type Decoys struct {
	dir, nonce string
}

// NewDecoys copies this binary into dir once, and links the copy to every name it needs.
func NewDecoys(dir, nonce string) (*Decoys, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	copied := filepath.Join(dir, "decoy")
	if err := copyFile(copied, self); err != nil {
		return nil, fmt.Errorf("copy this binary for the decoys: %w", err)
	}
	for _, c := range Chains {
		for _, name := range []string{c.Parent, c.Child} {
			if err := os.Link(copied, filepath.Join(dir, name)); err != nil && !os.IsExist(err) {
				return nil, fmt.Errorf("name a decoy: %w", err)
			}
		}
	}
	return &Decoys{dir, nonce}, nil
}

func copyFile(to, from string) (err error) {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o700)
	if err != nil {
		return err
	}
	if _, err := io.Copy(out, in); err != nil {
		out.Close()
		return err
	}
	return out.Close()
}

// Attack starts a chain and returns when it has ended, or ctx has. started is told the PID
// of the child. A stubborn child ignores SIGTERM. ended is how the child ended, such as
// "signal: killed", as its parent saw it.
func (d *Decoys) Attack(ctx context.Context, c Chain, stubborn bool, started func(pid int)) (ended string, err error) {
	cmd := exec.CommandContext(ctx, filepath.Join(d.dir, c.Parent), "decoy", "parent", d.nonce, filepath.Join(d.dir, c.Child), strconv.FormatBool(stubborn))
	cmd.Env = []string{} // it needs nothing, and must not turn a variable into a flag
	out, err := cmd.StdoutPipe()
	if err != nil {
		return "", err
	}
	err = Leashed(cmd, func() error {
		if err := cmd.Start(); err != nil {
			return err
		}
		lines := bufio.NewScanner(out)
		if lines.Scan() {
			if pid, err := strconv.Atoi(lines.Text()); err == nil {
				started(pid)
			}
		}
		if lines.Scan() {
			ended = lines.Text()
		}
		return cmd.Wait()
	})
	if ctx.Err() != nil {
		return ended, ctx.Err()
	}
	return ended, err
}

// parentAge is how long the first process of a chain has been running when it starts the second.
// A real one has for days. A sensor that polls must have seen it as it is before that: else it
// cannot be sure that it was not another program then.
const parentAge = time.Second

// Parent is the main function of the first process of a chain.
func Parent(ctx context.Context, out io.Writer, nonce, child, stubborn string) error {
	select {
	case <-time.After(parentAge):
	case <-ctx.Done():
		return ctx.Err()
	}
	cmd := exec.CommandContext(ctx, child, "decoy", "child", nonce, stubborn)
	cmd.Env = []string{}
	start := func() error {
		if err := cmd.Start(); err != nil {
			return err
		}
		_, err := fmt.Fprintln(out, cmd.Process.Pid)
		_ = cmd.Wait() // however it ends is what the demo is about
		_, err2 := fmt.Fprintln(out, cmd.ProcessState)
		return errors.Join(err, err2)
	}
	return Leashed(cmd, start)
}

// Child is the main function of the second: it sleeps.
func Child(ctx context.Context, stubborn string) error {
	if stubborn == "true" {
		signal.Ignore(syscall.SIGTERM) // a sensor that is fast enough gets it before
		ctx = context.WithoutCancel(ctx)
	} else {
		signal.Reset(syscall.SIGTERM) // ends it, as it would any program
	}
	life := time.NewTimer(DecoyLife)
	defer life.Stop()
	select {
	case <-life.C:
		return nil
	case <-ctx.Done(): // SIGTERM came before the above
	}
	self, err := os.FindProcess(os.Getpid())
	if err != nil {
		return err
	}
	if err := self.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	<-life.C // it may take a moment
	return nil
}
