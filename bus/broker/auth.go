package broker

import (
	"crypto/subtle"
	"errors"
	"io/fs"

	"github.com/nats-io/nats-server/v2/server"

	"daemoneye.dev/procmond/bus/rpc"
)

// gatekeeper authenticates connections for the server
// ([server.Options].CustomClientAuthentication).
type gatekeeper struct {
	broker  *Broker
	clients *clients
}

// Check says who a connection is, or refuses it. The server calls it from the
// connection's own goroutine.
func (g gatekeeper) Check(c server.ClientAuthentication) bool {
	opts := c.GetOpts()
	who, outside := g.clients.name(c.GetID(), opts.Username)
	if opts.Username == agentUser && !outside && same(opts.Password, g.broker.password) {
		c.RegisterUser(&server.User{Username: agentUser})
		return true
	}
	allowed, reason := g.broker.admit(opts.Username, opts.Password, who.tcp)
	if reason == "" && !g.clients.admit(c.GetID()) {
		reason = ReasonUserMany
	}
	if reason != "" {
		g.broker.refusals.count(reason, who.String())
		return false
	}
	c.RegisterUser(&server.User{Username: opts.Username, Permissions: allowed})
	return true
}

// admit returns what a user may do, or the reason why it may not come in.
func (b *Broker) admit(user, password string, tcp bool) (allowed *server.Permissions, reason string) {
	allowed = permissions(user)
	if allowed == nil {
		return nil, ReasonUser
	}
	if tcp && rpc.ValidID(user) == nil {
		return nil, ReasonNotHere
	}
	secret, err := readSecret(b.cfg.Socket, user)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, ReasonNotEnrolled
	case err != nil:
		b.cfg.Log.WithError(err).Debug("Secret not used")
		return nil, ReasonSecretUnsafe
	case !same(password, secret):
		return nil, ReasonSecret
	}
	return allowed, ""
}

// same compares in a time that depends on no content.
func same(a, b string) bool { return subtle.ConstantTimeCompare([]byte(a), []byte(b)) == 1 }
