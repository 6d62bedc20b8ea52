/*
 * The ledger and the gate, as ledger/doc.go and playbook/gate/doc.go have them: what two
 * replicas of one host do to the same alert while everything that may go wrong does.
 * doc.go says what is checked, within which bounds, and what is left out.
 *
 * One step of this model is what happens at once in reality: a script in Redis, a line
 * written to a receipt under its lock, the begin or the end of an effect. Between any two
 * steps of a replica the others may take any number of theirs. That is all there is to a
 * freeze and a thaw: a frozen replica takes no step for as long as it pleases the search.
 */
#ifndef ALERTS
#define ALERTS 1    /* alerts; two of them act on one target */
#endif
#ifndef STEPS
#define STEPS 1     /* steps in the plan of an alert */
#endif
#ifndef GRANTS
#define GRANTS 3    /* how often Begin may say run or resume */
#endif
#ifndef KILLS
#define KILLS 1     /* how many replicas are killed; each time a new one starts in its place */
#endif

#define KEYS (ALERTS * STEPS)

#define absent  0   /* state of an entry */
#define held    1
#define done    2
#define none    0   /* outcome of a step */
#define applied 1
#define refused 2   /* or expired, observed, failed: whatever is decided without an effect in place */
#define unknown 3
#define NOBODY  0   /* holder of a lock; replica i is i + 1 */
#define CHILD   9   /* a process that an effect started and that outlived its replica */
#define NOWHERE 9   /* not a delivery of this stream */

/* What a replica does next. */
mtype = { XACK, RECORD, CLOSE, APPLIED, APPLY, BEGIN, ENTER, ASK, IDLE }

/* Redis, twice: the first master, and the copy of it that is promoted. */
typedef Entry { byte state, epoch, nonce, seq, id; byte body[STEPS] }
typedef Redis { Entry entry[ALERTS]; byte stream[2]; bool acked[2] }   /* stream: alert + 1 under each ID */
Redis redis[2];
bool promoted;      /* the copy is made: from now on replicas reach both, and the second one's history survives */
bool retired;       /* the deposed one is switched off at last */
bool republished;   /* the publisher has seen the replication ID change */
byte published, grants, kills;

/* The host. */
typedef Receipt { byte lock, epoch, nonce; bool begun; byte closed }
typedef Target  { byte lock, inside; bool in_place }
Receipt gate[KEYS];
byte floor;
#ifdef VERIFIABLE
Target target[STEPS];               /* of a step, whichever alert it belongs to */
#define TARGET(key) target[(key) % STEPS]
#define IN_PLACE(t) t.in_place = true
#else
Target target[KEYS];
#define TARGET(key) target[key]
#define IN_PLACE(t) skip
#endif

/* What the promise is judged by. Replicas do not look at it. */
typedef Seen { byte epoch, nonce; bool begun; byte closed, recorded }
Seen seen[KEYS];
byte highest;       /* epoch ever granted */
bool after_closed, after_recorded, older_token, overlap, in_place, second;   /* a doubled effect */
bool recorded_twice, disagreement, acked_unsettled, dropped, stuck;
#define PROMISE(broken, kept) broken = !(kept); assert(!broken)

hidden byte m, j, granted, ok, server_time;   /* without meaning between two steps */
#define key (a * STEPS + s)
#define E redis[m].entry[a]
#define G gate[key]
#define T TARGET(key)
#define MAX(x, y) ((x) > (y) -> (x) : (y))
#define REACHABLE(x) (x == 0 && !retired || x == 1 && promoted)
#define SURVIVOR (promoted -> 1 : 0)
#define PENDING(x, d, al) (redis[x].stream[d] == (al) + 1 && !redis[x].acked[d])
#define VISIBLE(x, al) (PENDING(x, 0, al) || PENDING(x, 1, al))

