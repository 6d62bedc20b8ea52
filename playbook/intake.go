package playbook

import (
	"context"
	"crypto/sha1"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"riposte/ledger"
	"riposte/playbook/action"
	"riposte/playbook/gate"
	"riposte/stream"
)

// intake is a delivery on its way to Begin, perhaps not for the first time.
type intake struct {
	stream.Delivery
	due   time.Time // not before
	tries int
	alone bool // it has the only place for suspects
}

func fresh(ds []stream.Delivery) []intake {
	out := make([]intake, len(ds))
	for i, d := range ds {
		out[i].Delivery = d
	}
	return out
}

// claim is an intake with what Begin needs to know of it.
type claim struct {
	ledger.Claim
	in    intake
	bury  string           // why it is not an alert; empty for an alert
	fleet []ledger.Breaker // of the fleet, that have not counted it yet
}

// idConflict flags an alert that came under the ID of another one.
const idConflict = "id_conflict"

// suspect is the number of deliveries from which an entry may be what kills replicas: three of
// those that had it have died. A replica handles one suspect at a time, and leaves the others
// where they are. So whatever else dies with a suspect is none yet; when it becomes one, it
// is apart from the next death; and only what kills replicas by itself reaches the number
// of deaths that buries.
//
// Three deaths, and not two: replicas that are all killed twice in a row make suspects of all
// they were at work on, which would then wait for each other.
const suspect = 4

// suspects is the place for the one suspect that a replica handles.
type suspects struct {
	place chan struct{}
	next  chan struct{} // the place is free again
}

func newSuspects() *suspects { return &suspects{make(chan struct{}, 1), make(chan struct{}, 1)} }

func (s *suspects) enter() bool {
	select {
	case s.place <- struct{}{}:
		return true
	default:
		return false
	}
}

func (s *suspects) leave() { <-s.place }

// done leaves the place and has somebody look for the next one.
func (s *suspects) done() {
	s.leave()
	select {
	case s.next <- struct{}{}:
	default:
	}
}

// dispatch asks the ledger for deliveries and starts what it grants. A script that was
// asked twice for one alert would grant it twice, so of copies only one is asked for at a
// time: the next one at once where that one is settled, for copies may come by the
// thousand, and later where it is being worked on.
func (r *Responder) dispatch(ctx context.Context, batch []intake) {
	if len(batch) > 0 {
		r.fleet.refresh(ctx)
	}
	for len(batch) > 0 {
		var claims, copies []claim
		taken := map[stream.AlertID]bool{}
		for _, in := range batch {
			if r.grants.holds(in.StreamID) {
				continue
			}
			if in.Times >= suspect {
				r.alone(ctx, in)
				continue
			}
			if c := r.claim(in); taken[c.ID] {
				copies = append(copies, c)
			} else {
				taken[c.ID] = true
				claims = append(claims, c)
			}
		}
		open := r.begin(ctx, claims)
		batch = nil
		for _, c := range copies {
			if open[c.ID] {
				r.later.add(c.in, duplicatePause)
			} else {
				batch = append(batch, c.in)
			}
		}
	}
}

// alone handles a suspect, unless there is one. From here on it may take this replica with
// it: also by what it does to the decoder, before Begin.
func (r *Responder) alone(ctx context.Context, in intake) {
	if !r.suspects.enter() {
		in.tries = 0
		r.later.add(in, suspectPause)
		return
	}
	in.alone = true
	r.begin(ctx, []claim{r.claim(in)})
}

const suspectPause = 50 * time.Millisecond

// duplicatePause is how long a copy of an alert that is being worked on waits, at least.
const duplicatePause = 100 * time.Millisecond

// deliveriesToBury is after how many deliveries an entry is not even decoded any more: with
// half as many deaths of those that began it, it would have been buried as poison.
const deliveriesToBury = 10

