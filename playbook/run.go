package playbook

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/cenkalti/backoff/v4"

	"riposte/ledger"
	"riposte/playbook/action"
	"riposte/playbook/gate"
	"riposte/playbook/judge"
	"riposte/stream"
)

// run takes one grant through the steps of its plan that have no outcome yet. Where a person
// has to say yes first, it sets the alert aside.
func (r *Responder) run(ctx context.Context, g *ledger.Grant, raw []byte) error {
	for i := 0; i < len(g.Body.Steps); i++ { // a step that went wrong may add some
		if g.Body.Steps[i].Outcome != "" {
			continue
		}
		makeOut(&g.Body, i)
		if r.needsApproval(g, i) {
			if parked, err := r.park(ctx, g, i, raw); err != nil || parked {
				return err
			}
		}
		if err := r.look(ctx, g, i); err != nil {
			return err
		}
		if err := r.step(ctx, g, i); err != nil {
			return err
		}
	}
	return nil
}

// look makes out an effect that depends on what the host looks like now, and has the ledger
// know it before anything is begun.
func (r *Responder) look(ctx context.Context, g *ledger.Grant, i int) error {
	step := &g.Body.Steps[i]
	effect, _ := decode(step)
	looker, can := effect.(action.Looker)
	if !can || step.Verdict != "" || g.Body.Refuse != "" {
		return nil
	}
	looking, cancel := context.WithTimeout(ctx, step.Timeout)
	defer cancel()
	whole, err := looker.Look(looking, action.Env{Guard: r.cfg.Guard, OwnUID: r.cfg.OwnUID, AlertID: string(g.ID)})
	switch reason, refused := action.Reason(err); {
	case refused:
		step.Verdict, step.Reason = string(action.Refused), reason
		return nil
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case err != nil:
		step.Verdict, step.Reason = string(action.Failed), clip(err.Error(), 500)
		return nil
	case whole == effect:
		return nil
	}
	if step.With, err = json.Marshal(whole); err != nil {
		return err
	}
	return r.insist(ctx, func(ctx context.Context) error {
		return r.ledger.RecordPlan(ctx, g, i, whole.Describe())
	})
}

// mode in which a step is carried out. The plan may be another replica's: one that was told
// to observe does not enforce it.
func (r *Responder) mode(step *ledger.Step) Mode {
	if step.Undoes != "" && r.cfg.Mode.Acts() {
		return Enforce // whoever asked for it has said yes
	}
	return weaker(r.cfg.Mode, Mode(step.Mode))
}

