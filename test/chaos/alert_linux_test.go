package chaos

import (
	"encoding/json"
	"fmt"
	"strconv"
	"testing"
	"time"

	"riposte/playbook/judge"
	"riposte/stream"
	"riposte/stream/proc"
)

// alert is one that was published, perhaps more than once.
type alert struct {
	id  stream.AlertID
	raw []byte
	on  *decoy
}

func (a alert) key(step string) string {
	return stream.StepKey(host, stream.DefaultGroup, a.id, playbookName, step)
}

// trial is the alert as the judge knows it. Of the script it is not asked whether it was
// lost: where a replica died inside, another one after it had closed the outcome unknown,
// and a third after it had recorded that, the trace shows none of it. See checkScript.
func (a alert) trial() judge.Alert {
	return judge.Alert{ID: string(a.id), Steps: []judge.Step{
		{Key: a.key(endStep), Process: a.on.name}, {Key: a.key(logStep)},
	}}
}

// sensed is an alert as Riposte's own sensor makes it, with the whole identity of the
// process and an ID that follows from it.
func sensed(t testing.TB, d *decoy) alert {
	t.Helper()
	info, err := proc.Read(d.pid)
	if err != nil {
		t.Fatal(err)
	}
	boot, err1 := proc.BootID()
	ns, err2 := proc.Namespace()
	if err1 != nil || err2 != nil {
		t.Fatal(err1, err2)
	}
	pid := int64(d.pid)
	a := &stream.Alert{
		ID:   stream.DeriveID(host, boot, strconv.Itoa(d.pid), strconv.FormatUint(info.StartTicks, 10), "decoy"),
		Host: host, Source: "chaos", Level: "HIGH", Title: fmt.Sprintf("decoy %d", d.pid),
		Timestamp: time.Now().UTC().Format(time.RFC3339Nano), ActionablePID: &pid,
		Rule: stream.Rule{ID: "decoy"},
		Process: &stream.Process{
			PID: pid, StartTicks: info.StartTicks, BootID: boot, PIDNS: ns, Name: info.Name, Exe: info.Exe,
		},
	}
	raw, err := json.Marshal(a)
	if err != nil {
		t.Fatal(err)
	}
	return alert{a.ID, raw, d}
}

// foreign is an alert as another detector writes it: no ID, no host, nothing about the
// process but its PID, and a timestamp that does not say in which zone it is read.
func foreign(t testing.TB, d *decoy) alert {
	t.Helper()
	raw := fmt.Appendf(nil, `{"level": "HIGH", "title": "\u53ef\u7591\u8fdb\u7a0b %d", "description": "", "details": {}, "timestamp": %q, "actionable_pid": %d}`,
		d.pid, time.Now().In(zone).Format("2006-01-02T15:04:05.000000"), d.pid)
	a, err := stream.Decode(raw, "")
	if err != nil {
		t.Fatal(err)
	}
	return alert{a.ID, raw, d}
}