// claim decodes a delivery and plans for it. What is no alert is claimed too, under an ID
// of its own, to be buried under a token like everything else.
func (r *Responder) claim(in intake) claim {
	c := claim{in: in, Claim: ledger.Claim{
		StreamID: in.StreamID, Nonce: ledger.NewNonce(), Floor: r.floor.Load(), Deliveries: in.Times - 1,
	}}
	if in.Raw != nil {
		sum := sha1.Sum(in.Raw)
		c.SHA1 = hex.EncodeToString(sum[:])
	}
	unusable := func(reason string) claim {
		c.bury = reason
		c.ID, c.Digest = stream.EntryID(in.StreamID), none
		when := writable(in.When())
		c.Body = ledger.Body{Seen: when, Expires: when, Steps: []ledger.Step{{
			Playbook: none, Step: buryStep, Action: noAction, Mode: string(r.cfg.Mode),
		}}}
		return c
	}
	switch {
	case in.Reopened != "" && in.Raw != nil:
		base, _, _ := strings.Cut(in.GivenID, "~")
		if _, err := stream.ParseAlertID(base); err != nil || strings.ContainsAny(in.GivenID+in.Reopened, " \n") {
			return unusable("an alert that was opened again, of no ID")
		}
		c.ID, c.Digest, c.Reopened = stream.AlertID(in.GivenID), in.Reopened, true
		return c
	case in.Problem != "":
		return unusable(clip(in.Problem, 500))
	case in.Raw == nil:
		return unusable("the entry was deleted from the stream before it was handled")
	case len(in.Raw) == 0:
		return unusable(`the entry has no field "alert"`)
	case in.Times > deliveriesToBury:
		return unusable(fmt.Sprintf("delivered %d times; every replica that took it died before it could begin", in.Times))
	}
	crashpoint(atClaim, string(in.Raw))
	a, id, err := in.Alert()
	if err != nil {
		return unusable(clip(err.Error(), 500))
	}
	c.ID, c.Digest = id, a.Digest()
	planner := r.planner.Load()
	c.Body = planner.Plan(a, in.When(), time.Now())
	if n := planned(c.Body); n > maxPlan {
		return unusable(fmt.Sprintf("its plan would take %d bytes in the ledger, more than %d; the playbooks take too much of it into too many steps", n, maxPlan))
	}
	if id != a.ID {
		c.Body.Flags = append(c.Body.Flags, idConflict)
	}
	c.Switches, c.Breakers, c.fleet = planner.restraints(r.cfg.Group, c.Body, time.Now())
	c.Hold = r.fleet.holds(c.Switches)
	if c.Hold == "" && len(c.fleet) > 0 {
		c.Hold = uncounted
	}
	return c
}

// maxPlan bounds what the plan of one alert takes in the ledger, in bytes, well below what
// Redis takes as one argument where that is limited (proto-max-bulk-len).
const maxPlan = 256 << 10

func planned(b ledger.Body) (bytes int) {
	for _, s := range b.Steps {
		bytes += len(s.With) + len(s.Spec) + len(s.If) + len(s.Reason)
	}
	if b.Late != nil {
		bytes += len(b.Late.Alert)
	}
	return bytes
}

// begin makes one call of Begin and acts on its answers. It returns the IDs under which
// somebody is at work now, or may be.
func (r *Responder) begin(ctx context.Context, claims []claim) (open map[stream.AlertID]bool) {
	if len(claims) == 0 {
		return nil
	}
	open = make(map[stream.AlertID]bool, len(claims))
	for _, c := range claims {
		open[c.ID] = true
	}
	answers, err := r.ask(ctx, claims)
	if err != nil {
		for _, c := range claims { // still pending in Redis, and found there again
			r.putOff(c.in, r.ledger.Lease())
		}
		return open
	}
	var again []claim
	for i, a := range answers {
		c := claims[i]
		crashpoint(atGranted, string(c.ID))
		switch a.Verdict {
		case ledger.Run, ledger.Resume:
			r.workers.hire(1)
			r.start(ctx, a.Grant, c.in, r.job(c))
		case ledger.Poison:
			r.workers.hire(1)
			if c.bury == "" {
				c.bury = "poison: the replicas that held it died"
			}
			r.start(ctx, a.Grant, c.in, r.job(c))
		case ledger.Busy:
			c.in.tries = 0 // the pause is not doubled: the answer says when the lease is over
			r.putOff(c.in, min(max(a.Left, duplicatePause), r.ledger.Lease()/2))
		case ledger.Conflict:
			delete(open, c.ID)
			c.ID, c.Nonce = c.ID.Conflicting(c.Digest), ledger.NewNonce()
			c.Body.Flags = append(c.Body.Flags, idConflict)
			r.begin(ctx, []claim{c})
		case ledger.Settled:
			delete(open, c.ID)
			r.release(c.in)
		case ledger.Paused:
			c.in.tries = 0 // nor here: it goes on soon after the switch is on again
			r.putOff(c.in, r.ledger.Lease()/2)
		case ledger.Wait:
			again = append(again, r.holdBack(ctx, c, a))
		case ledger.ParkedNow:
			delete(open, c.ID)
			r.release(c.in)
			r.log.Warn("alert waits", "alert", c.ID, "for", a.Why)
		}
	}
	r.begin(ctx, again)
	return open
}

// putOff keeps a delivery that could not begin for later.
func (r *Responder) putOff(in intake, pause time.Duration) {
	r.release(in)
	in.alone = false
	r.later.add(in, pause)
}

// release gives up the place for suspects, if the delivery has it.
func (r *Responder) release(in intake) {
	if in.alone {
		r.suspects.done()
	}
}

