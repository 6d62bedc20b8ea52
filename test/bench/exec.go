package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// around is how many unrelated programs a second are started around the suspicious ones.
const around = 2000

// execToDead is how long a suspicious process lives: from just before it is forked and
// executed until its parent has seen it end. All of Riposte is between: the sensor with its
// built-in rules, the stream, a responder. Whatever else the rules may find on this machine
// is published to our own Redis, where no playbook matches it.
func execToDead(ctx context.Context, l *lab) (rows []Row, err error) {
	for _, perSecond := range []int{0, around} {
		more, err := l.execRows(ctx, perSecond)
		if err != nil {
			return rows, err
		}
		rows = append(rows, more...)
	}
	return rows, nil
}

func (l *lab) execRows(ctx context.Context, perSecond int) ([]Row, error) {
	if err := l.reset(ctx); err != nil {
		return nil, err
	}
	if _, err := l.start(ctx, l.responder("terminate"), false); err != nil {
		return nil, err
	}
	sensor, err := l.sensor(ctx)
	if err != nil {
		return nil, err
	}
	chain, err := l.chain(ctx)
	if err != nil {
		return nil, err
	}
	setting, crowd := "idle", (*process)(nil)
	if perSecond > 0 {
		setting = fmt.Sprintf("%d unrelated execs/s asked for", perSecond)
		if crowd, err = l.start(ctx, l.act("spawn", l.busybox, fmt.Sprint(perSecond)), true); err != nil {
			return nil, err
		}
	}
	began, used := time.Now(), cpu(sensor.pid())
	var forked, took []float64
	missed := 0
	for i := range l.size(320, 12) {
		a, err := chain.attack()
		if err != nil {
			return nil, err
		}
		if !a.killed {
			missed++
		} else if i >= l.size(20, 2) { // before that, connections and scripts are new
			forked, took = append(forked, a.forked), append(took, a.died)
		}
		if err := l.settled(ctx, 0); err != nil {
			return nil, err
		}
	}
	seconds := time.Since(began).Seconds()
	cores := (cpu(sensor.pid()) - used) / seconds
	if crowd != nil {
		crowd.cmd.Process.Kill()
		setting = fmt.Sprintf("%d unrelated execs/s asked for, %s reached", perSecond, number(float64(spawnLine*len(crowd.said))/seconds))
	}
	lost, err := stopSensor(sensor)
	if err != nil {
		return nil, err
	}
	if l.short && missed > 0 && lost.Overruns == 0 {
		return nil, fmt.Errorf("%d decoys were missed though the sensor lost nothing", missed)
	}
	row := func(what, unit string, value float64) Row {
		r := Row{Measurement: "exec to dead", Setting: setting + ", " + what, Unit: unit}
		r.add(Riposte, value)
		return r
	}
	rows := []Row{row("p50", "ms", percentile(took, 0.5)), row("p99", "ms", percentile(took, 0.99)),
		row("missed", "decoys", float64(missed)), row("sensor", "cores", cores)}
	for i, most := range []float64{1, 5, 0, 0.25} {
		if i < 2 || perSecond > 0 {
			rows[i].goals(rows[i].atMost(most))
		}
	}
	rows[0].note(Riposte, fmt.Sprintf("of which fork and exec %.2f ms; the time begins before them", percentile(forked, 0.5)))
	rows[3].note(Riposte, fmt.Sprintf("looked at %d processes, %d of them gone before they could be read; %d overruns, %d alerts dropped", lost.Processes, lost.Vanished, lost.Overruns, lost.Dropped))
	for _, r := range rows {
		l.say("%s, %s: %s %s", r.Measurement, r.Setting, number(r.Medians[Riposte]), r.Unit)
	}
	return rows, nil
}

// sensor starts ours on the kernel's own events.
func (l *lab) sensor(ctx context.Context) (*process, error) {
	return l.start(ctx, l.ours("sensor", "--source", "proc", "--runtime-dir", l.runtime(), "--state-dir", filepath.Join(l.dir, "state")), false)
}

// losses are what a sensor says of itself when it ends.
type losses struct {
	Msg                                    string
	Processes, Vanished, Overruns, Dropped int
}

func stopSensor(p *process) (s losses, err error) {
	p.stop()
	text, err := os.ReadFile(p.log)
	if err != nil {
		return s, err
	}
	for line := range bytes.Lines(text) {
		if json.Unmarshal(line, &s) == nil && s.Msg == "sensor has stopped" {
			return s, nil
		}
	}
	return s, fmt.Errorf("the sensor does not say what it has seen:\n%s", text)
}

// chain is a process that starts suspicious children when it is told to.
type chain struct {
	*process
	in io.Writer
}

// chain makes one that the built-in rules know: a memcached that starts a bash. The former
// is this binary, the latter a busybox that sleeps. The folder they lie in has the nonce.
func (l *lab) chain(ctx context.Context) (*chain, error) {
	dir := filepath.Join(l.dir, l.nonce)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	parent, child := filepath.Join(dir, "memcached"), filepath.Join(dir, "bash")
	for to, from := range map[string]string{parent: l.self, child: l.busybox} {
		if program, err := os.ReadFile(from); err != nil {
			return nil, err
		} else if err := os.WriteFile(to, program, 0o700); err != nil {
			return nil, err
		}
	}
	cmd := exec.Command(parent, hidden, "parent", child)
	cmd.Env = []string{}
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	p, err := l.start(ctx, cmd, true)
	return &chain{p, in}, err
}

// attack is one suspicious child, in milliseconds since just before its fork.
type attack struct {
	forked, died float64
	killed       bool // by a signal, not by its own end
}

func (c *chain) attack() (a attack, err error) {
	if _, err := io.WriteString(c.in, "\n"); err != nil {
		return a, err
	}
	line, err := c.heard(patience)
	if err != nil {
		return a, err
	}
	words := strings.Fields(line)
	if len(words) != 3 {
		return a, fmt.Errorf("the parent of decoys says %q", line)
	}
	a.forked, _ = strconv.ParseFloat(words[0], 64)
	a.died, _ = strconv.ParseFloat(words[1], 64)
	a.killed = words[2] == "true"
	return a, nil
}
