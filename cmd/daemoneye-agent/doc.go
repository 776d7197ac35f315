// Daemoneye-agent coordinates the collectors of this host: it runs the broker that
// they deliver their events to, starts and watches them, and tells them when to begin.
//
// This package is the program's outside: flags, files, privileges, exit codes,
// signals and what people read on a terminal. The work is done in bus/broker and
// bus/agent. Only this package ends the process.
package main
