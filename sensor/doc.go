// Package sensor turns what happens on this host into alerts.
//
//	source -> detector -> outbox -> Publisher
//
// A source says that a process runs a program it did not run before. The detector looks
// at that process and its parent and asks the rules. What matches becomes an alert, and
// the outbox holds it until the publisher has taken it. Nothing ever waits for Redis but
// the outbox.
//
// # Sources
//
// proc listens to the kernel's proc connector: one message for each fork, exec and exit,
// some 0.1 ms after the fact. The message holds a PID and nothing else; all that matters
// is then read from /proc, and the process may be gone by then. It works in the initial
// PID and network namespaces alone: elsewhere it is silent or, worse, names PIDs of the
// host that mean other processes here. Before Linux 6.6 it takes CAP_NET_ADMIN.
//
// poll looks at all processes every 100 ms and compares. It works everywhere, and what
// lives and dies between two looks it never sees: of processes that live for
// milliseconds, nearly all. That is no matter of tuning. It also sees a parent only if the
// two are there at the same look; the child of a parent that has exited is a child of init.
// And it cannot tell a fork from a program: a copy of itself that a process makes is found
// like any other child.
// It is for containers and for other systems, where something is better than nothing.
//
// auto takes proc where the kernel acknowledges the subscription, else poll, and says
// which and why.
//
// Both begin with a look at what is running already, so that a sensor that was down for a
// minute misses only what ended in that minute. The alert about such a process bears the
// time the process started, so that a responder sees how old the news is.
//
// # What is read, and in which order
//
// First the names, the kernel's name of the process and the path of its executable, for
// the child and, from memory mostly, for its parent. For almost every process they say
// that no rule can match, and that is all it costs. Arguments and user are read only where
// a rule is still in question, and after that the process is identified once more: if it
// has run another program meanwhile, what was read piece by piece is a mixture of two and
// is thrown away.
//
// A parent is what it was when it forked: a container's script that leaves a helper behind
// and then becomes nginx did not make nginx start a shell. The source proc tells when who
// forked whom, and with each fork the detector keeps what the parent ran, so that a parent
// which has exited, or runs another program now, or hides behind a double fork, is known.
//
// That is certain only if it was read before the fork. It is not where proc is late, and
// not of processes that a look finds together with their parents: /proc says what a parent
// is, never what it was. What rests on such a parent alone is MEDIUM at most (see
// Rule.Level). A parent that was found before its child began is certain, so a server that
// has run for a while is taken at its name by poll too.
//
// # What is lost, and where it is counted
//
//   - Stats.Vanished: processes that were gone before it could be read what they were.
//   - Stats.Overruns: how often the kernel had more to say than the socket could hold. All
//     processes are then looked at anew; those that lived shorter are lost, uncounted.
//   - Stats.Dropped: alerts given up because the outbox was full, the oldest first. It is
//     in memory: what it holds when the sensor is killed is lost as well.
//   - Uncounted: what poll never sees; a program that poll finds running under the name
//     and, beyond the age of 2 s, the PID of its predecessor; what hides behind the first
//     16 KiB of its arguments.
//
// # One process and one rule are one alert
//
// The ID of an alert is derived from host, boot ID, PID, start ticks and rule. Seen again,
// by this run or the next, it is the same alert under the same ID: within a run it is
// published once, and what gets through twice the ledger settles.
//
// # Rules
//
// A rule is a parent, a child and a few conditions more: see Rule. The built-in ones are
// under rules/. The default playbook kills from HIGH on, so a rule is HIGH only if nobody
// does in peace what it describes; what cron, a database, an installer or a build job also
// does is MEDIUM, and a test keeps a list of both. A rule is a description of behaviour,
// not a proof: whoever reads these files can avoid them.
package sensor
