// Package guard is the floor under every action: what Riposte never does, whatever an
// alert says and whatever a playbook asks for. No configuration lowers it.
//
// An alert is an attacker's favourite lever. If he can have an alert written, then without
// a floor he can have PID 1 killed or the default gateway blocked, and the responder is
// his weapon. So the floor protects what the host and Riposte itself need to go on:
//
// Processes: PID 1 and kernel threads; Riposte's own processes and all their ancestors;
// the services through which a host is reached and run (sshd, the container runtimes,
// systemd); the Redis server. A service is recognised by its executable, root's own and
// writable by root alone, and by its user, root, never by its name: anyone can call
// himself sshd. The Redis server is recognised by its executable alone, because Debian runs
// it as a user of its own; but only in Riposte's own user namespace, and under a name that
// root's mounts give it. So whoever may run a real redis-server has a process that is not
// touched, and --loadmodule makes it do what he likes; and one in a user namespace of its
// own (rootless containers) is not protected.
//
// Addresses: loopback, link-local, multicast, unspecified and broadcast; the host's own;
// its gateways and resolvers; the Redis servers; the SSH clients in whose sessions Riposte
// runs; IPv6 forms that stand for one of them; and networks that have one of them in them, or
// are broader than /24 (IPv4) or /64 (IPv6). Not protected is whoever else has a
// connection to port 22: an attacker could make himself unblockable by opening one.
//
// Over the floor there may be an allow-list (Allowing): what an operator calls his own. It
// takes nothing away from the floor, which is asked first. An entry about processes covers a
// process of which all its fields are true, and one entry that covers a member of a tree
// refuses the tree, as the floor does. A network of the list refuses each address in it, and
// each network that has one of those in it. What an entry is worth is what its fields are worth:
//
//   - name, cmdline and parent are chosen by whoever starts a process, and are no protection
//     from malware but immunity for it, unless something else stands beside them.
//   - exe counts where root has mounted the path, so that nobody can bring it about in
//     namespaces of his own. Whoever is root in a container that is not in a user namespace of
//     its own can: name its cgroup as well. In rootless containers it never counts.
//   - sha256 is what the process runs, read through /proc/PID/exe, whatever stands at the path.
//     It counts where exe does, so that no file system of a user's is asked, and for 512 MiB at
//     most. Reading takes the right to: without it whoever forbids to read his program is
//     refused, so put exe beside it. It is worked out once for each version of a file.
//   - uid is the effective user; cgroup is that of version 2 or systemd's, which takes rights
//     to get into.
//
// Each responder has a list of its own: give all of a host the same.
//
// What cannot be read is a refusal; of an entry, only where nothing that can be read of it is
// untrue. Answers about processes are read anew each time, but for who is above Riposte: that is
// read again when one of them has exited, which a descriptor of each tells (pidfd_open(2)). Facts
// about addresses are at most a second old.
package guard
