// Package scantest says what every source of snapshots on Linux must see, in tests
// that each source runs: of made-up hosts, and of live processes of every kind
// that package zoo keeps.
package scantest
