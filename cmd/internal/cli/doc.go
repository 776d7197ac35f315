// Package cli is what the programs of this module share at a terminal: faults of a
// command line, logs for people, text that does nothing to a terminal, tables,
// completion scripts.
package cli
