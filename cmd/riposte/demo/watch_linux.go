package demo

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/redis/go-redis/v9"

	"riposte/ledger"
	"riposte/playbook/judge"
	"riposte/stream"
)

// say writes a line of the live table.
func (s *show) say(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	fmt.Fprintf(s.out, format+"\n", args...)
}

// watch reads the journal and shows each containment as it is recorded.
func (s *show) watch(ctx context.Context) {
	last := "0"
	for ctx.Err() == nil {
		streams, err := s.backend.rdb.XRead(ctx, &redis.XReadArgs{
			Streams: []string{host.JournalKey(), last}, Block: 100 * time.Millisecond,
		}).Result()
		if err != nil || len(streams) == 0 {
			continue
		}
		for _, m := range streams[0].Messages {
			last = m.ID
			s.event(ctx, m.Values)
		}
	}
}

func (s *show) event(ctx context.Context, v map[string]any) {
	text := func(name string) string { t, _ := v[name].(string); return t }
	s.mu.Lock()
	killed, killedAt := s.killed, s.killedAt
	s.mu.Unlock()
	switch {
	case text("event") == "resume" && text("from") == killed && killed != "":
		if us, err := strconv.ParseInt(text("epoch"), 10, 64); err == nil {
			took := time.UnixMicro(us).Sub(killedAt)
			s.mu.Lock()
			s.report.TakeoverMax = max(s.report.TakeoverMax, milliseconds(took))
			s.mu.Unlock()
			s.say("%-8.8s  taken over by %s, %.1f ms after the death", text("id"), text("owner"), milliseconds(took))
		}
	case text("event") == "record" && text("step") == "demo/terminate":
		e, err := s.ledger.Find(ctx, text("id"))
		if err != nil {
			return
		}
		s.mu.Lock()
		a := s.attacks[pidOf(e)]
		s.mu.Unlock()
		if a == nil {
			return
		}
		dead := "still alive"
		select {
		case <-a.gone:
			dead = fmt.Sprintf("%.1f ms", milliseconds(a.died.Sub(e.Body.Seen)))
		case <-time.After(time.Second):
		}
		s.say("%-8.8s  %-34s  %-22s  %-12s  %s", e.ID, a.chain.Parent+" started "+a.chain.Child, text("owner"), text("outcome"), dead)
	}
}

// count takes the final figures: from the decoys, the ledger, the trace and the audit.
func (s *show) count(ctx context.Context) error {
	entries, _, err := s.ledger.List(ctx)
	if err != nil {
		return err
	}
	audit, err := s.ledger.Audit(ctx, ledger.AuditConfig{})
	if err != nil {
		return err
	}
	for _, f := range audit.Findings {
		s.report.findings = append(s.report.findings, fmt.Sprintf("%s: %s: %s", f.Kind, f.Key, f.Text))
	}
	events, err := judge.ReadFile(s.trace())
	if err != nil {
		return err
	}
	trial := judge.Trial{Events: events, LastAlive: map[string]time.Time{s.killed: s.killedAt}, Exits: map[string]time.Time{}}
	var took []time.Duration
	for _, e := range entries {
		a := s.attacks[pidOf(e)]
		if a == nil || !contained(a) {
			continue
		}
		took = append(took, a.died.Sub(e.Body.Seen))
		pid := fmt.Sprint(pidOf(e))
		trial.Exits[pid] = a.died
		trial.Alerts = append(trial.Alerts, judge.Alert{ID: string(e.ID), Steps: []judge.Step{
			{Key: stream.StepKey(host, group, e.ID, "demo", "terminate"), Process: pid},
			{Key: stream.StepKey(host, group, e.ID, "demo", "log")},
		}})
	}
	s.report.Alerts = audit.Counts.Accepted
	s.report.DuplicateEffects = len(trial.Judge().Doubled)
	s.report.DetectP50, s.report.DetectP99 = percentile(took, 0.5), percentile(took, 0.99)
	for _, a := range s.attacks {
		if contained(a) {
			s.report.Contained++
		}
	}
	s.report.Lost = s.report.attacks - s.report.Contained
	return nil
}

// contained says that a decoy was ended by a signal, and did not sleep to its end.
func contained(a *attack) bool { return a.ended == "signal: killed" || a.ended == "signal: terminated" }

// percentile is the p-th percentile, 0 to 1, of durations, in milliseconds.
func percentile(ds []time.Duration, p float64) float64 {
	if len(ds) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(ds))
	return milliseconds(sorted[min(len(sorted)-1, int(p*float64(len(sorted))))])
}

func milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
