package main

import (
	"encoding/json"
	"time"

	"github.com/google/uuid"

	"riposte/stream"
	"riposte/stream/proc"
)

// alert is what a sensor writes about a shell below a server, some 400 B. Every contender
// carries the same.
func (l *lab) alert() *stream.Alert {
	uid := int64(33)
	id := stream.AlertID(uuid.NewString())
	return &stream.Alert{
		ID: id, Given: id, Host: string(host), Source: "sensor", Level: "HIGH",
		Title: "Service that needs no shell started one", Description: "A shell below it means that somebody got in.",
		Timestamp: time.Now().UTC().Format(time.RFC3339Nano),
		Rule:      stream.Rule{ID: "service-never-shell", Name: "Service shell", Tags: []string{"attack.t1059.004"}},
		Process:   &stream.Process{PID: 4711, StartTicks: 123456, Name: "bash", Exe: "/usr/bin/bash", Cmdline: "bash -i", UID: &uid},
	}
}

// about is the alert that a process is to be ended. Only such a one has the nonce.
func (l *lab) about(pid int) (*stream.Alert, error) {
	st, err := proc.ReadStat(pid)
	if err != nil {
		return nil, err
	}
	a, target := l.alert(), int64(pid)
	a.Title += " " + l.nonce
	a.ActionablePID = &target
	a.Process = &stream.Process{PID: target, StartTicks: st.StartTicks, Name: st.Comm, Cmdline: "sleep 600"}
	a.Timestamp = time.Now().UTC().Format(time.RFC3339Nano)
	return a, nil
}

func raw(a *stream.Alert) []byte {
	text, err := json.Marshal(a)
	if err != nil {
		panic(err) // it is made of strings and numbers
	}
	return text
}