#if STEPS == 2
#define EACH_STEP(x, y) x; y
#define LAST (body[1 - s] != none)
#else
#define EACH_STEP(x, y) x
#define LAST true
#endif
#if ALERTS == 2
#define EACH_ALERT(x, y) x; y
#else
#define EACH_ALERT(x, y) x
#endif

/* The protections. Each can be taken out, and then something above is broken. */
#ifdef NO_NONCE                /* the epoch alone is the token */
#define SAME(x) (x.epoch == epoch)
#define OLDER_THAN(x) (epoch < x.epoch)
#else
#define SAME(x) (x.epoch == epoch && x.nonce == nonce)
#define OLDER_THAN(x) (epoch < x.epoch || epoch == x.epoch && nonce != x.nonce)
#endif
#ifdef NO_TOKEN_IN_RECORD      /* whoever comes may record */
#define STANDS (E.state != absent)
#else
#define STANDS (E.state != absent && SAME(E))
#endif
#ifdef ACK_BLIND               /* the delivery is acked by its ID alone, whatever stands under it in this history */
#define DELIVERED id
#else
#define DELIVERED (redis[m].stream[id] == a + 1 -> id : NOWHERE)
#endif
#ifdef NO_GATE_LOCK
#define FREE true
#else
#define FREE (G.lock == NOBODY && (G.closed != none || T.lock == NOBODY))
#endif
#ifdef NO_GATE_TOKEN
#define STALE false
#else
#define STALE OLDER_THAN(G)
#endif
#ifdef NO_FLOOR                /* receipts are cleaned, and nothing is kept of them */
#define BELOW_FLOOR false
#else
#define BELOW_FLOOR (epoch <= floor)
#endif
#ifdef TRUST_RUN               /* the receipt is read on resume only */
#define READ (!fresh)
#else
#define READ true
#endif
#if defined(ATMOSTONCE) && !defined(REPEAT_BEGUN)
#define UNKNOWN (READ && G.begun)
#else
#define UNKNOWN false
#endif
#if defined(VERIFIABLE) && !defined(NO_PROBE)
#define PROBED T.in_place
#else
#define PROBED false
#endif

/* ---- ledger/lua ---- */

inline xack(d) {   /* inside a script, and nowhere else */
  if
  :: d != NOWHERE && redis[m].stream[d] != 0 ->
     redis[m].acked[d] = true;
     PROMISE(acked_unsettled, redis[m].entry[redis[m].stream[d] - 1].state == done)
  :: else
  fi
}

/* A lease may have run out, and a death be proven, whenever it pleases the search, so that
   busy is never answered: it would change nothing. Release only ends a lease early. */
inline begin_lua() {
  d_step {
    granted = 1;
    if
    :: E.state == held && E.nonce == nonce -> epoch = E.epoch                 /* our own, whose reply was lost */
    :: E.state == done -> granted = 0; j = DELIVERED; xack(j)                 /* settled */
    :: (E.state == absent || E.state == held && E.nonce != nonce) && grants == GRANTS -> granted = 0
    :: else ->                                                                /* run or resume */
       grants++;
#ifdef TRUST_RUN
       fresh = (E.state == absent);
#endif
       epoch = MAX(MAX(E.epoch + 1, server_time), newest + 1);
       if :: nonce == 0 -> nonce = grants :: else fi;
       E.state = held; E.epoch = epoch; E.nonce = nonce; E.seq = 0; E.id = DELIVERED;
#ifdef CLEAN
       highest = MAX(highest, epoch)
#endif
    fi
  }
}

inline record_lua() {
  d_step {
    ok = 1;
    if
    :: !STANDS -> ok = 0                                                      /* stale or absent */
    :: STANDS && E.seq > seq                                                  /* written before, by this very request */
    :: STANDS && E.seq <= seq && (E.state != held || E.seq != seq) -> ok = 0
    :: else ->
       PROMISE(recorded_twice, E.body[s] == none);
       PROMISE(disagreement, seen[key].recorded == none || seen[key].recorded == outcome);
       PROMISE(disagreement, seen[key].closed == none || seen[key].closed == outcome);
       seen[key].recorded = outcome;
       EACH_STEP(E.body[0] = (s == 0 -> outcome : body[0]), E.body[1] = (s == 1 -> outcome : body[1]));
       E.seq = seq + 1;
       if
       :: LAST -> E.state = done;
#ifndef CLIENT_ACK
          j = E.id; xack(j)
#endif
       :: else
       fi
    fi
  }
}

