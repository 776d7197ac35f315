package control

import (
	"net"
	"os"
	"sync"
	"time"
)

// gate is a listener that lets in root and the daemon's own user, and not more
// of them at once than maxConnections. The daemon's own connections, its self
// checks, come in always.
type gate struct {
	*net.UnixListener
	server *Server
	slots  chan struct{} // one value for each connection let in; never closed
}

func (s *Server) newGate(l *net.UnixListener) *gate {
	return &gate{UnixListener: l, server: s, slots: make(chan struct{}, maxConnections)}
}

// Accept returns the next connection that may come in.
func (g *gate) Accept() (net.Conn, error) {
	for {
		conn, err := g.AcceptUnix()
		if err != nil {
			return nil, err
		}
		uid, pid, err := peer(conn)
		switch {
		case err != nil || (uid != 0 && uid != g.server.uid):
			g.server.refused.Add(1)
			g.server.cfg.Log.WithField("uid", uid).WithField("pid", pid).Warn("Connection of another user to the control socket refused")
			turnAway(conn, "403 Forbidden", "only root and the user of the daemon may ask")
		case pid == os.Getpid():
			return conn, nil
		default:
			if admitted := g.admit(conn); admitted != nil {
				return admitted, nil
			}
			g.server.busy.Add(1)
			turnAway(conn, "503 Service Unavailable", "too many connections: try again later")
		}
	}
}

// admit takes a slot for a connection; nil if there is none.
func (g *gate) admit(conn *net.UnixConn) net.Conn {
	select {
	case g.slots <- struct{}{}:
		return &admitted{UnixConn: conn, release: sync.OnceFunc(func() { <-g.slots })}
	default:
		return nil
	}
}

// admitted is a connection that gives its slot back when it is closed.
type admitted struct {
	*net.UnixConn
	release func()
}

func (a *admitted) Close() error {
	a.release()
	return a.UnixConn.Close()
}

// turnAway answers without reading, and closes. The answer is small enough for
// the socket's buffer; a deadline bounds it all the same.
func turnAway(conn *net.UnixConn, status, problem string) {
	_ = conn.SetDeadline(time.Now().Add(time.Second))
	_, _ = conn.Write([]byte("HTTP/1.1 " + status + "\r\nContent-Type: application/json\r\nConnection: close\r\n\r\n{\"error\":\"" + problem + "\"}\n"))
	_ = conn.Close()
}
