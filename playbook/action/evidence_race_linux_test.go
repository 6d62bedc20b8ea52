package action

import (
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"riposte/stream/proc"
	"riposte/test/need"
)

// during is a file in which something happens with the first byte, which is when the first
// part has been read.
type during struct {
	do func()
	io.Writer
}

func (d *during) Write(p []byte) (int, error) {
	if do := d.do; do != nil {
		d.do = nil
		do()
	}
	return d.Writer.Write(p)
}

// collecting collects from a process in the middle of which something happens to it.
func collecting(t *testing.T, cmd *exec.Cmd, do func()) manifest {
	t.Helper()
	c := &CollectEvidence{Process: Process{PID: int64(cmd.Process.Pid), SeenUntil: time.Now()}, MaxSize: 16 << 20}
	target, gone, err := c.look(t.Context(), Env{})
	if err != nil || gone {
		t.Fatal(gone, err)
	}
	defer target.close()
	a, err := c.collect(t.Context(), Env{}, target, &during{do, io.Discard})
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := a.close(); err != nil {
		t.Fatal(err)
	}
	return a.manifest
}

// shell is a process that becomes another when a line comes in.
func shell(t *testing.T) (*exec.Cmd, io.Writer) {
	t.Helper()
	cmd := exec.Command(need.Binary(t, "sh"), "-c", "echo; read x; exec sleep 1000")
	in, err1 := cmd.StdinPipe()
	out, err2 := cmd.StdoutPipe()
	if err := errors.Join(err1, err2, cmd.Start()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	if _, err := io.ReadFull(out, make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	return cmd, in
}

// What was read by number when the process had exited may be another's, and is left out. Its
// executable was open by then, and is whole.
func TestEvidenceExits(t *testing.T) {
	need.Linux(t)
	cmd, _ := shell(t)
	m := collecting(t, cmd, func() { cmd.Process.Kill(); cmd.Wait() })
	if m.Alive || m.ExeChanged {
		t.Errorf("alive at its end: %t, changed: %t", m.Alive, m.ExeChanged)
	}
	for _, part := range m.Members {
		switch part.Name {
		case "exe":
			if st, err := os.Stat(cmd.Path); err != nil || part.Size != st.Size() || part.Error != "" {
				t.Errorf("%+v, %v", part, err)
			}
		case "stat":
			if part.Size == 0 || part.Error != "" {
				t.Errorf("%+v", part)
			}
		default:
			if part.SHA256 != "" || !strings.Contains(part.Error, "had exited") {
				t.Errorf("%+v", part)
			}
		}
	}
	if len(m.Members) != len(parts())+1 {
		t.Errorf("%d parts", len(m.Members))
	}
}

// A part that was read while the process exited is not kept.
func TestEvidenceUnproven(t *testing.T) {
	gone := false
	proven := func() error {
		if gone {
			return errExited
		}
		return nil
	}
	part := func() ([]byte, error) { return []byte("x"), nil }
	if data, err := readProven(t.Context(), proven, part); string(data) != "x" || err != nil {
		t.Errorf("%q, %v", data, err)
	}
	if data, err := readProven(t.Context(), proven, func() ([]byte, error) { gone = true; return part() }); data != nil || err != errExited {
		t.Errorf("%q, %v", data, err)
	}
	if data, err := readProven(t.Context(), proven, func() ([]byte, error) { t.Error("read"); return part() }); data != nil || err != errExited {
		t.Errorf("%q, %v", data, err)
	}
}

func TestEvidenceExecs(t *testing.T) {
	need.Linux(t)
	cmd, in := shell(t)
	m := collecting(t, cmd, func() {
		io.WriteString(in, "x\n")
		for {
			if exe, err := proc.ReadExe(cmd.Process.Pid); err == nil && strings.HasSuffix(exe, "sleep") {
				return
			}
			time.Sleep(time.Millisecond)
		}
	})
	if !m.Alive || !m.ExeChanged {
		t.Errorf("alive at its end: %t, changed: %t", m.Alive, m.ExeChanged)
	}
	st, err := os.Stat(cmd.Path)
	if exe := m.Members[len(m.Members)-1]; err != nil || exe.Name != "exe" || exe.Size != st.Size() {
		t.Errorf("%+v is not what it ran first, %v", exe, err)
	}
}

// Whoever serves a file, or memory, can withhold it for good: nobody waits for long.
func TestEvidenceWithheld(t *testing.T) {
	never := make(chan struct{})
	defer close(never)
	blocked := func() (int, error) { <-never; return 0, nil }
	if _, err := within(t.Context(), time.Millisecond, blocked); err == nil || !strings.Contains(err.Error(), "no answer within 1ms") {
		t.Error(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	if _, err := within(ctx, time.Hour, blocked); !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
	// A part of the time is left for what was read.
	ctx, cancel = context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	early, stop := readUntil(ctx)
	defer stop()
	by, _ := ctx.Deadline()
	if until, ok := early.Deadline(); !ok || by.Sub(until) < 2*time.Second || by.Sub(until) > 3*time.Second {
		t.Errorf("%s are left", by.Sub(until))
	}
	next := pieces(early, nil)
	stop()
	if piece, err := next(); piece != nil || err == nil || !strings.Contains(err.Error(), "no time was left") {
		t.Errorf("%d bytes, %v", len(piece), err)
	}
}