// step is the pipeline: the gate lets us in and shows what was decided before; else the
// effect is decided on and applied; the outcome is closed in the receipt, and only then
// recorded in the ledger. It returns an error where the grant is of no more use.
func (r *Responder) step(ctx context.Context, g *ledger.Grant, i int) error {
	step := &g.Body.Steps[i]
	key := stream.StepKey(r.cfg.Host, r.cfg.Group, g.ID, step.Playbook, step.Step)
	effect, class := decode(step)
	for try := 1; ; try++ {
		crashpoint(atGate, key)
		pass, err := r.enter(ctx, gate.Step{
			Key: key, Durable: class == action.AtMostOnce, Targets: effect.Targets(), Within: step.Timeout + gateMargin,
		}, g.Token)
		if err != nil {
			return err
		}
		crashpoint(atInside)
		receipt, err := r.decide(ctx, pass, g, step, key, effect, class)
		if err == nil {
			err = r.close(pass, g, step, key, receipt)
		}
		pass.Leave()
		if err == nil {
			crashpoint(atRecord)
			return r.record(ctx, g, i, key, receipt)
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err := r.backOff(ctx, g, i, max(try, step.Attempts), err); err != nil {
			return err
		}
	}
}

// decide returns the outcome of a step: the one in the receipt if there is one, or a
// refusal, or what the effect turned out to be. An error means that the step is to be
// tried again.
func (r *Responder) decide(ctx context.Context, pass *gate.Pass, g *ledger.Grant, step *ledger.Step, key string, effect action.Effect, class action.Class) (action.Receipt, error) {
	if receipt, ok := r.decided(pass, g, class); ok {
		return receipt, nil
	}
	mode := r.mode(step)
	step.Mode = string(mode)
	begunBefore := pass.Begun() > 0
	until := deadline(&g.Body, step, r.cfg.MaxAge)
	expired := !until.IsZero() && time.Now().After(until)
	cannot, isImpossible := effect.(impossible)
	switch {
	case step.Verdict != "":
		return action.Receipt{Outcome: action.Outcome(step.Verdict), Reason: step.Reason}, nil
	case step.Action == noAction && step.Playbook == none:
		return action.Receipt{Outcome: action.NoMatch, Reason: step.Reason}, nil
	case step.Action == noAction:
		return action.Receipt{Outcome: action.Failed, Reason: step.Reason}, nil
	case isImpossible && begunBefore:
		return action.Receipt{Outcome: action.Unknown, Reason: fmt.Sprintf("another version of riposte began it, and this one cannot tell what came of it: %v", cannot)}, nil
	case isImpossible:
		return action.Receipt{Outcome: action.Failed, Reason: cannot.Error()}, nil
	case g.Body.Refuse != "":
		return action.Receipt{Outcome: action.Refused, Reason: g.Body.Refuse}, nil
	case mode == Approve && !approved(g.Body.Approval) && !begunBefore:
		return action.Receipt{Outcome: action.Denied, Reason: whyDenied(g.Body.Approval)}, nil
	case expired && !begunBefore:
		return action.Receipt{Outcome: action.Expired, Reason: fmt.Sprintf("it was to be done before %s", until.Format(time.RFC3339))}, nil
	}

	ctx, cancel := context.WithTimeout(ctx, step.Timeout)
	defer cancel()
	env := action.Env{Guard: r.cfg.Guard, State: r.cfg.State, OwnUID: r.cfg.OwnUID, Key: key, AlertID: string(g.ID), Out: r.cfg.Out, Claims: pass.Claims(), Reach: r.cfg.Reach, Locks: pass.Locks()}
	if step.Undoes != "" {
		env.Undoes = stream.StepKey(r.cfg.Host, r.cfg.Group, g.ID, step.Playbook, step.Undoes)
	}
	step.Attempts = max(step.Attempts, pass.Begun()) + 1 // the receipt also knows those a crash cut short
	receipt, inPlace, err := effect.Probe(ctx, env)
	_, refused := action.Reason(err)
	switch {
	case err != nil && !refused && !mode.Acts() && ctx.Err() == nil:
		// Whoever only observes needs no right to look at everything.
		return action.Receipt{Outcome: action.Observed, Reason: fmt.Sprintf("would %s, if it is not in place already: %v", effect.Describe(), err)}, nil
	case err != nil:
		return r.verdict(ctx, step, err)
	case inPlace:
		if begunBefore {
			receipt.Reason = strings.TrimPrefix(receipt.Reason+"; an earlier attempt had begun to "+effect.Describe(), "; ")
		}
		return receipt, nil
	case expired:
		return action.Receipt{Outcome: action.Expired, Reason: "it was begun, is not in place, and is too old to be repeated"}, nil
	case !mode.Acts():
		reason := "would " + effect.Describe()
		if step.Warm {
			reason += "; the playbook is new here, and warms up"
		}
		return action.Receipt{Outcome: action.Observed, Reason: reason}, nil
	}

	if class == action.AtMostOnce {
		if err := r.ledger.Replicated(ctx, g, r.cfg.Replication); err != nil {
			step.Attempts-- // nothing was tried: only its age ends it
			return action.Receipt{}, err
		}
	}
	crashpoint(atProbed)
	if err := r.beginEffect(ctx, pass, g, step, key); err != nil {
		return action.Receipt{}, err
	}
	crashpoint(atBegun)
	if class == action.AtMostOnce {
		// Neither a stop nor a lost lease cuts it short: nobody else begins it any more, and a
		// person would have to find out how far it came. Its outcome is closed at the gate.
		ctx, cancel = context.WithTimeout(context.WithoutCancel(ctx), step.Timeout)
		defer cancel()
	}
	receipt, err = effect.Apply(ctx, env)
	crashpoint(atApplied)
	if err := r.cfg.Trace.write(judge.End, key, g.Token, r.cfg.Name, step.Action, string(receipt.Outcome)); err != nil {
		return action.Receipt{}, err
	}
	if _, refused := action.Reason(err); err != nil && !refused && class == action.AtMostOnce {
		return action.Receipt{Outcome: action.Unknown, Reason: err.Error()}, nil
	}
	if err != nil {
		return r.verdict(ctx, step, err)
	}
	return receipt, nil
}

// decided is what the gate's receipt leaves no choice about: the outcome that is closed, and
// that of an at-most-once step which has begun, or may have where nobody can tell.
func (r *Responder) decided(pass *gate.Pass, g *ledger.Grant, class action.Class) (action.Receipt, bool) {
	if outcome, reason, closed := pass.Closed(); closed {
		return action.Receipt{Outcome: action.Outcome(outcome), Reason: reason}, true
	}
	if class == action.AtMostOnce && (pass.Begun() > 0 || !r.sameGate(g)) {
		return action.Receipt{Outcome: action.Unknown, Reason: "it was in flight when its replica died; look before you run it again"}, true
	}
	return action.Receipt{}, false
}

// sameGate says that all who held the grant before, if anybody, passed through this gate: what
// its receipts do not say was not begun.
func (r *Responder) sameGate(g *ledger.Grant) bool {
	return g.Prior == "" || g.Prior == r.gate.ID()
}

// verdict turns the error of an effect into an outcome, if it is to be final.
func (r *Responder) verdict(ctx context.Context, step *ledger.Step, err error) (action.Receipt, error) {
	if reason, refused := action.Reason(err); refused {
		return action.Receipt{Outcome: action.Refused, Reason: reason}, nil
	}
	if cause := context.Cause(ctx); cause != nil && !errors.Is(cause, context.DeadlineExceeded) {
		return action.Receipt{}, err // stopped, not failed: the successor goes on
	}
	if step.Attempts >= step.Retry.Attempts {
		return action.Receipt{Outcome: action.Failed, Reason: fmt.Sprintf("after %d attempts: %v", step.Attempts, err)}, nil
	}
	return action.Receipt{}, err
}

// beginEffect leaves word, at the gate and in the trace, that the effect begins now. Nothing
// is begun once a stop was asked for, or the grant is lost.
func (r *Responder) beginEffect(ctx context.Context, pass *gate.Pass, g *ledger.Grant, step *ledger.Step, key string) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if err := r.grants.check(g); err != nil {
		return err
	}
	if step.Started.IsZero() {
		step.Started = time.Now()
	}
	if err := pass.Begin(); err != nil {
		return err
	}
	return r.cfg.Trace.write(judge.Begin, key, g.Token, r.cfg.Name, step.Action, "")
}

