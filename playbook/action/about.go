package action

import (
	"strings"

	"riposte/stream"
)

// About is what somebody else is told of an alert, with every text bounded.
type About struct {
	Host        string          `json:"host,omitempty"` // empty: the host in Env.Key
	Source      string          `json:"source,omitempty"`
	Level       string          `json:"level,omitempty"`
	Title       string          `json:"title,omitempty"`
	Description string          `json:"description,omitempty"`
	Timestamp   string          `json:"timestamp,omitempty"`
	PID         *int64          `json:"actionable_pid,omitempty"`
	SourceIP    string          `json:"source_ip,omitempty"`
	RuleID      string          `json:"rule_id,omitempty"`
	RuleName    string          `json:"rule_name,omitempty"`
	Process     *stream.Process `json:"process,omitempty"`
}

func about(a *stream.Alert) About {
	about := About{
		Host: clip(a.Host, maxField), Source: clip(a.Source, maxField), Level: clip(a.Level, maxField),
		Title: clip(a.Title, maxTitle), Description: clip(a.Description, maxTitle), Timestamp: clip(a.Timestamp, maxField),
		SourceIP: clip(a.SourceIP, maxField), RuleID: clip(a.Rule.ID, maxField), RuleName: clip(a.Rule.Name, maxField),
	}
	if pid, ok := a.PID(); ok {
		about.PID = &pid
	}
	if a.Process != nil {
		p := *a.Process
		p.BootID, p.Name, p.Exe, p.Cmdline = clip(p.BootID, maxBootID), clip(p.Name, maxField), clip(p.Exe, maxPath), clip(p.Cmdline, maxPath)
		if p.Parent != nil {
			parent := *p.Parent
			parent.Name, parent.Exe = clip(parent.Name, maxField), clip(parent.Exe, maxPath)
			p.Parent = &parent
		}
		about.Process = &p
	}
	return about
}

// on is the same with the host of the step, where the alert names none.
func (a About) on(env Env) About {
	if a.Host == "" {
		a.Host, _, _ = strings.Cut(env.Key, "/")
	}
	return a
}