/* ---- playbook: what a replica does ---- */

inline forget() {   /* through with the alert, or dead */
  at = IDLE; a = 0; id = 0; nonce = 0; epoch = 0; newest = 0; s = 0; seq = 0; outcome = none;
#ifdef TRUST_RUN
  fresh = false;
#endif
  EACH_STEP(body[0] = none, body[1] = none)
}

inline leave() {
  if :: G.lock == i + 1 -> G.lock = NOBODY :: else fi;
  if :: T.lock == i + 1 -> T.lock = NOBODY :: else fi
}

inline next_step() {
  if
  :: !LAST -> s = 1 - s; outcome = none; at = ENTER
#ifdef CLIENT_ACK
  :: LAST -> at = XACK
#else
  :: LAST -> forget()
#endif
  fi
}

/* The kernel frees the locks of the dead, except those that a child has inherited. */
inline die() {
  kills++;
#ifndef NOT_INHERITED
  if :: at == APPLIED -> G.lock = CHILD :: else fi;
#ifndef TARGET_NOT_INHERITED
  if :: at == APPLIED -> T.lock = CHILD :: else fi;
#endif
#endif
  leave();
  if :: at == APPLIED -> T.inside = CHILD :: else fi;
  forget()
}

/* A delivery is read from Redis y, as often as you like, and Begin is then asked of Redis
   x. Only what may change something is tried. The first grant of all is replica 0's, for
   up to then the two are alike. */
#define READ_AT(y, d) (redis[y].stream[d] - 1)
#define WORTH(x, y, d) (REACHABLE(x) && REACHABLE(y) && redis[y].stream[d] != 0 && (x == y || redis[0].stream[d] != redis[1].stream[d]) && \
  (redis[x].entry[READ_AT(y, d)].state == done -> PENDING(x, d, READ_AT(y, d)) : grants < GRANTS && (i == 0 || grants > 0)))
#define DELIVERY(x, y, d) at == IDLE && WORTH(x, y, d) -> m = x; id = d; a = READ_AT(y, d)

