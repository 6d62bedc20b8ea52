// Package crash stops real replicas at every boundary of the pipeline, and breaks every
// command that they send to Redis, each once, for each class of action. Afterwards the
// alert must be settled, its effect must have happened as often as its class allows, as
// seen from outside, and the audit must find nothing.
//
// # Boundaries
//
// A binary built with the tag riposte_crashpoints freezes itself at a boundary that its
// environment names, so a case is never a matter of luck. The replica that was frozen is
// then
//
//   - killed, with a healthy peer beside it, long before its lease is over;
//   - left frozen past its lease, and thawed when a peer has done its work; where it is
//     frozen inside the gate, the peer ends it instead;
//   - thawed past its lease, before there is a peer that could take over.
//
// The boundaries are read from the source of package playbook: a new one is covered, or
// fails the test that says how it ought to end.
//
// # Actions
//
// The classes stand for all actions there, each by one whose effects can be counted. Every
// other action that a playbook has, and every undo of one, goes through the worst of the
// faults as well, and so does each action that takes another one back, as a step of its own: the
// replica is killed at each boundary from the grant to the record, with a peer beside it. These cases have namespaces of their own, because they really block,
// isolate and quarantine, and each looks from outside whether that was done, once, or is as
// it was before: at the processes, the firewall, the files, the vault, the archive, and at
// what a web server was told. A replica is killed in the middle of each effect as well, some
// time after it has begun: where that was is a matter of luck, what is to become of it is not.
//
// Time goes on while nobody is there, too. A block that was closed does not come back when it
// is over, neither by the successor nor by what puts lost blocks back; an alert that has come
// of age is expired, and nothing is begun about it; and of two blocks of one address an undo
// leaves the other, with its time.
//
// # Commands
//
// Three replicas hand one alert to each other, through a proxy: the first is killed, the
// second stopped. That takes every command there is, and a command that is seen there and
// has no case fails the test: known by its name, or by an argument where there are several
// kinds of it. Each is broken before the server runs it, and after.
//
// # Publishers
//
// A bridge and a sensor take the place of the replicas behind the proxy: each command that
// they send is broken before the server runs it, refused, and broken after; and Redis
// forgets everything, once what they published is settled, and once before they have
// looked after it. What they accepted is in the stream in the end, and settled once.
package crash
