package collect

import (
	"errors"
	"fmt"
	"time"

	"daemoneye.dev/procmond/collect/event"
)

// Bounds and defaults of [Settings].
const (
	MinInterval     = 5 * time.Second
	MaxInterval     = time.Hour
	DefaultInterval = 30 * time.Second

	DefaultMemoryThreshold = 50.0
	DefaultCPUThreshold    = 50.0

	maxMinLifetime     = time.Hour
	maxMemoryThreshold = 100_000.0
	maxCPUThreshold    = 100_000.0
)

// Settings is what the operator tunes.
type Settings struct {
	// Interval is from the begin of one scan to the begin of the next.
	Interval time.Duration
	// MinLifetime holds back the start of a process until it is that old; one
	// that ends earlier is counted and not reported. 0 is off.
	MinLifetime time.Duration
	// MemoryThreshold is the change of the resident memory that is reported, in
	// percent of the last reported value (and at least 4 MiB). 0 is off.
	MemoryThreshold float64
	// CPUThreshold is the change of the CPU usage that is reported, in points of
	// one core, as the mean between two scans. 0 is off.
	CPUThreshold float64
	// MaxProcesses is how many living processes are reported on. 0 is no limit.
	MaxProcesses int
	// Exclude are the processes that are not reported on.
	Exclude Scope
	// Redactor covers secrets in arguments before they are compared or stored.
	// Nil covers nothing.
	Redactor *event.Redactor
}

// DefaultSettings are those of a daemon that nobody tuned.
func DefaultSettings() Settings {
	return Settings{
		Interval:        DefaultInterval,
		MemoryThreshold: DefaultMemoryThreshold,
		CPUThreshold:    DefaultCPUThreshold,
	}
}

// Validate names every fault.
func (s *Settings) Validate() error {
	faults := []error{
		inBounds("collection interval", s.Interval, MinInterval, MaxInterval),
		inBounds("minimal process lifetime", s.MinLifetime, 0, maxMinLifetime),
		inBounds("memory change threshold", s.MemoryThreshold, 0, maxMemoryThreshold),
		inBounds("CPU change threshold", s.CPUThreshold, 0, maxCPUThreshold),
	}
	if s.MaxProcesses < 0 {
		faults = append(faults, fmt.Errorf("maximum of processes %d is negative", s.MaxProcesses))
	}
	return errors.Join(faults...)
}

// inBounds refuses NaN too.
func inBounds[T time.Duration | float64](what string, v, low, high T) error {
	if v >= low && v <= high {
		return nil
	}
	return fmt.Errorf("%s is %v: want %v to %v", what, v, low, high)
}
