package redisfaults

import (
	"fmt"
	"strconv"
	"time"

	"riposte/playbook/action"
	"riposte/playbook/judge"
	"riposte/stream"
	"riposte/stream/proc"
)

var classes = []action.Class{action.Verifiable, action.Idempotent, action.AtMostOnce}

const step = "act"

// alert is one that calls for an effect of one class.
type alert struct {
	*stream.Alert
	class action.Class
	decoy *decoy // of a verifiable one
}

func (a *alert) key() string {
	return stream.StepKey(host, stream.DefaultGroup, a.ID, string(a.class), step)
}

// trial is the alert as the judge knows it.
func (a *alert) trial() judge.Alert {
	s := judge.Step{Key: a.key()}
	if a.decoy != nil {
		s.Process = a.decoy.name
	}
	return judge.Alert{ID: string(a.ID), Steps: []judge.Step{s}}
}

// newAlerts are all alerts of a scenario, the classes in turns.
func (s *site) newAlerts() (all []*alert) {
	s.t.Helper()
	boot, err1 := proc.BootID()
	ns, err2 := proc.Namespace()
	if err1 != nil || err2 != nil {
		s.t.Fatal(err1, err2)
	}
	for i, d := range newNursery(s.t, s.each) {
		for _, class := range classes {
			a := &alert{class: class, Alert: &stream.Alert{
				ID: stream.DeriveID(host, string(class), strconv.Itoa(i)), Host: host, Source: "redisfaults", Level: "HIGH",
				Title: fmt.Sprintf("%s %d", class, i), Timestamp: time.Now().UTC().Format(time.RFC3339Nano),
				Rule: stream.Rule{ID: string(class)},
			}}
			if class == action.Verifiable {
				info, err := proc.Read(d.pid)
				if err != nil {
					s.t.Fatal(err)
				}
				pid := int64(d.pid)
				a.decoy, a.ActionablePID = d, &pid
				a.Process = &stream.Process{PID: pid, StartTicks: info.StartTicks, BootID: boot, PIDNS: ns, Name: info.Name, Exe: info.Exe}
			}
			all = append(all, a)
		}
	}
	return all
}

func raw(alerts []*alert) []*stream.Alert {
	all := make([]*stream.Alert, len(alerts))
	for i, a := range alerts {
		all[i] = a.Alert
	}
	return all
}

// playbooks are one for each class.
func (s *site) playbooks() map[string]string {
	const book = `name: %s
match: alert.rule.id == "%[1]s"
steps:
  - name: ` + step + `
    action: %s
    with: %s
    timeout: 30s
    retry: {attempts: 50, initial: 20ms, max: 200ms}
`
	seconds := strconv.FormatFloat(s.hold.Seconds(), 'f', 3, 64)
	script := fmt.Sprintf(`echo "$RIPOSTE_STEP_KEY" >>'%s'; sleep %s`, s.file("script.out"), seconds)
	return map[string]string{
		"verifiable":   fmt.Sprintf(book, action.Verifiable, "terminate_process", fmt.Sprintf("{grace: %v}", s.hold)),
		"idempotent":   fmt.Sprintf(book, action.Idempotent, "log", fmt.Sprintf("{path: %q}", s.file("effects.log"))),
		"at-most-once": fmt.Sprintf(book, action.AtMostOnce, "run_script", fmt.Sprintf("{argv: [/bin/sh, -c, %q]}", script)),
	}
}
