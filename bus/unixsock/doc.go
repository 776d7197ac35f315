// Package unixsock makes the Unix sockets that daemon and agent are reached on. A
// socket is seen with its final owner and mode only, takes the place of nothing but
// one on which nobody listens any more, and takes its name along when it is closed.
// [PeerOf] tells who is at the other end of a connection.
package unixsock
