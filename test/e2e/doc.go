// Package e2e holds what is asked of Riposte as a whole: tests that run the binary as its
// users do, as processes of their own against a real redis-server, and that believe only
// what can be seen from outside: processes, the firewall, Redis, files, exit codes, and
// what the commands print.
//
// Where something is contained for real, the test runs again inside namespaces of its own
// (package namespace), and everything it stops there it has started itself.
package e2e
