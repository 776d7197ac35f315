package broker

import (
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"runtime"
	"time"

	"github.com/sirupsen/logrus"

	"daemoneye.dev/procmond/bus/unixsock"
)

// The defaults of Config.
const (
	DefaultMaxBytes   = 1 << 30
	DefaultMaxAge     = 7 * 24 * time.Hour
	DefaultDuplicates = 2 * time.Minute
	DefaultServerName = "daemoneye-agent"
)

// PositionEvery is how often positions are recorded, at most, while events come in.
const PositionEvery = 10 * time.Second

// The limits of connections.
const (
	// MaxConnections bounds the connections over the socket.
	MaxConnections = 256
	// MaxListenerConnections bounds those over TCP. They have places of their own:
	// whoever reaches the port can hold one for as long as a handshake may take.
	MaxListenerConnections = 64
	// MaxUserConnections bounds those of one user. A collector has two, and for a
	// moment twice as many while it is restarted.
	MaxUserConnections = 32
	// MaxPayload bounds a message with its headers, in bytes. Events and requests are
	// far smaller; a request of 1 MiB still reaches who answers it with a clear error.
	MaxPayload = 1<<20 + 64<<10
)

// NoGroup is a Config.Group, or an Enrollment.Group, that is none.
const NoGroup = unixsock.NoGroup

// Config says where the broker is and what it keeps.
type Config struct {
	// Socket is the path of the Unix socket. Its directory is made if needed; the
	// directory of secrets lies in it.
	Socket string
	// Group owns the socket, and its processes may connect. NoGroup is none.
	Group int
	// AllowUIDs may connect beside root and the own user.
	AllowUIDs []int
	// Store is the directory of JetStream, of this broker alone. It is made, mode
	// 0700, if needed.
	Store string
	// Listen is a "host:port" on which readers and the operator may connect too, or "".
	Listen string
	// TLSCert and TLSKey are PEM files, both or none. Required if the host of Listen
	// is not loopback.
	TLSCert, TLSKey string
	// MaxBytes bounds the stream of events, in bytes on disk. 0 is DefaultMaxBytes.
	MaxBytes int64
	// MaxAge bounds the age of an event. 0 is DefaultMaxAge.
	MaxAge time.Duration
	// Duplicates is how long the stream remembers the ids of events. 0 is
	// DefaultDuplicates, or MaxAge if that is shorter.
	Duplicates time.Duration
	// ServerName and Version are shown to clients. "" is DefaultServerName, and none.
	ServerName, Version string
	// Log is required.
	Log *logrus.Entry

	pace pace // tests are in a hurry
}

// pace says how often the services look.
type pace struct {
	check     time.Duration // the server's own health
	upkeep    time.Duration // the stream's state
	positions time.Duration
	rate      time.Duration // the time over which rates are taken
	handshake time.Duration // until a client has said who it is, or has read why it may not come in
	write     time.Duration // until a client that reads nothing is dropped
}

var defaultPace = pace{
	check: time.Second, upkeep: 2 * time.Second, positions: PositionEvery,
	rate: time.Minute, handshake: 5 * time.Second, write: 15 * time.Second,
}

// Validate returns every fault of c, joined, or nil.
func (c Config) Validate() error {
	var faults []error
	fault := func(bad bool, format string, args ...any) {
		if bad {
			faults = append(faults, fmt.Errorf(format, args...))
		}
	}
	fault(!filepath.IsAbs(c.Socket), "socket %q: want an absolute path", c.Socket)
	fault(len(c.Socket) > maxSocketPath(), "socket %q: path is longer than the %d bytes that the system allows", c.Socket, maxSocketPath())
	fault(!filepath.IsAbs(c.Store), "store %q: want an absolute path", c.Store)
	fault(c.Group < NoGroup, "group %d: want a group's number, or %d", c.Group, NoGroup)
	for _, uid := range c.AllowUIDs {
		fault(uid < 0, "allowed user %d: want a user's number", uid)
	}
	fault(c.MaxBytes < 0, "maximum size of the stream %d: want a number of bytes", c.MaxBytes)
	fault(c.MaxAge < 0, "maximum age of events %v: want a duration", c.MaxAge)
	fault(c.MaxAge > 0 && c.MaxAge < minMaxAge, "maximum age of events %v: want %v at least", c.MaxAge, minMaxAge)
	fault(c.Duplicates < 0, "duplicate window %v: want a duration", c.Duplicates)
	fault(c.Duplicates > c.maxAge(), "duplicate window %v: want no more than the maximum age of events, %v", c.Duplicates, c.maxAge())
	fault(c.Log == nil, "log is missing")
	return errors.Join(append(faults, c.validateListen()...)...)
}

// minMaxAge is as short as the server's own smallest duplicate window needs.
const minMaxAge = time.Second

func (c Config) validateListen() (faults []error) {
	if (c.TLSCert == "") != (c.TLSKey == "") {
		faults = append(faults, errors.New("TLS: want a certificate and a key, or neither"))
	}
	if c.Listen == "" {
		return faults
	}
	host, _, err := net.SplitHostPort(c.Listen)
	if err != nil {
		return append(faults, fmt.Errorf("listen %q: want host:port: %w", c.Listen, err))
	}
	if !loopback(host) && (c.TLSCert == "" || c.TLSKey == "") {
		faults = append(faults, fmt.Errorf("listen %q: is not loopback: want a TLS certificate and key", c.Listen))
	}
	return faults
}

// loopback is false for every name but one: what a name means can change.
func loopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

func (c Config) maxAge() time.Duration {
	if c.MaxAge == 0 {
		return DefaultMaxAge
	}
	return c.MaxAge
}

// withDefaults fills in what was left out.
func (c Config) withDefaults() Config {
	c.MaxAge = c.maxAge()
	if c.MaxBytes == 0 {
		c.MaxBytes = DefaultMaxBytes
	}
	if c.Duplicates == 0 {
		c.Duplicates = min(DefaultDuplicates, c.MaxAge)
	}
	if c.ServerName == "" {
		c.ServerName = DefaultServerName
	}
	if c.pace == (pace{}) {
		c.pace = defaultPace
	}
	return c
}

// maxSocketPath is what fits into sockaddr_un with its final zero byte: 108 bytes on
// Linux (unix(7)), 104 on the BSDs and macOS.
func maxSocketPath() int {
	if runtime.GOOS == "linux" {
		return 107
	}
	return 103
}
