//go:build !linux || !(amd64 || arm64)

package kernel

import "runtime"

// OpenBPF fails: there are programs for Linux on amd64 and arm64 only.
func OpenBPF(Config) (Source, error) {
	return nil, &Unavailable{
		Source: "ebpf", Reason: ReasonSystem,
		What: "there are no programs for " + runtime.GOOS + " on " + runtime.GOARCH,
	}
}
