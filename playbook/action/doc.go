// Package action holds what Riposte can do about an alert, one file per action and per
// platform where it differs.
//
// An action has three faces. Its Spec is what an operator writes under `with` in a
// playbook. Resolve binds the spec to one alert and yields an Effect: plain data that is
// frozen in the ledger before anything happens, so that a successor carries out what the
// first holder planned and not what a file says by then. The Effect's methods do the rest:
// Probe looks, Apply acts.
//
// Three rules hold for every effect:
//
//   - Nothing an alert says is believed. Every field may be an attacker's; an effect
//     parses strictly, checks its target against the guard of Env on the very object it is
//     about to touch, runs programs by argv and never through a shell, and answers what it
//     must not do with a *Refusal.
//   - An outcome is what was observed. There is one way out, (Receipt, error): either the
//     effect was seen to be in place, or there is an error and the caller may try again, or it
//     was seen to fail for good. A failure cannot be written down as a success.
//   - In place already is a success. A process that has gone, an address that is blocked
//     for long enough: Probe says so, and nothing is done twice.
//
// # suspend_process and resume_process
//
// The process is held by a pidfd and checked as for terminate_process. Where it is alone in a
// control group of version 2, with none below it, that group is frozen, as a whole and for good:
// no signal but SIGKILL gets through, and what the process starts meanwhile is frozen with it.
// The group is opened once and then looked at, frozen and looked at again: it is thawed where
// anybody else was put into it, or somebody protected. Everywhere else, and where the groups
// cannot be seen or written, as in most containers, the process gets SIGSTOP, through the pidfd.
// Then what it has started runs on.
//
// It is suspended when its group was seen frozen, or every thread of it stopped, by whomever.
// SIGSTOP cannot be caught, but whoever may signal the process may resume it: a companion of
// the same user, or its debugger, to whom a reason points. Whoever may write to its control
// group, as the owner of a session may, can thaw that.
//
// Each step that suspends a process has a claim on it. The claim says what was done, SIGSTOP or
// the freezer, and is written down before that; it counts once the process was seen suspended.
// So a crash leaves nothing, or what a successor takes for its own. Where nothing had to be done
// the claim says so: what somebody else has suspended stays so when the step is undone. An undo
// drops its own claim, leaves to another what is to be taken back later, and takes it back where
// there is no other. resume_process by itself takes back all of it, whoever did it, and drops
// every claim; only a group that holds others stays frozen, and fails it.
//
// A suspension is not put back: who resumes a process by hand has decided. Its claims go with the
// process, and then its group is thawed, for the next one to come into it: at the end of
// terminate_process, or when Reassert finds the process gone. They are void after a reboot, and for
// another process that has the PID. What has gone is already_gone.
//
// # terminate_process
//
// A PID is not a process: the kernel hands it out again. So the PID is opened first
// (pidfd_open(2)), then the identity in /proc is compared with the alert's, then the guard
// is asked, then it is checked through the pidfd that the process is still there, which
// proves that all of this was read of it and not of a successor; only then is it signalled,
// through the pidfd and never by number. Whether it has gone is likewise read from the
// pidfd alone: it becomes readable when the last thread exits, for zombies too. A process
// that is stopped or frozen, by suspend_process say, is given no grace: SIGTERM would reach it
// only when it runs again. SIGKILL needs no thaw.
//
// The init of a PID namespace, such as a container has, takes all that are in there with it: it is
// left alone where one of them is protected.
//
// With target parent all of this is done to the process that started the alert's, by
// process.parent of the alert.
//
// With tree all descendants are ended too, and nobody gets a grace. The root is stopped, so
// that it starts no more, then its children are looked for, held, checked and stopped, and
// theirs, until a look at all processes finds nobody new. If one of them is protected, or
// its identity cannot be read, those that were stopped here are resumed, those that had been
// stopped before are not, and all is refused. Then all are killed, children before their
// parents and the root last: should the responder die on the way, its successor finds the
// rest from the root, and goes on. A tree is in place when its root has gone. So:
//
//   - What has left the tree is not found: a process whose parent has exited belongs to init,
//     or to a subreaper, and nothing tells whose it was. The same goes for all of the tree
//     where the root is gone when the alert comes.
//   - Whom a debugger keeps running, or may, is killed all the same, before the others. The
//     reason names him, for nobody knows whom he started in the last moment.
//   - A tree of more than 4096 processes is refused.
//   - A responder that dies between the stop and the kill leaves the tree stopped until a
//     successor is there; one that refuses then, because a protected process came to it,
//     leaves those stopped that it found so.
//
// # block_ip
//
// Addresses may be several, and networks up to /24 or /64, where an operator has written them;
// an alert names one address. All of them are blocked or none: a protected address in a list
// or in a network refuses the whole, and it is in place where all of them are.
//
// An address is dropped as a source of what comes in and as a destination of what goes
// out, for a time. The time counts from Apply. Blocking again never shortens: the longer
// time left wins, and the firewall's entry bears the ID of the alert that asked for it.
//
// Several alerts may ask for one address, by itself or in a network, so each step has a claim:
// on which addresses and networks, until when, and for which alert. Every address is blocked for
// the longest of the claims that have it in them. Networks have one another in them or nothing in
// common, so all that may overlap is in one /24 or /64: that is the target, whose lock blocks
// in it take turns at, and whose file has all their claims. With nftables, where the elements
// of a set must not overlap, blocks in it are divided into pieces that do not, each in the name of the
// alert that asks longest; with iptables every network has rules of its own. A claim is written down
// before the firewall is changed, and counts once the block was seen to stand: what was
// never seen, because of a crash say, is put back by nobody. A block is in place where its
// own step's claim counts and every address of it stands in the firewall for what is left of it:
// blocked if any of that was made for this alert, already_blocked if all for others. A claim alone is
// not a block, and a block without a claim would go when somebody else's is taken back.
//
// Reassert puts back what claims ask for and the firewall lacks, with the time that is left:
// a responder that enforces calls it at its start and every half minute. So a block outlives
// a reboot and a flushed firewall, with a gap; and one that was taken back, or was never
// seen to stand, does not come back.
//
// LiftProtected takes away the blocks of what the guard protects by now, so that an entry of the
// allow-list lifts what was blocked before it, and a new gateway is reached again. What the guard
// cannot tell of, at this moment, stays blocked.
//
// A target keeps a thousand claims: more only tell that it is flooded. Those for the addresses that
// most claims are for go first, and of them the one that ends first.
//
// A table of an earlier version of Riposte, which had no sets of intervals, is made anew with all
// that is blocked in it when something is to be changed or put back, in one transaction; claims of such a version
// are taken over by Reassert.
//
// With netsh the executable of the alert's parent process can be blocked, too. Anybody may have
// written its path, so it must be an absolute one in the plainest form, and none of Windows' own.
//
// Packets that are only forwarded, to containers say, are not looked at.
//
// # unblock_ip
//
// The undo of block_ip, and an action by itself. As an undo it drops the claim of one step:
// the one that Env.Undoes names, or where nobody says which, those that this alert has made
// for the time in question. Each of its addresses is then blocked for the longest of
// the claims that are left, with the time that it has left, or not any more; what was made
// for another alert or by an operator stays as it is. By itself it lifts every block of an
// address that Riposte has made, with claims or without; a block of a network only where it is
// given that network.
//
// It is in place where no such claim is left and no entry stands in their name, also if
// nothing was ever blocked. The claims go last: whoever dies before leaves them, and a
// successor sees what is to be done. The guard is not asked, for what it protects is better
// not blocked.
//
// # collect_evidence
//
// One file with what /proc says of a process, its executable, and a manifest with the sums of
// all of it. It is named by the step's key, written under another name, synced, and renamed
// when it is whole: so it is in place where it can be read to its end, and a later step may
// end the process. It is in place as well where the process has gone.
//
// What is read by a number is the process's only if that still lives afterwards, which its
// pidfd tells after each part; what cannot be proven so is left out. The executable is opened
// first and stays what it was. Reading changes nothing, so the guard is not asked: a
// protected process may be looked at. Secrets are taken out of the environment, as far as they
// are called so, and of nothing else. Nothing is ever removed.
// # quarantine_file and restore_file
//
// A file is copied into STATE/vault/SHA-256 of the step's key, as `content`, which nobody can
// run, beside `manifest.json`, which says where it was, whose, since when and by which alert;
// and only when both are on the disk, the file is unlinked. A responder that dies before that
// has done nothing, and one that dies between the two is taken up there. In place is what has
// its manifest and is not at its path any more, neither that inode nor that content; and what
// was never there is already_gone.
//
// Nothing on the way to the file may be a symbolic link, and what is read and unlinked is held
// by a descriptor. Whoever may write to its folder can still put another file in its place at
// the last moment, but only one that he could remove as well. Refused are: what is no regular
// file; what has more than 1 GiB, or not the SHA-256 asked for; root's own files in /usr, /bin,
// /sbin, /lib*, /etc and /boot; what a protected process runs; what the allow-list names by its path; Riposte and its folders; and what
// is on a FUSE file system, which may never answer, or on one of the kernel's.
//
// Where the path is that of the alert's executable, and its process lives, what the process runs
// is what is meant. If that was deleted, or never had a path, as with memfd_create(2), its
// content is taken from the process, and the reason says that nothing was left on the disk; a
// file that stands at the path by then is left alone. It is refused where the path means another
// file in the mount namespace of the process. If the process has gone, whatever stands at the
// path is taken: give the SHA-256 where that matters.
//
// A process that runs the file goes on: end it by terminate_process, afterwards. Other names of
// the file (hard links) stay, and the reason says how many. The vault is never cleaned.
//
// The manifest also has the file capabilities, the access list and the user.* attributes, as far
// as they fit into it: 32 KiB. The copy in the vault has none of them.
//
// restore_file puts the content back under its old name, if nothing else has that, with owner,
// mode, times and extended attributes, setuid and file capabilities too, and with no access list
// but its own; then it takes it out of the vault, and leaves the manifest there
// as restored.json. It is in place when that is done, whatever becomes of the file. The undo of
// quarantine_file is about what was quarantined of that path for the same alert.
// # isolate_host
//
// Everything that comes in and goes out is dropped, but for this host's own traffic to
// itself, its connections to the Redis servers, the clients of the SSH sessions that Riposte
// runs in, whom the playbook allows, and what an address is had and kept by: DHCP and
// neighbour discovery; and routers may say that a packet was too big. Resolvers are let through where the playbook says so. What is only
// forwarded, to containers say, is not looked at; nor is anybody let in whom another table
// of the firewall turns away.
//
// An isolation that cannot be ended is worse than none. So it must have an end, and that
// is the kernel's: the rules that drop ask a set whose elements expire, so that the host is
// free again though no replica lives. And it stands for some seconds only until a fresh
// connection to Redis was made through it. Where that fails it is lifted, and the step with
// it; and who dies in between leaves nothing behind for long. A host without Redis behind its
// name, in want of its resolver say, is thus not isolated.
//
// Several alerts may isolate a host: each step has a claim. The isolation stands for the
// longest of them, and lets through what any of them does. It is in place where its own
// step's claim counts, nobody has put a rule before the last, and there is enough time left.
// Reassert makes it anew after a reboot, a flushed firewall, or when Redis has moved to
// another address; for that, too, Redis must be reached from inside.
//
// # release_host
//
// The undo of isolate_host, of one step's claim alone, and by itself the end of every
// isolation. It is in place where no such claim is left and no isolation stands for one. What
// other steps ask is made anew without it.
//
// # log
//
// One line of JSON an alert, appended in one write. A repetition writes the same key again.
// A line that was cut short, by a full disk or the death of its writer, stays as it is, and
// the next one begins on a line of its own.
//
// # notify
//
// A message to a web server, to Slack, or by email, under the step's key: in the header
// Idempotency-Key, or as the Message-ID. Whether it was read nobody can see, so it is never in
// place, and a successor sends it again under the same key. It counts as sent when the server
// has taken it, and not before. What the server says no to for good is failed at once; where it
// asks to be left alone for a while (Later), it is the playbook that says how long at most.
//
// The plan holds where a secret is, never the secret, which is read when a message is sent
// and taken out of every text that others could read: errors of net/http quote the URL, and
// servers what they were sent. Certificates are always verified and redirects never followed.
// What an alert says can neither add a header nor call everybody in a channel, and it cannot
// keep the message from being sent.
//
// Email is written on net/smtp, which is frozen, and enough for one plain message. Of go-mail
// v0.8.2 the context ends the dialling alone, and a connection of our own would still have to
// be closed with it, as it is here; RSET and QUIT after the message was taken count as failures
// to send it; and it wants a newer Go than this module, or as v0.8.1 golang.org/x/crypto and
// x/text, and 0.8 MB.
//
// # run_script
//
// A program of the operator's, run at most once: nobody but its author knows what it does,
// so nothing here could tell whether it is done. It gets its argv as written, the alert as
// JSON on standard input and its fields in variables named RIPOSTE_ALERT_*, and nothing
// else of this process's environment. It runs in a process group of its own, which is
// killed whole when the time is up, and also when the program itself has ended: a program
// that means to leave something behind hands it to a service manager. Like every program
// started here it dies with this process, and holds the gate's lock. What it started does
// not die with this process, but holds the lock too, so that nobody decides the outcome
// while any of it runs.
//
//   - exit status 0 is ran, and any other is failed: it ran once, to its end, and is not
//     run again; the reason has the status and the end of what it wrote.
//   - What could not be started is failed as well: it certainly did nothing.
//   - Killed, by the timeout or by anybody else, is unknown: it may have done half its work.
package action
