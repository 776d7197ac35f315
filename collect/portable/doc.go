// Package portable takes snapshots of the process table through gopsutil, so
// that procmond works wherever gopsutil does.
//
// # Cost
//
// gopsutil reads the same files again for each attribute. A [Scanner] therefore
// asks it only about processes that are new, that have changed, or whose turn
// has come: each process is read whole once in 30 scans. What is known of all
// others is kept. On Linux one read of /proc/PID/stat, by a parser of our own,
// tells which is which and gives the volatile fields.
//
// # Identity
//
// On Linux a process is its PID and field 22 of stat, the clock ticks from boot
// to its start; gopsutil's CreateTime moves with the wall clock and is not used.
// Elsewhere CreateTime is what the system keeps itself, in milliseconds. A whole
// record is proved to be of one process by reading its start once more, last.
//
// # What it can not see
//
//   - What starts and ends between two scans.
//   - On Linux, that a PID was used again within the clock tick in which its first
//     owner started, if no scan fell between: both are one process then, and an exec
//     of it if their images differ.
//   - On Linux, an exec is seen by the new addresses of its image. Where the
//     kernel hides them (processes of other users, without CAP_SYS_PTRACE) or
//     does not choose new ones (address randomisation off, same executable,
//     equally long arguments), an exec looks like a change of name and arguments.
//   - Arguments and user ids that a process changes in place are seen when its
//     turn comes, within 30 scans.
//   - RSS on Linux is the one in stat, which the kernel adds up from counters
//     that lag behind by some dozens of pages for each CPU.
//   - Arguments over 256 KiB or 4096 in number are cut, and the mask says so.
//   - Elsewhere than on Linux the state is unknown, since gopsutil would run ps
//     for it, and what else is not given stands in the mask as unsupported. On
//     macOS a process whose first argument is empty shows its first environment
//     variable as an argument: the kernel does not tell them apart.
//
// What could not be read stands in the record's mask, so a caller that compares
// two records must take an absent field as unknown, not as empty: a process that
// has become a zombie has no executable and no arguments any more.
package portable
