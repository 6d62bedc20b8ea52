/*
 * Renewal: a holder that lives and is connected is never superseded. Here, unlike in
 * ledger.pml, time passes: a lease is three thirds long, and no third is over before each
 * holder that lives, is not frozen and is connected has come to its next renewal. A
 * renewal may be lost, but not two in a row: that would not be a connected holder.
 */
#define NOBODY 2
byte holder = NOBODY;   /* of the one entry */
byte thirds;            /* left of its lease */

bool dead[2], frozen[2], cut[2];   /* cut off from Redis */
bool missing[2];        /* no life file: removed, or in a folder that the other does not see */
bool due[2];            /* a renewal, in this third */
bool missed[2];         /* the last one was lost */
bool steady[2];         /* has lived, run and been connected since its grant or last renewal */
bool superseded;

#ifdef MISSING_MEANS_DEAD
#define PROVEN(x) (dead[x] || missing[x])
#else
#define PROVEN(x) (dead[x] && !missing[x])
#endif
#define RUNS(x) (!dead[x] && !frozen[x] && !cut[x])

proctype Replica(byte i) {
end:
  do
  :: d_step { RUNS(i) && holder != i && (holder == NOBODY || thirds == 0 || PROVEN(1 - i)) ->   /* begin.lua */
       superseded = (holder != NOBODY && steady[1 - i]); assert(!superseded);
       if :: holder != NOBODY -> steady[1 - i] = false; due[1 - i] = false :: else fi;
       holder = i; thirds = 3; steady[i] = true; missed[i] = false; due[i] = false }
#ifndef NO_RENEWAL
  :: d_step { RUNS(i) && due[i] && holder == i -> due[i] = false; thirds = 3; steady[i] = true; missed[i] = false }   /* renew.lua */
  :: d_step { RUNS(i) && due[i] && !missed[i] -> due[i] = false; missed[i] = true }   /* lost */
#endif
  :: d_step { RUNS(i) && holder == i -> holder = NOBODY; thirds = 0; steady[i] = false; due[i] = false }   /* settled, or released */
  od
}

#define LATE(x) (due[x] && steady[x])
#define FATE(x) \
  :: d_step { !dead[x] -> dead[x] = true; frozen[x] = false; steady[x] = false } \
  :: d_step { !dead[x] && !frozen[x] -> frozen[x] = true; steady[x] = false } \
  :: d_step { frozen[x] -> frozen[x] = false } \
  :: d_step { !cut[x] -> cut[x] = true; steady[x] = false } \
  :: d_step { cut[x] -> cut[x] = false } \
  :: d_step { !missing[x] -> missing[x] = true }

proctype World() {
end:
  do
  :: d_step { thirds > 0 && !LATE(0) && !LATE(1) ->   /* a third of the lease passes */
       thirds--;
#ifndef NO_RENEWAL
       if :: holder != NOBODY -> due[holder] = true :: else fi
#endif
     }
  FATE(0)
  FATE(1)
  od
}

init { atomic { run Replica(0); run Replica(1); run World() } }