// close writes the outcome into the receipt, for good.
func (r *Responder) close(pass *gate.Pass, g *ledger.Grant, step *ledger.Step, key string, receipt action.Receipt) error {
	if _, _, closed := pass.Closed(); closed {
		return nil
	}
	if err := pass.Close(string(receipt.Outcome), clip(receipt.Reason, 2000)); err != nil {
		return err
	}
	crashpoint(atClosed)
	return r.cfg.Trace.write(judge.Closed, key, g.Token, r.cfg.Name, step.Action, string(receipt.Outcome))
}

// record writes the closed outcome into the ledger, however long Redis is away, for as
// long as the grant stands. Also after a stop was asked for: briefly then, because what is
// closed at the gate only has to be written down.
func (r *Responder) record(ctx context.Context, g *ledger.Grant, i int, key string, receipt action.Receipt) error {
	step := &g.Body.Steps[i]
	step.Outcome, step.Reason = string(receipt.Outcome), clip(receipt.Reason, 2000)
	step.Epoch, step.Replica, step.Ended = g.Token.Epoch, r.cfg.Name, time.Now()
	if step.Started.IsZero() {
		step.Started = step.Ended
	}
	takeBack(&g.Body, i)
	err := r.insist(ctx, func(ctx context.Context) error { return r.ledger.Record(ctx, g, i) })
	if err != nil {
		return err
	}
	crashpoint(atRecorded)
	r.settled(g, i)
	r.traceRecord(g, key, step.Action, step.Outcome)
	return nil
}

