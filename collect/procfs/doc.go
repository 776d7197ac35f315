// Package procfs takes snapshots of the process table from Linux's /proc, with
// as few system calls as the kernel allows and without a right that an ordinary
// user lacks.
//
// # Cost
//
// A known process costs one reading of its stat file and no memory. It is read
// whole only if that shows something new, or when its turn comes, once in 30
// scans; it is reported whole only if something was new then.
//
// # Identity
//
// A process is its PID and field 22 of stat. It is read whole through a
// descriptor of its own directory, which never turns into that of another process
// with the same PID, and its stat is read again last: then the record is of one
// process and one image. An exec keeps the PID and the start; it is seen by the
// new addresses of the image, where the kernel shows them (one's own processes,
// or all of them with CAP_SYS_PTRACE), else as a change of name, or of whatever
// else has changed when its turn comes.
//
// # Hanging
//
// Arguments and environment are read from the memory of the process, behind a lock
// that a stuck process can hold for ever. Whoever reads them is watched: after [Config.Patience]
// the scan goes on with another goroutine, at the same process, without what hangs.
// The mask says so. At most [Config.MaxHung] goroutines are left behind in this way;
// while there are so many, no arguments are read at all. Each ends as soon as the
// kernel answers, and touches nothing that is not its own.
//
// # Enhanced metadata
//
// With [Config.Enhanced] reading a process whole also reads its directory, control
// group, namespaces, login and, of its environment, the variables that [Config.Env]
// names. A known process costs a second file in each scan, statm, if this kernel has
// the exact resident size there: a size that is exact in one scan and approximate in
// the next would look like a change. It is read before stat, which then proves whose
// it was.
//
// # What it can not see
//
//   - What starts and ends between two scans.
//   - That a PID was used again within the clock tick in which its first owner
//     started, if no scan fell between: both are one process then, and an exec of it
//     if their images differ.
//   - User ids, capabilities and arguments that a process changes in place are seen
//     when its turn comes; so is whatever [Config.Enhanced] adds.
//   - RSS is the one in stat, which the kernel adds up from counters that lag behind
//     by some dozens of pages for each CPU, unless [Scanner.RSSKind] says otherwise.
//   - Arguments over 256 KiB or 4096 in number are cut, and the mask says so.
//
// What could not be read stands in the record's mask; see
// [daemoneye.dev/procmond/collect/portable], which gives the same records.
package procfs
