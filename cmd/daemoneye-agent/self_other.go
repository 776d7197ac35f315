//go:build !linux

package main

import "os"

// selfPath is this program.
func selfPath() (string, error) { return os.Executable() }
