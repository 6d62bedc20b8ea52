// Package ledger is what was decided and done, once: an exactly-once record of actions
// that themselves cannot be exactly-once.
//
// # The promise
//
// After each sentence stand tests that fail where it is not true. The model in test/model
// checks the first three for every order of events within its bounds.
//
//   - Recorded once. At most one accepted record per (alert, step) in any surviving
//     history of Redis [test/random TestLedgerIsAsTheModelSays, test/model TestIntact].
//     Where Redis itself loses acknowledged writes (a failover), the host's receipt lets
//     the same outcome be recorded again, not a new effect begun [test/redisfaults
//     TestFailover, TestFlushAll].
//   - Fenced. Among replicas that share a host's gate: no effect starts under a token
//     older than one that has passed the gate, none starts after its outcome was closed
//     there, and no two are inside the same effect at once [playbook/gate
//     TestOvertakenTokens, TestClosedBeatsTokens, TestOneInside, test/crash TestBoundaries].
//   - Repeated only knowingly. When a replica died between an effect and its record, its
//     successor probes a verifiable effect and repeats it only if it is not in place;
//     repeats an idempotent one under the same key; and never repeats an at-most-once
//     one, which is recorded as unknown and put before a person [test/crash TestBoundaries,
//     playbook/gate TestCrashInside, ledger TestResolve]. At-most-once holds while either Redis or the
//     host's state folder survives; if the host reboots and Redis loses the record, the
//     other two classes may be repeated [test/redisfaults TestFlushAll, playbook
//     TestStateFolderLost].
//   - Never dropped. Every alert in surviving history ends settled, dead, or visibly
//     pending (pending list or waiting), for each group that existed at its XADD
//     [test/chaos TestChaosRedis, stream TestTrimDropsNothingUnacked, ledger TestPark,
//     playbook TestUndertaker]. It goes without an effect only if it expired, was refused
//     by a guardrail, ran out of attempts, or is unknown; then the ledger says so [test/e2e
//     TestBadInput, TestRetry, test/crash TestBoundaries].
//   - All of it within retention (max alert age + spool retention < ledger TTL < receipt
//     retention); what is seen again after that is a new alert [cmd/riposte
//     TestRetentions, playbook/gate TestClean].
//
// Nobody can have exactly-once for an arbitrary external side effect. What this package
// gives is: recorded exactly once, executed effectively once, or flagged unknown.
//
// # Who is authoritative
//
// The entry in Redis, and the clock is Redis's (TIME inside the script). The stream merely
// delivers, at least once; being handed an entry gives no right to act. Only Begin does.
// Local time may only make a replica stop earlier.
//
// # States
//
//	(absent) --Begin--> held --Record(last)--> done
//	   |                 | |\--Bury---------> dead --Retry--> held, by nobody
//	   |                 |  \--Park---------> waiting --Wake--> held, by nobody
//	   |                 +--Begin of a successor, after the lease or a proven death--> held
//	   +--Begin, held back--> waiting          done --Reopen--> held, by nobody
//
// A waiting alert is acked, so that it blocks nothing; its entry keeps the raw alert, and
// the sorted set of waiting alerts when it is due. Any replica wakes it: when that is, when a
// person has decided (Reader.Decide), or when what held it back no longer does (Ledger.Free).
//
// # What holds an alert back
//
// Switches that a person turned off, and breakers that count the alerts on which a playbook
// acts. Those of a host are in its slot of Redis, and Begin itself looks at them and counts,
// so all replicas agree and there is never one too many. Those of the fleet are in a slot of
// their own: replicas read its switches several times a second, and have its breakers count an
// alert once Begin would grant it (Reserve), each by its name, so that nothing is counted
// twice. A replica that dies in between has used up a place that only this alert can take: so
// never more than the limit, and exactly the limit where none dies.
//
// An alert that was under way when its holder died is never parked, for what it has begun is
// to be ended by whoever takes over: a switch has it wait where it is, pending, and a breaker
// has counted it.
//
// # Undo
//
// What was done is taken back by further steps of the same entry, which a person adds to it
// (Reader.Reopen). The delivery that brings it round again holds no alert, only the digest
// that the entry is known by: what is to be done stands in the entry, where nobody can write
// who may only add to the stream.
//
// # The token
//
// A grant is fenced by (epoch, nonce). The epoch grows with every grant of an alert:
// max(stored + 1, the server's microseconds, the gate's floor + 1). After a failover the
// same epoch can be granted twice, so the epoch alone is not a token; the nonce is new for
// each Begin, and the entry keeps it, so that a Begin whose reply was lost gets the same
// grant when it asks again.
//
// # The entry
//
// One string. Scripts read and compare only its first line:
//
//	STATE EPOCH LEASE_US OWNER NONCE SEQ DUPLICATES DEATHS DIGEST STREAMID GATE
//
// The body below it is JSON and belongs to the holder, who is its only writer while its
// token stands; it is opaque to Lua. DIGEST stands in the header, and not in the body,
// because Begin must tell another alert under the same ID from a duplicate before it acks
// anything. SEQ counts the records accepted under the token, so that a Record whose reply
// was lost is answered yes again and not applied again. GATE names the gate of the
// holder, or is "*" once the entry's holders had several: then nobody's receipts are whole. It
// is "-" where the alert was parked before any step that is left to do had begun.
//
// # Acks
//
// No client sends XACK. The last Record, Bury, or a Begin that sees a settled entry acks
// inside its own script, after checking the state there: a plain XACK that lands after a
// failover would ack an alert whose record was lost.
//
// # What is not promised
//
// Anything about a Redis that was edited by hand, and anything past retention. Whoever may
// write to these keys is trusted; see the ACL file in deploy.
package ledger