proctype Replica(byte i) {
  mtype at = IDLE;
  byte a, id, nonce, epoch, newest, s, seq, outcome, body[STEPS];
#ifdef TRUST_RUN
  bool fresh;
#endif
end:
  do
  :: atomic {   /* Responder.begin: Ledger.Begin, and again with the same nonce after a lost reply */
       if
       :: DELIVERY(0, 0, 0) :: DELIVERY(0, 0, 1) :: DELIVERY(1, 1, 0) :: DELIVERY(1, 1, 1)
       :: DELIVERY(0, 1, 0) :: DELIVERY(0, 1, 1) :: DELIVERY(1, 0, 0) :: DELIVERY(1, 0, 1)
       :: at == ASK && REACHABLE(0) -> m = 0
       :: at == ASK && REACHABLE(1) -> m = 1
       fi;
       if :: server_time = 1 :: server_time = 2 fi;   /* any server's clock, at any time */
       begin_lua();
       if
       :: !granted -> forget()
       :: granted -> at = ASK; epoch = 0              /* the reply is lost */
       :: granted -> at = ENTER; newest = 0;
#ifndef CLIENT_ACK
          id = 0;
#endif
          EACH_STEP(body[0] = E.body[0], body[1] = E.body[1]);
          s = (body[0] != none -> STEPS - 1 : 0)
       fi }
#ifdef DECIDE_OUTSIDE
  :: d_step { at == ENTER -> outcome = refused; at = RECORD }
#endif
  :: atomic { at == ENTER && FREE ->   /* Gate.Enter, and Responder.decide up to pass.Begin */
       if
       :: READ && G.closed != none -> outcome = G.closed; at = RECORD
       :: !(READ && G.closed != none) && (BELOW_FLOOR || STALE) -> j = MAX(floor, G.epoch); forget(); newest = j
       :: !(READ && G.closed != none) && !BELOW_FLOOR && !STALE ->
          G.lock = i + 1; T.lock = i + 1; G.epoch = epoch; G.nonce = nonce;
          if
          :: UNKNOWN -> outcome = unknown; at = CLOSE
          :: !UNKNOWN -> outcome = refused; at = CLOSE
          :: !UNKNOWN && PROBED -> outcome = applied; at = CLOSE
          :: !UNKNOWN && !PROBED -> at = BEGIN
          fi
       fi }
  :: d_step { at == BEGIN -> G.begun = true; at = APPLY }   /* pass.Begin */
  :: d_step { at == APPLY ->                                /* effect.Apply, its beginning */
       PROMISE(after_closed, seen[key].closed == none);
       PROMISE(after_recorded, seen[key].recorded == none);
       PROMISE(older_token, !(epoch < seen[key].epoch || epoch == seen[key].epoch && nonce != seen[key].nonce));
       PROMISE(overlap, T.inside == NOBODY);
#ifdef VERIFIABLE
       PROMISE(in_place, !T.in_place);
#endif
#ifdef ATMOSTONCE
       PROMISE(second, !seen[key].begun);
#endif
       seen[key].epoch = epoch; seen[key].nonce = nonce; seen[key].begun = true; T.inside = i + 1;
       at = APPLIED }
  :: atomic { at == APPLIED ->                              /* effect.Apply, its end */
       T.inside = NOBODY;
       if
       :: outcome = applied; at = CLOSE; IN_PLACE(T)
#ifdef ATMOSTONCE
       :: outcome = unknown; at = CLOSE
#else
       :: leave(); at = ENTER   /* it failed, and is tried again under the same token */
#endif
       fi }
#ifdef CLOSE_AFTER_RECORD
  :: d_step { at == CLOSE && body[s] == none -> at = RECORD }
  :: d_step { at == CLOSE && body[s] != none ->
#else
  :: d_step { at == CLOSE ->                                /* pass.Close */
#endif
       PROMISE(disagreement, seen[key].recorded == none || seen[key].recorded == outcome);
       if :: G.closed == none -> G.closed = outcome; seen[key].closed = outcome :: else fi;
       leave();
#ifdef CLOSE_AFTER_RECORD
       next_step() }
#else
       at = RECORD }
#endif
  :: atomic {                                               /* Ledger.Record, and again after a lost reply */
       if
       :: at == RECORD && REACHABLE(0) -> m = 0
       :: at == RECORD && REACHABLE(1) -> m = 1
       fi;
       record_lua();
       if
       :: ok   /* the reply is lost */
       :: ok -> body[s] = outcome; seq++;
#ifdef CLOSE_AFTER_RECORD
          at = CLOSE
#else
          next_step()
#endif
       :: !ok -> leave(); forget()   /* ErrLost */
       fi }
#ifdef CLIENT_ACK
  :: d_step { at == XACK && REACHABLE(0) -> m = 0; xack(id); forget() }
  :: d_step { at == XACK && REACHABLE(1) -> m = 1; xack(id); forget() }
#endif
  :: d_step { at != IDLE && kills < KILLS -> die() }
  od
}

/* ---- everybody else ---- */

inline xadd(x, al) {
  if
  :: redis[x].stream[0] == 0 -> redis[x].stream[0] = al + 1
  :: redis[x].stream[0] != 0 && redis[x].stream[1] == 0 -> redis[x].stream[1] = al + 1
  :: else
  fi
}