// traceRecord leaves word of what the ledger has accepted, which stands whether the trace can
// be written or not.
func (r *Responder) traceRecord(g *ledger.Grant, key, actionName, outcome string) {
	if err := r.cfg.Trace.write(judge.Recorded, key, g.Token, r.cfg.Name, actionName, outcome); err != nil {
		r.log.Error("a record is missing in the trace", "alert", g.ID, "err", err)
	}
}

// insist repeats a ledger write until it is answered or the grant is lost. When ctx ends
// it goes on a little longer: a stale outcome is evidence too, which the ledger journals.
func (r *Responder) insist(ctx context.Context, write func(context.Context) error) error {
	work, stop := context.WithCancelCause(context.WithoutCancel(ctx))
	defer stop(nil)
	defer context.AfterFunc(ctx, func() {
		time.AfterFunc(stopPatience, func() { stop(context.Cause(ctx)) })
	})()
	err := backoff.Retry(func() error {
		err := write(work)
		if errors.Is(err, ledger.ErrLost) {
			return backoff.Permanent(err)
		}
		if err != nil {
			r.log.Warn("Redis did not take a record; trying again", "err", err)
		}
		return err
	}, backoff.WithContext(patient(50*time.Millisecond, r.ledger.Lease()/3), work))
	if err != nil && work.Err() != nil && !errors.Is(err, ledger.ErrLost) {
		return context.Cause(work)
	}
	return err
}

// backOff counts a failed attempt in the ledger, so that a crash does not restart the
// count, and waits without occupying a worker: after the nth time.
func (r *Responder) backOff(ctx context.Context, g *ledger.Grant, i, nth int, cause error) error {
	step := &g.Body.Steps[i]
	r.log.Warn("step failed; it will be tried again", "alert", g.ID, "step", step.Playbook+"/"+step.Step, "attempts", step.Attempts, "err", cause)
	if err := r.insist(ctx, func(ctx context.Context) error { return r.ledger.RecordAttempt(ctx, g, i, cause) }); err != nil {
		return err
	}
	crashpoint(atAttempt)
	left := time.Until(deadline(&g.Body, step, r.cfg.MaxAge))
	return r.workers.rest(ctx, func() error { return sleep(ctx, pause(step.Retry, nth, cause, left)) })
}

// pause is how long to wait after the nth attempt. It is longer where somebody outside asks for
// that, but no longer than the playbook allows, nor than until the step is too old, if it is not
// yet: the grant is held meanwhile.
func pause(retry ledger.Retry, nth int, cause error, left time.Duration) time.Duration {
	wait := patient(retry.Initial, retry.Max)
	pause := wait.NextBackOff()
	for range nth - 1 {
		pause = wait.NextBackOff()
	}
	if later := new(action.Later); errors.As(cause, &later) {
		pause = max(pause, min(later.After, retry.Max))
	}
	if left > 0 {
		pause = min(pause, left)
	}
	return pause
}

// patient is an exponential backoff with jitter that never gives up by itself.
func patient(initial, most time.Duration) *backoff.ExponentialBackOff {
	return backoff.NewExponentialBackOff(
		backoff.WithInitialInterval(initial), backoff.WithMaxInterval(max(most, initial)), backoff.WithMaxElapsedTime(0))
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// decode reads back the effect of a step, and the class it was planned under: a receipt stands
// where that says, whatever this version thinks of the action.
func decode(step *ledger.Step) (action.Effect, action.Class) {
	if step.Action == noAction {
		return impossible{errors.New("nothing to do")}, action.Verifiable
	}
	effect, class, err := action.Decode(step.Action, step.With)
	if err != nil {
		effect, class = impossible{err}, action.AtMostOnce
	}
	return effect, orDefault(action.Class(step.Class), class)
}

// impossible is the effect of a step that this version cannot carry out.
type impossible struct{ error }

func (i impossible) Targets() []string { return nil }
func (i impossible) Describe() string  { return i.Error() }
func (i impossible) Probe(context.Context, action.Env) (action.Receipt, bool, error) {
	return action.Receipt{}, false, i.error
}
func (i impossible) Apply(context.Context, action.Env) (action.Receipt, error) {
	return action.Receipt{}, i.error
}
