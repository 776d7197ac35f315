// Package hash digests the executables of processes with SHA-256, without ever
// making anybody wait for a file.
//
// [Hasher] is the [collect.Hasher] of the collector. A digest is computed once
// for each file and kept, by what tells a file from all others and from itself
// before a change: device, inode, size, and the times of the last modification
// and change. Where these can not tell (a file system in memory, whose mapped
// pages change without a trace; a file that changed a moment ago) nothing is kept.
//
// On Linux a file is reached through /proc/PID/exe: that is the file which the
// process runs, also if it was deleted or replaced since, or never had a name.
// A directory of /proc that is held open, and the start time in it, prove that
// the PID was not used again meanwhile. Elsewhere the file is reached by its path,
// and is believed if it is older than the process.
//
// # What it costs
//
// One file is read at a time, at no more than a number of bytes per second, and
// no file above a size or beyond a deadline. Calls that touch a file are made on a
// goroutine of their own, which is left behind when a file system does not
// answer; while too many are left behind, no more files are touched.
//
// # What can be lost
//
// Nothing that matters: what finds no room is counted, its process stays
// pending, and the collector asks for it again at its next scan.
package hash
