package main

import (
	"daemoneye.dev/procmond/collect"
	"daemoneye.dev/procmond/collect/procfs"
)

func newProcfsScanner() (collect.Scanner, error) { return procfs.New(procfs.Config{}) }
