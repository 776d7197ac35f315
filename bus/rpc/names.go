package rpc

import (
	"errors"
	"fmt"
	"path/filepath"
	"strconv"
	"strings"

	"daemoneye.dev/procmond/collect/event"
)

// EnvSocket names the broker's Unix socket. A collector that finds it in its
// environment is coordinated.
const EnvSocket = "DAEMONEYE_BROKER_SOCKET"

// DefaultID is the id of a collector that was given none.
const DefaultID = "procmond"

// The stream of events, and the subjects that it takes.
const (
	Stream         = "PROCESS_EVENTS"
	StreamSubjects = "events.process.>"
)

// Subjects that are not a collector's own.
const (
	// SubjectLifecycle carries what the agent says to all collectors: a [Request]
	// with [OpBeginMonitoring], which nobody answers.
	SubjectLifecycle = "control.collector.lifecycle"
	// SubjectAgent takes requests to the agent itself, from its operator.
	SubjectAgent = "control.agent"
	// SubjectHeartbeats and SubjectRegistrations are what the agent listens to.
	SubjectHeartbeats    = "control.health.heartbeat.*"
	SubjectRegistrations = "control.collector.registration.*"
)

// RegistrationSubject takes a collector's [OpRegister], [OpDeregister] and [OpLast].
// The id is part of it so that the broker's permissions prove who asks.
func RegistrationSubject(id string) string { return "control.collector.registration." + id }

// CollectorSubject takes the requests to one collector.
func CollectorSubject(id string) string { return "control.collector." + id }

// HeartbeatSubject takes a collector's [Heartbeat].
func HeartbeatSubject(id string) string { return "control.health.heartbeat." + id }

// EventSubject takes events of one kind, host and collector.
func EventSubject(kind event.Kind, host, id string) string {
	return "events.process." + kind.String() + "." + host + "." + id
}

// EventSubjectsOf matches all events of a collector.
func EventSubjectsOf(id string) string { return "events.process.*.*." + id }

// InboxPrefix begins the subjects on which a user takes answers, without the dot at
// its end. The broker permits no other, but for the operator.
func InboxPrefix(user string) string {
	if name, ok := ReaderOf(user); ok {
		return "_INBOX_READER." + name
	}
	if user == UserOperator {
		return "_INBOX_OPERATOR"
	}
	return "_INBOX." + user
}

// Users of the broker. A collector's user name is its id; ids hold no dot, so the
// others can't be taken for one.
const (
	readerSuffix = ".reader"
	// UserOperator is whoever runs the agent's client commands.
	UserOperator = "agent.operator"
)

// ReaderUser is the user name of an enrolled reader.
func ReaderUser(name string) string { return name + readerSuffix }

// ReaderOf is the reverse of [ReaderUser].
func ReaderOf(user string) (name string, ok bool) {
	name, ok = strings.CutSuffix(user, readerSuffix)
	return name, ok && ValidID(name) == nil
}

// SecretPath is the file that holds a user's secret: text, with spaces around it
// ignored. It lies beside the broker's socket.
func SecretPath(socket, user string) string {
	return filepath.Join(filepath.Dir(socket), "secrets", user)
}

// ErrID reports an id that can not be one.
var ErrID = errors.New("want 1 to 64 of A-Z a-z 0-9 _ -, and neither registration nor lifecycle")

// ValidID checks the id of a collector, or the name of a reader: both are tokens of
// subjects and names of files.
func ValidID(id string) error {
	plain := len(id) >= 1 && len(id) <= 64 && strings.IndexFunc(id, func(r rune) bool {
		return (r < 'A' || r > 'Z') && (r < 'a' || r > 'z') && (r < '0' || r > '9') && r != '_' && r != '-'
	}) < 0
	if !plain || id == "registration" || id == "lifecycle" {
		return fmt.Errorf("id %q: %w", id, ErrID)
	}
	return nil
}

// MsgID names an event for ever: `<epoch>.<seq>`. It is the Nats-Msg-Id of its
// message.
func MsgID(epoch event.Epoch, seq uint64) string {
	return MsgIDPrefix(epoch) + strconv.FormatUint(seq, 10)
}

// MsgIDPrefix begins the [MsgID] of each event of an epoch; its sequence in decimal
// follows.
func MsgIDPrefix(epoch event.Epoch) string { return epoch.String() + "." }

// ParseMsgID is the reverse of [MsgID].
func ParseMsgID(id string) (event.Epoch, uint64, error) {
	text, number, _ := strings.Cut(id, ".")
	epoch, err := event.ParseEpoch(text)
	if err != nil {
		return event.Epoch{}, 0, fmt.Errorf("message id %q: %w", id, err)
	}
	seq, err := strconv.ParseUint(number, 10, 64)
	if err != nil || seq == 0 || strconv.FormatUint(seq, 10) != number {
		return event.Epoch{}, 0, fmt.Errorf("message id %q: no sequence after the epoch", id)
	}
	return epoch, seq, nil
}
