// Procmond records every start, exec, change and exit of a process on this host
// in a crash-safe store, and can always say what state it is in and why.
//
// This package is the program's outside: flags, files, privileges, exit codes,
// signals and what people read on a terminal. The work is done in the packages
// that it connects; see docs/architecture.md. Only this package ends the process.
package main
