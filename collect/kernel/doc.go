// Package kernel tells what the kernel tells of processes: each fork, exec and exit,
// however short a process lives.
//
// # Sources
//
// [OpenBPF] attaches eBPF programs to the tracepoints of fork, exec and exit. They
// copy what is known at that moment, arguments and file name among them, into a ring,
// which nobody is woken for: [Source.Read] empties it, some 20 to 100 times a second. A
// reader that rests ([Source.Rest]) is woken, by the first record after that.
// It needs CAP_BPF, CAP_PERFMON and a kernel with BTF.
//
// [OpenConnector] listens to the kernel's process connector, which names a process and
// says no more; the rest is read from /proc at once, by a thread of its own that goes
// before others. What is gone by then is missing, and the record says so. It needs no
// privilege since Linux 6.6, before that CAP_NET_ADMIN, and the initial PID and user
// namespaces.
//
// # What is promised
//
// Only processes are told of, not threads: leaders of thread groups, as /proc lists
// them; an exec by another thread is one of its process. Records of one process that
// happened on one CPU are in order. Those of several CPUs may not be: each has the
// time at which it happened, on the clock that start times are on (CLOCK_BOOTTIME), and
// the reader puts them in order.
//
// Nothing is lost in silence. Whoever can not keep up loses records, which are
// counted by kind, if the source can tell; [Batch.Lost] has what was lost since the
// call before.
package kernel