inline republish(al) {
  if
#ifndef NO_REPUBLISH
  :: published > al && (ALERTS == 1 || redis[1].stream[0] != al + 1 && redis[1].stream[1] != al + 1) -> xadd(1, al)
#endif
  :: else
  fi
}

inline replicate(al) {
  redis[1].entry[al].state = redis[0].entry[al].state; redis[1].entry[al].epoch = redis[0].entry[al].epoch;
  redis[1].entry[al].nonce = redis[0].entry[al].nonce; redis[1].entry[al].seq = redis[0].entry[al].seq;
  redis[1].entry[al].id = redis[0].entry[al].id;
  EACH_STEP(redis[1].entry[al].body[0] = redis[0].entry[al].body[0], redis[1].entry[al].body[1] = redis[0].entry[al].body[1])
}

#define SETTLED(al) (redis[SURVIVOR].entry[al].state == done && !VISIBLE(SURVIVOR, al))
#define DROPPED(al) (published > al && redis[SURVIVOR].entry[al].state != done && !VISIBLE(SURVIVOR, al) && (!promoted || republished))

/* A child that outlived its replica ends, its effect in place or not. */
inline child_ends(t, g) {
  t.inside = NOBODY;
  if :: t.lock == CHILD -> t.lock = NOBODY :: else fi;
  if :: g.lock == CHILD -> g.lock = NOBODY :: else fi;
  if :: skip :: IN_PLACE(t) fi
}

proctype World() {
end:
  do
  /* The publisher: each alert once, and one alone perhaps twice; again after a promotion. */
  :: d_step { published < ALERTS && !republished && !retired -> xadd(0, published); published++ }
  :: d_step { ALERTS == 1 && published == 1 && !republished && redis[0].stream[1] == 0 -> xadd(0, 0) }
#if ALERTS == 2
  :: d_step { published < ALERTS && promoted -> xadd(1, published); published++ }
#endif
#ifdef FAILOVER
  :: d_step { promoted && !republished && published > 0 -> EACH_ALERT(republish(0), republish(1)); republished = true }
  /* What the first master is told from now on is lost, though it goes on answering. */
  :: d_step { !promoted ->
       redis[1].stream[0] = redis[0].stream[0]; redis[1].stream[1] = redis[0].stream[1];
       redis[1].acked[0] = redis[0].acked[0]; redis[1].acked[1] = redis[0].acked[1];
       EACH_ALERT(replicate(0), replicate(1));
       promoted = true }
#endif
  :: atomic { TARGET(0).inside == CHILD && (gate[0].lock == CHILD || KEYS == 1) -> child_ends(TARGET(0), gate[0]) }
#if KEYS == 2
  :: atomic { TARGET(1).inside == CHILD && gate[1].lock == CHILD -> child_ends(TARGET(1), gate[1]) }
#endif
#ifdef VERIFIABLE
  /* What is in place does not stay: a block runs out. */
  :: d_step { target[0].in_place -> target[0].in_place = false }
#endif
#ifdef CLEAN
  /* Gate.Clean, once retention says so: the record is safe, the deposed master is long off,
     and the host's clock, which the floor is raised to, is past every epoch of that time. */
  :: d_step { redis[SURVIVOR].entry[0].state == done && gate[0].closed != none && gate[0].lock == NOBODY ->
       if :: promoted -> retired = true :: else fi;
       floor = highest;
       gate[0].epoch = 0; gate[0].nonce = 0; gate[0].begun = false; gate[0].closed = none }
#endif
  :: DROPPED(0) || DROPPED(ALERTS - 1) -> PROMISE(dropped, false)
  /* Nobody can do anything any more: then all is settled, or the search has run out of grants. */
  :: timeout -> PROMISE(stuck, grants == GRANTS || SETTLED(0) && SETTLED(ALERTS - 1)); break
  od
}

init { atomic { run Replica(0); run Replica(1); run World() } }
