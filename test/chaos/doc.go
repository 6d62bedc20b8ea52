// Package chaos tests the whole pipeline by killing it. Four replicas, each a process of
// its own, contain decoys that are real processes; every 200 ms one of them is killed and
// replaced, and another one is frozen past its lease and thawed. Afterwards every decoy
// must be dead, every alert logged, and no effect doubled.
//
// What is true is looked up outside Redis: the test is the parent of the decoys and of the
// replicas and sees them exit, reads the log file, and has the trace judged by package
// judge. The ledger's own audit is asked too, last.
//
// # Runs that count
//
// A run in which nobody was killed at a bad moment proves nothing. So it must have at least
// 50 kills between Begin and Record and 20 inside an effect. It goes on until it has, up to
// six times as long as it was to, and fails if it still has not. Both are counted
// from the trace, where a dead replica's last lines stand: it was inside an effect that it
// had begun and not ended, and between Begin and Record with a step whose effect it had
// begun, or whose outcome it had closed, and that it had not recorded. The ledger's Begin
// itself leaves no line, so what is counted is less than what was.
//
// Three quarters of the kills are aimed: the killer reads the trace along and waits a moment
// for a replica that is inside an effect, or, after it has dropped all connections to Redis,
// for one that has closed an outcome and not recorded it. It spares a replica that has an
// alert which has lost three holders already, because one that loses five is poison, and is
// buried, as it should be.
//
// # A broken Redis
//
// TestChaosRedis does the same while Redis suffers as well: it is killed and started
// again, frozen for longer than a lease, paused, filled up, loses its scripts and its
// connections, each at least once or the run does not count. It syncs before it replies,
// so nothing that it acknowledged is lost; an alert is published until it is acknowledged.
// Takeovers are timed only where Redis was well from the death to the next Begin.
//
// One thing is allowed here and not there: up to one alert in twenty may become a dead
// letter. The killer cannot see whom it must spare while Redis is away, and deliveries and
// Begins that were under way count when it is back, though those who sent them have been
// killed meanwhile. Five of them make poison, which is for a person to look at.
//
// # Teeth
//
// The same run with a binary that has no gate (build tag riposte_no_gate) must be found
// guilty of doubled effects. Otherwise the innocence of the real one would mean nothing.
//
// # Replay
//
// The seed is in the log of the test, and -seed takes it. What is left to chance is then the
// same: of the nth decoy who reports it and how often; of the nth kill what moment it waits
// for and in which order it looks for a victim; of the nth freeze whom and for how long; the
// order of Redis's faults and how long they last. When each comes, who can be killed then,
// and what the replicas are doing, is the machine's.
//
//	go test -v ./test/chaos -seed=42
//	go test -v ./test/chaos -run 'TestChaos$' -timeout=1h -duration=10m -alerts=40000
//	go test -v ./test/chaos -run TestChaosRedis -timeout=90m -duration=1h -alerts=40000 -faults=10s
//	go test -v ./test/chaos -artifacts -outputdir="$PWD"    # keeps the trace and the latest logs
package chaos
