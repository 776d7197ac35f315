// Package procfile parses the files of a process in /proc, for the sources that
// read them. It reads nothing itself and trusts nothing that it is given: a
// process chooses its name and arguments, and a fixture may hold anything.
//
// What a function returns may point into its argument where it says so; it
// allocates only what it returns otherwise.
package procfile
