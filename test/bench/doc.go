// Command bench compares Riposte with the queues people would pick instead, with the
// original design, and with the floor: what Redis or the kernel costs with nothing on top.
// One command makes one run and prints one table; every number in it was measured in it.
//
//	cd test/bench
//	go run .                        # everything, about 40 minutes on two quiet cores
//	go run . -only 'throughput'     # some of it
//	go run . -json results.json     # with every round, not only the medians
//	go run . -short                 # everything once and tiny, as CI does
//
// It needs Linux, root in the initial namespaces (for the sensor's events), redis-server,
// busybox, and a python3 with redis and psutil (Debian: redis-server busybox-static
// python3-redis python3-psutil). It starts its own Redis, ends no process that it did not
// start, blocks no address, and leaves nothing behind. It is a module of its own, so that
// peers never enter ours.
//
// # Fairness
//
// All contenders take turns on one redis-server, and each round has every contender in it,
// so that what else the machine does hits all of them alike. Each worker is a process of
// its own, each contender has as many, and each alert has the same JSON of some 400 B.
//
//   - riposte is the binary as users get it, in enforce mode, with its ledger, gate and
//     receipts and the default lease. Its no-op effect is a line of log to a file in memory.
//   - asynq is hibiken/asynq with concurrency 64, its handler a return.
//   - watermill is ThreeDotsLabs/watermill-redisstream with its default options and 16
//     subscriptions a process, for one handles one message at a time; of 1, 4, 16 and 64 that
//     is where an alert takes the least CPU. It acks after its handler.
//   - python is the original design: a Pub/Sub subscriber that terminates the process an
//     alert names, and keeps no record.
//   - floor is, for throughput, XREADGROUP COUNT 100 and one XACK for the hundred; for
//     publish, XADD; for the response, the publisher's own kill.
//
// # What counts
//
// What is printed is the median of the rounds; with -json each of them stands beside it.
// Percentiles are of single alerts. Below the table stands what bounds a row: the CPU of
// Redis's main thread and of the workers, and which commands took most of it; what a script
// calls is counted in the script's time and in its own.
//
// Throughput is taken between 10 % and 90 % of a backlog, so that neither the start of
// processes nor the last stragglers count. After each drain the contender's own books must
// say that all were handled and nothing else; a run with a wrong result fails. The short
// form fails on wrong results alone, never on timing.
//
// Not measured: many hosts that all have alerts at the same time. A process serves one host,
// so that would be hundreds of processes on a few cores, and show those.
package main
