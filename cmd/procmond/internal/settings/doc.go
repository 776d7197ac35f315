// Package settings knows every setting of the daemon: one table ([Table]) gives
// each its flag, environment variable, key of the configuration file, default,
// limits and help, and everything else is made from it: the flags, [Resolve],
// docs/configuration.md and the completion scripts.
//
// A flag wins over the environment, the environment over the file, the file over
// the default. All three are checked whole, whatever wins: [Resolve] names every
// fault there is, each with the place where it stands.
//
// The package reads one file and starts nothing.
package settings
