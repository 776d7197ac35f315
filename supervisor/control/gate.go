package control

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"sync"
	"time"

	"daemoneye.dev/procmond/bus/unixsock"
)

// verdict is what becomes of a connection.
type verdict int

const (
	verdictOwn    verdict = iota // let in whatever the limit: the server asks itself
	verdictAdmit                 // let in below the limit
	verdictRefuse                // turned away
)

// maxTurnedAway is how many connections are heard out at once only to be told
// that they may not come in.
const maxTurnedAway = 8

// gate is a listener that lets in who may come, and not more of them at once than
// there are slots. Others come in to be refused: to close a connection before its
// request is read would take the answer away from the client. When too many of
// those are under way, the next are closed with an unasked answer.
type gate struct {
	net.Listener
	server     *Server
	check      func(net.Conn) verdict
	slots      chan struct{} // one value for each connection let in; never closed
	turnedAway chan struct{} // one value for each connection being refused; never closed
}

func (s *Server) newGate(l net.Listener, check func(net.Conn) verdict) *gate {
	return &gate{
		Listener: l, server: s, check: check,
		slots:      make(chan struct{}, s.limits.connections),
		turnedAway: make(chan struct{}, maxTurnedAway),
	}
}

// Accept returns the next connection that is to be answered.
func (g *gate) Accept() (net.Conn, error) {
	for {
		conn, err := g.Listener.Accept()
		if err != nil {
			return nil, err
		}
		verdict := g.check(conn)
		if verdict == verdictOwn {
			return conn, nil
		}
		if verdict == verdictAdmit {
			if in := take(g.slots, conn, nil); in != nil {
				return in, nil
			}
		}
		why := g.refusal(verdict)
		if in := take(g.turnedAway, conn, why); in != nil {
			return in, nil
		}
		hangUp(conn, why)
	}
}

// refusal counts and returns why a connection is turned away.
func (g *gate) refusal(v verdict) *turnedAway {
	if v == verdictRefuse {
		g.server.refused.Add(1)
		return &turnedAway{http.StatusForbidden, "only root and the user of the daemon may ask"}
	}
	g.server.busy.Add(1)
	return &turnedAway{http.StatusTooManyRequests, "too many connections"}
}

// turnedAway is the answer to whatever a connection asks.
type turnedAway struct {
	status  int
	problem string
}

// hint says what to do about it.
func (t *turnedAway) hint() string {
	if t.status == http.StatusForbidden {
		return "use sudo"
	}
	return "try again later"
}

// checkPeer judges who connects to the control socket.
func (s *Server) checkPeer(conn net.Conn) verdict {
	p, err := unixsock.PeerOf(conn.(*net.UnixConn))
	switch {
	case err != nil || !s.allowed(p.UID):
		s.cfg.Log.WithField("uid", p.UID).WithField("pid", p.PID).Warn("Connection of another user to the control socket refused")
		return verdictRefuse
	case p.PID == s.pid:
		return verdictOwn
	default:
		return verdictAdmit
	}
}

// checkNobody lets in everybody: what is served over TCP is for all who reach it.
func checkNobody(net.Conn) verdict { return verdictAdmit }

// take takes a slot for a connection; nil if there is none.
func take(slots chan struct{}, conn net.Conn, why *turnedAway) net.Conn {
	select {
	case slots <- struct{}{}:
		return &admitted{Conn: conn, why: why, release: sync.OnceFunc(func() { <-slots })}
	default:
		return nil
	}
}

// admitted is a connection that gives its slot back when it is closed.
type admitted struct {
	net.Conn
	why     *turnedAway // nil if it is welcome
	release func()
}

func (a *admitted) Close() error {
	a.release()
	return a.Conn.Close()
}

type turnedAwayKey struct{}

// connContext lets requests know whether their connection is turned away.
func connContext(ctx context.Context, conn net.Conn) context.Context {
	if a, ok := conn.(*admitted); ok && a.why != nil {
		return context.WithValue(ctx, turnedAwayKey{}, a.why)
	}
	return ctx
}

// hangUp answers without reading, and closes. The answer is small enough for the
// socket's buffer; a deadline bounds it all the same.
func hangUp(conn net.Conn, why *turnedAway) {
	_ = conn.SetDeadline(time.Now().Add(time.Second))
	_, _ = fmt.Fprintf(conn, "HTTP/1.1 %d %s\r\nContent-Type: application/json\r\nConnection: close\r\n\r\n{\"error\":%q,\"hint\":%q}\n",
		why.status, http.StatusText(why.status), why.problem, why.hint())
	_ = conn.Close()
}
