package broker

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"sync/atomic"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/sirupsen/logrus"
)

// serverLog is the server's logger ([server.Logger]). It is also the only public way
// to learn of what the server refuses a client.
type serverLog struct {
	log      *logrus.Entry
	refusals *refusals
	clients  *clients
	// fault is the last error of the server itself, nil if there was none.
	fault atomic.Pointer[string]
	// fatal is why it can't go on, nil while it can.
	fatal atomic.Pointer[string]
}

// The ends of the formats with which the server (client.go, v2.15) logs what a client
// did; a test provokes each. Authentication is counted where it is decided.
const (
	formatPublish   = "Publish Violation - Subject %q"
	formatReply     = "Publish Violation - Reply %q"
	formatSubscribe = " - Subscription Violation"
	formatSlow      = "Slow Consumer Detected"
)

// clientID finds the server's number of a client in front of a message, before any
// text that the client chose.
var clientID = regexp.MustCompile(`^[^"]*? - cid:(\d+)`)

func (l *serverLog) Noticef(format string, v ...any) {
	text := fmt.Sprintf(format, v...)
	if found := clientID.FindStringSubmatch(text); found != nil && strings.Contains(format, formatSlow) {
		l.count(ReasonSlow, found[1])
	}
	l.log.Debug(text)
}

func (l *serverLog) Warnf(format string, v ...any) { l.log.Warnf(format, v...) }

func (l *serverLog) Errorf(format string, v ...any) {
	text := fmt.Sprintf(format, v...)
	if found := clientID.FindStringSubmatch(text); found != nil {
		l.ofClient(format, text, found[1])
		l.log.Debug(text)
		return
	}
	l.fault.Store(&text)
	l.log.Error(text)
}

// ofClient counts what a client was refused. The end of the format is the server's
// own; of the text, some is the client's, who can thereby only change what it is
// itself counted for.
func (l *serverLog) ofClient(format, text, id string) {
	switch {
	case strings.HasSuffix(format, formatPublish):
		l.count(ReasonPublish, id)
	case strings.HasSuffix(format, formatReply):
		l.count(ReasonReply, id)
	case strings.Contains(format, formatSubscribe):
		l.count(ReasonSubscribe, id)
	case strings.Contains(text, server.ErrMaxPayload.Error()):
		l.count(ReasonPayload, id)
	case !strings.Contains(text, server.ErrAuthentication.Error()):
		l.count(ReasonProtocol, id)
	}
}

func (l *serverLog) count(reason, id string) {
	number, _ := strconv.ParseUint(id, 10, 64) // digits, by the expression
	l.refusals.count(reason, l.clients.who(number))
}

// Fatalf only takes note: a server is no reason to end the agent.
func (l *serverLog) Fatalf(format string, v ...any) {
	text := fmt.Sprintf(format, v...)
	l.fatal.Store(&text)
	l.log.Error(text)
}

func (l *serverLog) Debugf(format string, v ...any) { l.log.Tracef(format, v...) }

func (l *serverLog) Tracef(string, ...any) {}

// lastFault is "" if there was none.
func (l *serverLog) lastFault() string {
	if text := l.fault.Load(); text != nil {
		return *text
	}
	return ""
}
