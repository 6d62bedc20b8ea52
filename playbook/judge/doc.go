// Package judge says from the outside whether replicas kept their promise: which alerts
// were lost and which effects were doubled. It reads the trace that the replicas leave in
// a file and what a test saw with its own eyes (processes that died, targets that are
// dead), and asks neither Redis nor the gate, which are what is on trial.
//
// # A doubled effect
//
// An effect is doubled that is
//
//   - begun after its outcome was closed at the gate or a record for it was accepted;
//   - begun under an older token than one already begun: a lower epoch, or the same one
//     with another nonce;
//   - begun while somebody is inside it, or inside another effect on the same process. A
//     replica is inside from begin to end, or to its death. A frozen one has not ended;
//   - verifiable, and begun while it is in place: an effect that ended well, or the exit
//     of the process as the test saw it, says so;
//   - at-most-once, and the second one of its step.
//
// # Order and time
//
// The order of events is that of their lines in the file. Replicas append one line an
// event with O_APPEND, the begin before the effect and the end after it, and the next one
// passes the gate only after that; so the lines stand in the order in which the gate let
// them in, whatever a clock does. Time (the host's, in the line) is used only against what
// the test saw: a replica is known to have lived until it was last seen alive, and a process
// to be dead from the moment its exit was seen. Both leave a gap of some milliseconds, and
// in it the judge believes the replica.
//
// # A lost alert
//
// An alert is lost if a step of it has no outcome, or a process that it names lives. An
// outcome is what an effect ended with, what was closed or what was recorded. Often it is
// all three, but when a replica dies right after it closed, and the next one right after
// it recorded, the end is all that the trace shows.
//
// What the trace does not show, because a replica died between two lines, is judged in
// its favour too: that an outcome was closed whose line is missing, for one.
package judge
