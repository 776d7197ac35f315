// Package sdnotify tells the service manager (systemd, or whoever listens at
// NOTIFY_SOCKET) how the daemon is: sd_notify(3). Without NOTIFY_SOCKET every
// call does nothing. It starts no goroutine; a call blocks only while the manager
// leaves its queue full.
package sdnotify

import (
	"fmt"
	"strings"
	"sync"

	"github.com/coreos/go-systemd/v22/daemon"
	"github.com/sirupsen/logrus"
)

// Notifier sends notices. It is safe for concurrent use. A datagram that can
// not be sent is counted and logged once; the daemon goes on without.
type Notifier struct {
	log *logrus.Entry

	mu     sync.Mutex // guards what is below and keeps notices in order
	ready  bool
	status string
	failed uint64
}

// New returns a notifier that logs to log, which may be nil.
func New(log *logrus.Entry) *Notifier { return &Notifier{log: log} }

// Ready says that the daemon does its job, or waits for its agent.
func (n *Notifier) Ready() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.ready = true
	n.sendLocked(daemon.SdNotifyReady)
}

// Reloaded ends what Reloading began. A daemon that was not ready before is not
// made so by a reload.
func (n *Notifier) Reloaded() {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.ready {
		n.sendLocked(daemon.SdNotifyReady)
	}
}

// Alive feeds the watchdog. Only proven progress may lead here.
func (n *Notifier) Alive() { n.send(daemon.SdNotifyWatchdog) }

// Stopping says that an ordered stop has begun.
func (n *Notifier) Stopping() { n.send(daemon.SdNotifyStopping) }

// Reloading says that the configuration is being read again; Reloaded ends it.
func (n *Notifier) Reloading() {
	n.mu.Lock()
	defer n.mu.Unlock()
	if !n.ready {
		return // systemd would take it for a start that never ends
	}
	n.sendLocked(daemon.SdNotifyReloading + "\n" + strings.TrimSpace(daemon.SdNotifyMonotonicUsec()))
}

// Status says in words how the daemon is. The same words are not sent twice.
func (n *Notifier) Status(words string) {
	words = strings.Join(strings.Fields(words), " ") // one line
	n.mu.Lock()
	defer n.mu.Unlock()
	if words == n.status || words == "" {
		return
	}
	n.status = words
	n.sendLocked("STATUS=" + words)
}

// Failed is how many notices could not be sent.
func (n *Notifier) Failed() uint64 {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.failed
}

func (n *Notifier) send(state string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.sendLocked(state)
}

func (n *Notifier) sendLocked(state string) {
	if _, err := daemon.SdNotify(false, state); err != nil {
		n.failed++
		if n.failed == 1 && n.log != nil {
			n.log.WithError(fmt.Errorf("notify service manager: %w", err)).Warn("The service manager can not be told how this daemon is")
		}
	}
}
