package control

import (
	"net"
	"sync"
	"time"
)

// verdict is what becomes of a connection.
type verdict int

const (
	verdictOwn    verdict = iota // let in whatever the limit: the server asks itself
	verdictAdmit                 // let in below the limit
	verdictRefuse                // turned away
)

// gate is a listener that lets in who may come, and not more of them at once than
// there are slots.
type gate struct {
	net.Listener
	server *Server
	check  func(net.Conn) verdict
	slots  chan struct{} // one value for each connection let in; never closed
}

func (s *Server) newGate(l net.Listener, check func(net.Conn) verdict) *gate {
	return &gate{Listener: l, server: s, check: check, slots: make(chan struct{}, s.limits.connections)}
}

// Accept returns the next connection that may come in.
func (g *gate) Accept() (net.Conn, error) {
	for {
		conn, err := g.Listener.Accept()
		if err != nil {
			return nil, err
		}
		switch g.check(conn) {
		case verdictOwn:
			return conn, nil
		case verdictRefuse:
			g.server.refused.Add(1)
			turnAway(conn, "403 Forbidden", "only root and the user of the daemon may ask")
		case verdictAdmit:
			if admitted := g.admit(conn); admitted != nil {
				return admitted, nil
			}
			g.server.busy.Add(1)
			turnAway(conn, "503 Service Unavailable", "too many connections: try again later")
		}
	}
}

// checkPeer judges who connects to the control socket.
func (s *Server) checkPeer(conn net.Conn) verdict {
	uid, pid, err := peer(conn.(*net.UnixConn))
	switch {
	case err != nil || !s.allowed(uid):
		s.cfg.Log.WithField("uid", uid).WithField("pid", pid).Warn("Connection of another user to the control socket refused")
		return verdictRefuse
	case pid == s.pid:
		return verdictOwn
	default:
		return verdictAdmit
	}
}

// checkNobody lets in everybody: what is served over TCP is for all who reach it.
func checkNobody(net.Conn) verdict { return verdictAdmit }

// admit takes a slot for a connection; nil if there is none.
func (g *gate) admit(conn net.Conn) net.Conn {
	select {
	case g.slots <- struct{}{}:
		return &admitted{Conn: conn, release: sync.OnceFunc(func() { <-g.slots })}
	default:
		return nil
	}
}

// admitted is a connection that gives its slot back when it is closed.
type admitted struct {
	net.Conn
	release func()
}

func (a *admitted) Close() error {
	a.release()
	return a.Conn.Close()
}

// turnAway answers without reading, and closes. The answer is small enough for
// the socket's buffer; a deadline bounds it all the same.
func turnAway(conn net.Conn, status, problem string) {
	_ = conn.SetDeadline(time.Now().Add(time.Second))
	_, _ = conn.Write([]byte("HTTP/1.1 " + status + "\r\nContent-Type: application/json\r\nConnection: close\r\n\r\n{\"error\":\"" + problem + "\"}\n"))
	_ = conn.Close()
}
