package tree

import (
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/sirupsen/logrus"
)

// Defaults of Config.
const (
	DefaultStopTimeout      = 10 * time.Second
	DefaultFailureThreshold = 5
	DefaultFailureDecay     = 30 * time.Second
	DefaultFailureBackoff   = 5 * time.Second
)

// Config is how a tree treats its services. Zero values stand for the defaults.
type Config struct {
	Log              *logrus.Entry // starts, failures, panics, back-offs; nil: nowhere
	Deadline         time.Duration // progress deadline of services that name none; 0: they are not watched
	StopTimeout      time.Duration // how long Stop waits for services that name no time
	FailureThreshold int           // failures that are followed by an immediate start
	FailureDecay     time.Duration // half-life of a failure
	FailureBackoff   time.Duration // least rest after too many failures; a random half is added at most
}

// Validate names every fault of c.
func (c Config) Validate() error {
	var faults []error
	durations := []struct {
		name  string
		value time.Duration
	}{
		{"deadline", c.Deadline},
		{"stop timeout", c.StopTimeout},
		{"failure decay", c.FailureDecay},
		{"failure back-off", c.FailureBackoff},
	}
	for _, d := range durations {
		if d.value < 0 {
			faults = append(faults, fmt.Errorf("%s is negative: %s", d.name, d.value))
		}
	}
	if c.FailureThreshold < 0 {
		faults = append(faults, fmt.Errorf("failure threshold is negative: %d", c.FailureThreshold))
	}
	return errors.Join(faults...)
}

func (c Config) withDefaults() Config {
	if c.Log == nil {
		silent := logrus.New()
		silent.SetOutput(io.Discard)
		c.Log = logrus.NewEntry(silent)
	}
	if c.StopTimeout == 0 {
		c.StopTimeout = DefaultStopTimeout
	}
	if c.FailureThreshold == 0 {
		c.FailureThreshold = DefaultFailureThreshold
	}
	if c.FailureDecay == 0 {
		c.FailureDecay = DefaultFailureDecay
	}
	if c.FailureBackoff == 0 {
		c.FailureBackoff = DefaultFailureBackoff
	}
	return c
}

// Options is how one service is treated.
type Options struct {
	Deadline time.Duration // longest time between beats; 0: Config.Deadline; negative: not watched
	Timeout  time.Duration // how long Stop waits when it is not told; 0: Config.StopTimeout
	Progress *Progress     // the service's own, made beforehand; nil: Add makes one
}
