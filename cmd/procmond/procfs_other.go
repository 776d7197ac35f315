//go:build !linux

package main

import "daemoneye.dev/procmond/collect"

// newProcfsScanner returns nil: there is no such source here.
func newProcfsScanner() (collect.Scanner, error) { return nil, nil }
