package hash

import (
	"errors"
	"fmt"
	"time"

	"github.com/sirupsen/logrus"
)

// Defaults and bounds of [Config].
const (
	DefaultMaxSize  = 512 << 20        // bytes
	DefaultRate     = 32 << 20         // bytes per second: some 3 % of one core
	DefaultDeadline = 60 * time.Second // for a file of the default maximal size the rate asks for 16 s

	defaultEntries = 4096
	defaultQueue   = 16384
	defaultResults = 16384
)

// Progress is told that the service moves, and what it turns to.
type Progress interface {
	Beat(activity string)
}

// Config is what a [Hasher] is made from. Zero values are the defaults.
type Config struct {
	// Proc is where the process file system is mounted; Linux only.
	Proc string
	// MaxSize is the size of the largest file that is read, in bytes.
	MaxSize int64
	// Rate is how many bytes are read per second, on average.
	Rate int64
	// Deadline is how long one file may take, the time that Rate asks for included.
	Deadline time.Duration
	Progress Progress // nil: nobody is told
	Log      *logrus.Entry

	// How many digests are kept, how many processes may wait, and how many
	// results may wait to be taken. Tests make them small.
	entries, queue, results int
	host                    host // nil: this one
}

// Validate names every fault.
func (c *Config) Validate() error {
	var faults []error
	if c.Log == nil {
		faults = append(faults, errors.New("log is missing"))
	}
	if c.MaxSize < 1 {
		faults = append(faults, fmt.Errorf("maximal size %d is not positive", c.MaxSize))
	}
	if c.Rate < 1 {
		faults = append(faults, fmt.Errorf("rate %d is not positive", c.Rate))
	} else if need := c.atRate(); need >= c.Deadline {
		faults = append(faults, fmt.Errorf("a file of %d bytes takes %v at %d bytes per second, which is not within the deadline of %v",
			c.MaxSize, need.Round(time.Second), c.Rate, c.Deadline))
	}
	return errors.Join(faults...)
}

func (c *Config) setDefaults() {
	setDefault(&c.Proc, "/proc")
	setDefault(&c.MaxSize, DefaultMaxSize)
	setDefault(&c.Rate, DefaultRate)
	setDefault(&c.Deadline, max(DefaultDeadline, c.atRate()*2))
	setDefault(&c.entries, defaultEntries)
	setDefault(&c.queue, defaultQueue)
	setDefault(&c.results, defaultResults)
	if c.Progress == nil {
		c.Progress = unwatched{}
	}
	if c.host == nil {
		c.host = newHost(c.Proc)
	}
}

// atRate is how long the largest file takes.
func (c *Config) atRate() time.Duration {
	if c.Rate < 1 {
		return 0
	}
	return time.Duration(float64(c.MaxSize) / float64(c.Rate) * float64(time.Second))
}

func setDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

// unwatched is the Progress that nobody looks at.
type unwatched struct{}

func (unwatched) Beat(string) {}
