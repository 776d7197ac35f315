//go:build !linux

package main

// dropProgramPages does nothing here: the kernel counts and reclaims these pages in
// its own way.
func dropProgramPages() error { return nil }

// dropZeros does nothing here, for the same reason.
func dropZeros([]byte) error { return nil }
