package event

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"regexp"
)

// ID names one process for ever: no other process of any host has it, and it
// does not change while the process lives. See [Identity].
type ID [16]byte

// Epoch names one store from its creation to its end.
type Epoch [16]byte

// Identity is what an [ID] is made from. None of it comes from the wall clock.
type Identity struct {
	HostID       string
	BootID       string
	PIDNamespace uint64 // inode of the daemon's own PID namespace; 0 where there is none
	PID          int32
	StartTicks   uint64
	Generation   uint32
}

// ID derives the process id: the first 128 bits of the SHA-256 of the fields,
// each string with its length before it.
func (i Identity) ID() ID {
	var buf [256]byte
	b := append(buf[:0], "procmond process id 1\x00"...)
	b = appendString(b, i.HostID)
	b = appendString(b, i.BootID)
	b = binary.BigEndian.AppendUint64(b, i.PIDNamespace)
	b = binary.BigEndian.AppendUint32(b, uint32(i.PID))
	b = binary.BigEndian.AppendUint64(b, i.StartTicks)
	b = binary.BigEndian.AppendUint32(b, i.Generation)
	sum := sha256.Sum256(b)
	return ID(sum[:16])
}

func appendString(b []byte, s string) []byte {
	b = binary.BigEndian.AppendUint32(b, uint32(len(s)))
	return append(b, s...)
}

func (id ID) String() string { return hex.EncodeToString(id[:]) }

// IsZero reports whether the id names no process.
func (id ID) IsZero() bool { return id == ID{} }

func (e Epoch) String() string { return hex.EncodeToString(e[:]) }

// IsZero reports whether the epoch names no store.
func (e Epoch) IsZero() bool { return e == Epoch{} }

// NewEpoch returns a random epoch.
func NewEpoch() Epoch {
	var e Epoch
	_, _ = rand.Read(e[:]) // never fails: crypto/rand ends the process instead
	return e
}

// ParseID reads the hexadecimal form of an [ID]. The zero id names no process, so
// that a condition with it would be none: it is refused.
func ParseID(s string) (ID, error) {
	b, err := parse128(s)
	if err != nil {
		return ID{}, fmt.Errorf("parse process id %q: %w", s, err)
	}
	return ID(b), nil
}

// ParseEpoch reads the hexadecimal form of an [Epoch], which is never zero.
func ParseEpoch(s string) (Epoch, error) {
	b, err := parse128(s)
	if err != nil {
		return Epoch{}, fmt.Errorf("parse epoch %q: %w", s, err)
	}
	return Epoch(b), nil
}

func parse128(s string) (b [16]byte, err error) {
	if len(s) != 2*len(b) {
		return b, fmt.Errorf("want %d hexadecimal digits, have %d characters", 2*len(b), len(s))
	}
	_, err = hex.Decode(b[:], []byte(s))
	if err == nil && b == [16]byte{} {
		err = errors.New("all zero names nothing")
	}
	return b, err
}

// machineKey keys the hash of the machine id, so that host ids can be published
// while the machine id stays private (machine-id(5) asks for this).
const machineKey = "procmond host id 1"

// HostIDFromMachine derives a host id from the machine's own id.
func HostIDFromMachine(machineID string) string {
	h := hmac.New(sha256.New, []byte(machineID))
	h.Write([]byte(machineKey))
	return hex.EncodeToString(h.Sum(nil)[:16])
}

// RandomHostID returns a host id for a machine that has no id of its own.
func RandomHostID() string { return NewEpoch().String() }

// ValidHostID reports why s can not be a host id: it must have 1 to 64
// characters of A-Z, a-z, 0-9, '_' and '-', because it is one token of the
// broker's subjects.
func ValidHostID(s string) error {
	if !regexp.MustCompile(`^[A-Za-z0-9_-]{1,64}$`).MatchString(s) {
		return fmt.Errorf("host id %q: want 1 to 64 characters of A-Z, a-z, 0-9, _ and -", s)
	}
	return nil
}
