/*
 * Parking: an alert with one at-most-once step waits for a person, or for a switch, over
 * reboots and replicas of different modes. ledger.pml has what comes between a grant and its
 * record; here that is as short as it can be, and an epoch is never given twice.
 */
#ifndef GRANTS
#define GRANTS 3     /* how often Begin may take the entry: to grant it, or to park it */
#endif

#define absent  0    /* state of the entry */
#define held    1
#define waiting 2
#define done    3
#define none    0    /* an answer, an outcome, a holder */
#define yes     1
#define no      2
#define ran     1
#define denied  2
#define unknown 3
#define SEVERAL 9    /* gate of an entry whose holders had several */

mtype = { RECORD, APPLY, BEGIN, PARK, LOOK, ASIDE, IDLE }

/* Redis: as it is, and as it was when it was last copied. */
typedef Redis { byte state, epoch, holder, gate, answer; bool for_switch, pending }
Redis now, copy;
bool off;            /* the switch */
bool promoted;       /* the copy has taken over: what Redis was told since is lost */
bool copied;
byte epochs, takes;
#define SAVE(x, y) x.state = y.state; x.epoch = y.epoch; x.holder = y.holder; x.gate = y.gate; \
  x.answer = y.answer; x.for_switch = y.for_switch; x.pending = y.pending

/* The host: its gate is another one after each reboot, of which the receipt knows nothing. */
byte gate = 1;
typedef Receipt { byte lock, epoch; bool begun; byte closed }
Receipt receipt;
bool lost;           /* the folder with the receipt was lost with a reboot */

/* What the promise is judged by. */
bool tried, begun, held_over;
bool approved;       /* once: a failover may have lost that answer, and the next one may be another */
bool second, unapproved, dropped, needless, forgotten;
#define PROMISE(broken, kept) broken = !(kept); assert(!broken)

inline forget() { at = IDLE; epoch = 0; prior = 0; from = 0; answer = none; outcome = none; unbegun = false }
inline leave() { if :: receipt.lock == i + 1 -> receipt.lock = 0 :: else fi }

#define MINE (now.state == held && now.epoch == epoch && now.holder == i + 1)
#define NOBODYS (now.state == absent || now.state == held && now.holder == none)
#define STALE (epoch < receipt.epoch)
#define OTHER_GATE (prior != 0 && prior != gate)
#ifdef OLD_BODY          /* what is parked need not have been made from what stands there */
#define UNCHANGED true
#else
#define UNCHANGED (now.epoch == from)
#endif
#ifdef UNBEGUN_NEVER     /* the entry keeps the gate of those that held it */
#define UNBEGUN false
#elif defined(UNBEGUN_ALWAYS)
#define UNBEGUN true
#else
#define UNBEGUN (!receipt.begun && !OTHER_GATE)
#endif
#ifdef NO_FENCE          /* the receipt is looked at, and older tokens may still pass */
#define FENCE skip
#else
#define FENCE receipt.epoch = epoch
#endif

/* One whose mode is approve, and one whose mode is enforce. */
proctype Replica(byte i; bool asks) {
  byte boot = gate;
  mtype at = IDLE;
  byte epoch, prior, from, answer, outcome;
  bool unbegun;
end:
  do
  :: atomic { boot == gate && at == IDLE && now.pending && takes < GRANTS ->   /* begin.lua */
       if
       :: now.state == waiting || now.state == done -> now.pending = false
       :: NOBODYS && off -> from = now.epoch; answer = now.answer; at = ASIDE   /* wait */
       :: (NOBODYS || now.state == held) && !off ->                             /* run, or resume */
          takes++; epochs++; epoch = epochs; prior = now.gate; answer = now.answer;
          now.gate = (prior == 0 || prior == gate -> gate : SEVERAL);
          now.state = held; now.epoch = epoch; now.holder = i + 1; at = LOOK
       fi }
  :: d_step { boot == gate && at == ASIDE ->                /* begin.lua again, with a body to park it with */
       if
       :: NOBODYS && off && UNCHANGED && takes < GRANTS ->
          PROMISE(forgotten, now.answer == answer);
          takes++; epochs++; now.state = waiting; now.for_switch = true; now.epoch = epochs; now.answer = answer; now.pending = false
       :: else
       fi;
       forget() }
  :: atomic { boot == gate && at == LOOK && receipt.lock == 0 ->   /* Gate.Enter */
       if
       :: receipt.closed != none -> outcome = receipt.closed; at = RECORD
       :: receipt.closed == none && STALE -> forget()
       :: receipt.closed == none && !STALE && asks && answer == none -> FENCE; unbegun = UNBEGUN; at = PARK
       :: receipt.closed == none && !STALE && !(asks && answer == none) ->
          receipt.epoch = epoch; receipt.lock = i + 1; at = BEGIN;
          outcome = (receipt.begun || OTHER_GATE -> unknown : (asks && answer == no -> denied : ran))
       fi }
  :: d_step { boot == gate && at == PARK ->                 /* park.lua */
       if
       :: MINE -> now.state = waiting; now.for_switch = false; now.holder = none; now.pending = false;
          if :: unbegun -> now.gate = 0 :: else fi
       :: else
       fi;
       forget() }
  :: d_step { boot == gate && at == BEGIN && outcome == ran -> receipt.begun = true; tried = true; at = APPLY }
  :: d_step { boot == gate && at == APPLY ->
       PROMISE(second, !begun);
       PROMISE(unapproved, !asks || approved);
       begun = true; receipt.closed = ran; leave(); at = RECORD }
  :: d_step { boot == gate && at == BEGIN && outcome != ran ->
       PROMISE(needless, outcome != unknown || tried || held_over);
       receipt.closed = outcome; leave(); at = RECORD }
  :: d_step { boot == gate && at == RECORD ->               /* record.lua, which acks */
       if :: MINE -> now.state = done; now.holder = none; now.pending = false :: else fi;
       forget() }
  :: d_step { at != IDLE || boot != gate -> leave(); forget(); boot = gate }   /* killed; another starts in its place */
  od
}

#ifdef SAME_EPOCH        /* as if what a person said changed nothing */
#define WAKE now.state = held; now.holder = none; now.pending = true
#else
#define WAKE epochs++; now.epoch = epochs; now.state = held; now.holder = none; now.pending = true
#endif

proctype World() {
end:
  do
  :: d_step { now.state == waiting && !now.for_switch && now.answer == none -> now.answer = yes; approved = true; WAKE }
  :: d_step { now.state == waiting && !now.for_switch && now.answer == none -> now.answer = no; WAKE }   /* or late */
  :: d_step { now.state == waiting && now.for_switch && !off -> WAKE }
  :: off = !off
  :: d_step { gate < 3 ->                                   /* a reboot */
       held_over = held_over || now.state == held && now.holder != none;
       gate++; receipt.lock = 0 }
  :: d_step { gate > 1 && !lost && !promoted ->             /* a new state folder; Redis survives */
       lost = true; receipt.lock = 0; receipt.epoch = 0; receipt.begun = false; receipt.closed = none;
       held_over = held_over || now.state == held && now.holder != none; gate++ }
  :: d_step { !copied -> copied = true; SAVE(copy, now) }
  :: d_step { copied && !promoted && !lost ->               /* a failover; the state folder survives */
       promoted = true; held_over = held_over || copy.gate != 0; SAVE(now, copy) }
  :: d_step { !now.pending && now.state != waiting && now.state != done -> PROMISE(dropped, false) }
  od
}

init { atomic { now.pending = true; run Replica(0, true); run Replica(1, false); run World() } }