// ask calls Begin until it is answered. An error of Redis itself, as opposed to one on
// the way, is answered once each claim has been tried alone: one entry that the script
// cannot read must not hold up the others.
func (r *Responder) ask(ctx context.Context, claims []claim) ([]ledger.Answer, error) {
	plain := make([]ledger.Claim, len(claims))
	for i, c := range claims {
		plain[i] = c.Claim
	}
	var dead []string
	if names := r.dead.Load(); names != nil {
		dead = *names
	}
	trouble := patient(50*time.Millisecond, r.ledger.Lease()/3)
	for {
		answers, err := r.ledger.Begin(ctx, plain, dead)
		final := errors.Is(err, ledger.ErrClaim) || refused(err)
		switch {
		case err == nil:
			return answers, nil
		case ctx.Err() != nil:
			return nil, err
		case final && len(claims) > 1:
			for _, c := range claims {
				r.begin(ctx, []claim{c})
			}
			return nil, nil
		case final:
			r.log.Error("an alert cannot be begun; it stays pending", "alert", claims[0].ID, "err", err)
			return nil, err
		}
		r.log.Warn("cannot begin; trying again", "alerts", len(claims), "first", claims[0].ID, "err", err)
		if err := sleep(ctx, trouble.NextBackOff()); err != nil {
			return nil, err
		}
	}
}

// refused says that Redis will answer the same again: an entry that the script cannot read,
// say. That it is full, loading, or no master is over when it is over.
func refused(err error) bool {
	var answer redis.Error
	if !errors.As(err, &answer) {
		return false
	}
	kind, _, _ := strings.Cut(answer.Error(), " ")
	return kind == "ERR" || kind == "RIPOSTE" || kind == "WRONGTYPE"
}

// job is the work on a claim once it is granted.
func (r *Responder) job(c claim) func(context.Context, *ledger.Grant) error {
	if c.bury == "" {
		return func(ctx context.Context, g *ledger.Grant) error { return r.run(ctx, g, c.in.Raw) }
	}
	return func(ctx context.Context, g *ledger.Grant) error { return r.bury(ctx, g, c.in.DeadLetter(c.bury)) }
}

// bury settles an alert as a dead letter. That is an outcome like any other: it is decided
// inside the gate and closed there before it is written to the ledger.
func (r *Responder) bury(ctx context.Context, g *ledger.Grant, letter stream.DeadLetter) error {
	if settled, err := r.fence(ctx, g); settled || err != nil {
		return err
	}
	key := stream.StepKey(r.cfg.Host, r.cfg.Group, g.ID, none, fmt.Sprint(buryStep, g.Body.Retries))
	pass, err := r.enter(ctx, gate.Step{Key: key, Within: gateMargin}, g.Token)
	if err != nil {
		return err
	}
	defer pass.Leave()
	step := ledger.Step{Playbook: none, Step: buryStep, Action: noAction}
	if _, closedReason, closed := pass.Closed(); closed {
		letter.Reason = closedReason
	} else if err := r.close(pass, g, &step, key, action.Receipt{Outcome: action.Dead, Reason: letter.Reason}); err != nil {
		return err
	}
	if len(g.Body.Steps) == 1 && g.Body.Steps[0].Step == buryStep {
		s := &g.Body.Steps[0]
		s.Outcome, s.Reason, s.Epoch, s.Replica = string(action.Dead), letter.Reason, g.Token.Epoch, r.cfg.Name
		s.Started, s.Ended = time.Now(), time.Now()
	}
	if err := r.insist(ctx, func(ctx context.Context) error { return r.ledger.Bury(ctx, g, letter) }); err != nil {
		return err
	}
	r.Settled.Add(1)
	r.log.Warn("alert buried as a dead letter", "alert", g.ID, "entry", g.StreamID, "reason", letter.Reason)
	r.traceRecord(g, key, noAction, string(action.Dead))
	return nil
}

// fence passes the gate of every step that has no record, so that no earlier holder begins
// one after the burial, and records what was decided there. Where that was all there was to
// do, the alert is settled, and there is nothing to bury.
func (r *Responder) fence(ctx context.Context, g *ledger.Grant) (settled bool, err error) {
	settled = true
	for i := 0; i < len(g.Body.Steps); i++ { // a record may add steps that undo others
		step := &g.Body.Steps[i]
		if step.Outcome != "" {
			continue
		}
		if step.Action == noAction {
			settled = false
			continue // nobody begins it
		}
		_, class := decode(step)
		key := stream.StepKey(r.cfg.Host, r.cfg.Group, g.ID, step.Playbook, step.Step)
		pass, err := r.enter(ctx, gate.Step{Key: key, Durable: class == action.AtMostOnce, Within: gateMargin}, g.Token)
		if err != nil {
			return false, err
		}
		receipt, decided := r.decided(pass, g, class)
		if decided {
			err = r.close(pass, g, step, key, receipt)
		}
		pass.Leave()
		if err == nil && decided {
			err = r.record(ctx, g, i, key, receipt)
		}
		if err != nil {
			return false, err
		}
		settled = settled && decided
	}
	return settled, nil
}
